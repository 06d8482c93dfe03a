"""Which action follows from which cause."""

from pathlib import Path

import pytest

from monitoring.explain import advise_action
from monitoring.explain.causes import CAUSES, HOW_OFTEN, UNNAMED
from monitoring.explain.signs import SIGNS
from refit.alert import Action
from refit.incident import Cause, Incident
from tests.monitoring.explain.cases import START


def advise(cause, hurts=None, **more):
    return advise_action(Incident(cause=cause, summary="", began=START, **more), hurts)


@pytest.mark.parametrize(
    ("cause", "hurts", "action"),
    [
        (Cause.UPSTREAM_FAULT, None, Action.QUARANTINE),
        (Cause.NEW_SUPPLY, None, Action.REFIT),
        (Cause.NEW_SUPPLY, False, Action.WAIT),
        (Cause.TASTE, True, Action.REFIT),
        (Cause.SEASON, None, Action.ALERT),
        (Cause.SEASON, True, Action.REFIT),
        (Cause.INDEX_AGE, None, Action.REFRESH),
        (Cause.MODEL, None, Action.ROLL_BACK),
        (Cause.MARKET, True, Action.ALERT),
        (Cause.UNKNOWN, True, Action.WAIT),
    ],
)
def test_the_action_follows_from_the_cause(cause, hurts, action):
    advice = advise(cause, hurts)
    assert advice.action is action
    assert advice.sentence.endswith(".")


def test_late_rows_are_waited_for():
    advice = advise(Cause.UPSTREAM_FAULT, fault="silent", feed="events")
    assert advice.action is Action.WAIT
    assert "next export of events" in advice.sentence


def test_every_cause_says_only_known_words_of_known_signs():
    assert {each.cause for each in CAUSES} == set(Cause) - {Cause.UNKNOWN}
    for each in CAUSES:
        assert set(each.shows) <= {sign.name for sign in SIGNS}
        assert set(each.shows.values()) <= set(HOW_OFTEN)


def test_the_page_has_the_table_of_signs():
    page = (Path(__file__).parents[3] / "docs/explanation/drift.md").read_text("utf-8")
    table = page.split("<!-- signs: begin -->")[1].split("<!-- signs: end -->")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()[2:]
    ]
    expected = [
        [sign.name, *(each.shows.get(sign.name, UNNAMED) for each in CAUSES)] for sign in SIGNS
    ]
    assert rows == [[cell.replace("never", "–") for cell in row] for row in expected]
