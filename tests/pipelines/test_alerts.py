"""refit alerts, on a store of each kind."""

import json

import pytest

from monitoring.store import SqlStore
from tests.monitoring.alerts import alert

REFUSED = "postgresql+psycopg://refit:hush@db/refit"


@pytest.fixture
def on_store(refit, place):
    """The ``refit`` command with --store, where an alert is open."""
    SqlStore(place).add_alert(alert())
    return lambda *words: refit(*words, "--store", place)


def test_an_alert_is_reviewed_in_each_kind_of_store(on_store, tmp_path):
    (found,) = json.loads(on_store("alerts", "list", "--json").out)
    assert (found["alert_id"], found["status"]) == ("a1", "open")
    assert on_store("alerts", "ack", "a1").out == "a1 acknowledged by tester\n"
    assert on_store("alerts", "resolve", "a1", "--note", "a season").code == 0
    (closed,) = json.loads(on_store("alerts", "list", "--status", "resolved", "--json").out)
    assert (closed["resolved_by"], closed["note"]) == ("tester", "a season")
    assert on_store("alerts", "list", "--status", "open", "--json").out == "[]\n"
    assert not (tmp_path / "home").exists()


def test_the_variable_names_the_store_too(refit, place, monkeypatch):
    SqlStore(place).add_alert(alert())
    monkeypatch.setenv("REFIT_ALERT_STORE", place)
    assert "a1" in refit("alerts", "list").out
    assert "a1.html" in refit("alerts", "show", "a1").out


def test_pages_that_are_here_are_written_again(refit, tmp_path):
    home = tmp_path / "home" / "monitoring"
    SqlStore(home / "alerts.sqlite").add_alert(alert())
    page = home / "pages" / "a1.html"
    page.parent.mkdir()
    page.touch()
    refit("alerts", "ack", "a1")
    assert "tester" in page.read_text()
    assert str(page) in refit("alerts", "show", "a1").out


def test_a_wrong_password_is_5_and_not_repeated(refit, postgres, monkeypatch):
    place = postgres.empty()
    monkeypatch.setenv("PGPASSWORD", "hush")
    result = refit("alerts", "list", "--store", place)
    assert (result.code, result.out) == (5, "")
    assert "PGPASSWORD holds the user's password" in result.err
    assert "hush" not in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("words", ["alerts list", "alerts show a1", "monitor"])
def test_a_password_in_the_url_is_2_and_not_repeated(refit, monkeypatch, words):
    monkeypatch.setenv("REFIT_ALERT_STORE", REFUSED)
    result = refit(*words.split())
    assert (result.code, result.out) == (2, "")
    assert "put it into the environment variable PGPASSWORD" in result.err
    assert "hush" not in result.err
    assert "hush" not in refit(*words.split()[:2], "--help").out
