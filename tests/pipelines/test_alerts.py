"""refit alerts, on a store of each kind."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from monitoring.store import SqlStore
from refit.quarantine import Quarantine
from refit.registry import Registry
from tests.monitoring.alerts import NOW, alert
from tests.monitoring.story import STORY

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


def test_an_alert_is_shown_with_its_story_and_what_was_done(refit, tmp_path):
    store = SqlStore(tmp_path / "home" / "monitoring" / "alerts.sqlite")
    store.add_alert(alert().model_copy(update={"incident": STORY}))
    refit("alerts", "ack", "a1", "--reason", "looking at the feed")
    shown = refit("alerts", "show", "a1").out
    for words in (
        f"new supply: {STORY.summary}",
        "first in listing-embedding/mean_shift",
        "ruled out: season",
        "tester: acknowledge: looking at the feed",
    ):
        assert words in shown
    (listed,) = json.loads(refit("alerts", "list", "--json").out)
    assert listed["incident"]["cause"] == "new supply"


def test_an_alert_is_muted(on_store, place):
    for until, seconds in (("12h", 12 * 3600), ("3d", 3 * 86_400)):
        done = on_store("alerts", "mute", "a1", "--until", until, "--reason", "a campaign")
        assert "a1 muted until" in done.out
        left = SqlStore(place).alert("a1").muted_until - datetime.now(UTC)
        assert abs(left - timedelta(seconds=seconds)) < timedelta(minutes=1)
    for until in ("soon", "2020-01-01T00:00"):
        refused = on_store("alerts", "mute", "a1", "--until", until, "--reason", "a campaign")
        assert (refused.code, "a time" in refused.err) == (2, True)
    assert len(SqlStore(place).entries("a1")) == 2


def test_a_quarantine_is_listed_and_released(on_store, place, tmp_path):
    kept = Quarantine(
        quarantine_id="q1", table="items", start=NOW, reason="no brand", alert_id="a1"
    )
    SqlStore(place).add_quarantine(kept)
    SqlStore(place).add_quarantine(kept.model_copy(update={"quarantine_id": "q2"}))
    (listed, _) = json.loads(on_store("quarantine", "list", "--json").out)
    assert listed["quarantine_id"] == "q1"
    assert "no brand" in on_store("quarantine", "list").out
    registry = tmp_path / "registry"
    registry.mkdir()
    words = ("--registry", registry, "--reason", "mended")
    done = on_store("quarantine", "release", "q1", *words)
    assert done.out == "q1 released by tester\n"
    (published,) = Registry(registry).quarantines()
    assert published.quarantine_id == "q2"
    done = on_store("quarantine", "release", "q2", "--reason", "mended")  # no registry is here
    assert done.out.startswith("q2 released by tester\nwarning: the quarantines could not be pub")
    assert not (tmp_path / "home").exists()
    assert on_store("quarantine", "list", "--json").out == "[]\n"
    assert "tester" in on_store("quarantine", "list", "--all").out
    again = on_store("quarantine", "release", "q1", "--reason", "mended")
    assert (again.code, "released by tester already" in again.err) == (2, True)


def test_messages_are_sent_by_a_command_too(refit, tmp_path, monkeypatch):
    SqlStore(tmp_path / "home" / "monitoring" / "alerts.sqlite").add_alert(alert())
    monkeypatch.delenv("REFIT_ALERT_WEBHOOK", raising=False)
    refused = refit("alerts", "notify")
    assert (refused.code, "REFIT_ALERT_WEBHOOK" in refused.err) == (2, True)
    monkeypatch.setenv("REFIT_ALERT_WEBHOOK", "http://127.0.0.1:1/")
    assert refit("alerts", "notify").out == "0 messages sent\n"
