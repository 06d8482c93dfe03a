"""refit recommend, against a recommender behind the plain door."""

import json
import threading
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from tests.serving.doors.running import running
from tests.serving.tiny import ids


@pytest.fixture
def ask(serve) -> Callable[..., Result]:
    recommender = serve()
    recommender.go = threading.Event()  # which the helper sets at its end
    with running(recommender) as port:

        def call(*words: object) -> Result:
            url = f"http://127.0.0.1:{port}"
            result = CliRunner().invoke(app, ["recommend", *map(str, words), "--url", url])
            assert result.exit_code == 0, result.output
            return result

        yield call


def rows(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_pages_repeat_no_item_and_end(ask):
    head, *listed = rows(ask("--user", "user-3", "-k", 4, "--pages", 3))
    assert head == ["page", "item", "score"]
    assert [row[0] for row in listed] == [page for page in "123" for _ in range(4)]
    assert len({row[1] for row in listed}) == 12
    pages = json.loads(ask("--user", "user-3", "-k", 100, "--pages", 9, "--json").stdout)
    assert len(pages) < 9
    assert pages[-1]["cursor"] is None


def test_several_users_are_one_request(ask):
    head, *listed = rows(ask("-u", "user-3", "-u", "user-4", "-k", 2))
    assert head == ["user", "item", "score"]
    assert [row[0] for row in listed] == ["user-3", "user-3", "user-4", "user-4"]
    one = json.loads(ask("-u", "user-4", "-k", 2, "--json").stdout)
    both = json.loads(ask("-u", "user-3", "-u", "user-4", "-k", 2, "--json").stdout)
    assert ids(both[1]) == ids(one)


def test_similar_items(ask):
    answer = json.loads(ask("--similar", "item-3", "-k", 3, "--json").stdout)
    assert len(ids(answer)) == 3
    assert "item-3" not in ids(answer)


def test_why_an_item_is_there(ask):
    head, *listed = rows(ask("-u", "user-3", "-k", 3, "--explain"))
    assert head == ["item", "score", "source", "learned", "popularity", "nearest"]
    assert {row[2] for row in listed} == {"towers"}
    for row in listed:
        assert float(row[3]) + float(row[4]) == pytest.approx(float(row[1]), abs=2e-4)


def test_an_answer_that_is_not_personalised(ask):
    one, two = (
        json.loads(ask("-u", user, "--not-personalised", "--json").stdout)
        for user in ("user-3", "user-4")
    )
    assert one["fallback"] == "not_personalised"
    assert len(ids(one)) == len(ids(two)) == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--similar", "i", "--user", "u"], "--similar asks about an item"),
        (["--user", "a", "--user", "b", "--pages", "2"], "name one --user"),
    ],
)
def test_options_that_do_not_go_together(words, message):
    result = CliRunner().invoke(app, ["recommend", *words])
    assert result.exit_code == 2
    assert message in result.output
