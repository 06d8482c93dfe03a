"""Which action follows from a cause, and what to say about it."""

from typing import NamedTuple

from monitoring.explain.causes import CAUSES
from monitoring.roll_back import UNKNOWN_ROLL_BACK, RollBack
from refit.alert import Action
from refit.incident import Cause, Incident

LATE = frozenset({"silent", "stale"})
"""Faults of a feed whose rows may still come: the next export shows them."""


class CauseAdvice(NamedTuple):
    """The action that helps most, and what to do, for the person on call."""

    action: Action
    sentence: str


def advise_action(
    incident: Incident, hurts: bool | None = None, roll_back: RollBack = UNKNOWN_ROLL_BACK
) -> CauseAdvice:
    """The action that follows from the cause of an incident.

    Args:
        incident: From ``explain``.
        hurts: Whether live quality fell. New supply and taste are refitted on unless it is known
            that they do no harm; a season is refitted on where it is known that it does.
        roll_back: Where a roll back leads to; it is not advised where it leads to no other model.
    """
    if incident.cause is Cause.UNKNOWN:
        return CauseAdvice(
            Action.WAIT,
            "Wait for more outcomes, and look at the evidence: no action is known to help.",
        )
    known = next(each for each in CAUSES if each.cause is incident.cause)
    if incident.cause is Cause.UPSTREAM_FAULT and incident.fault in LATE:
        return CauseAdvice(
            Action.WAIT,
            f"Wait for the next export of {incident.feed or 'the feed'}: its rows may be late. If "
            "they do not come, keep these days out of training.",
        )
    if incident.cause in (Cause.NEW_SUPPLY, Cause.TASTE) and hurts is False:
        return CauseAdvice(
            Action.WAIT, "Wait: quality has not fallen, and a refit now knows little of the change."
        )
    if incident.cause is Cause.SEASON and hurts:
        return CauseAdvice(Action.REFIT, "Refit: quality fell with the season.")
    if known.action is Action.ROLL_BACK:
        return _advise_roll_back(known.advice, roll_back)
    return CauseAdvice(known.action, known.advice)


def _advise_roll_back(advice: str, roll_back: RollBack) -> CauseAdvice:
    if not roll_back.is_known:
        return CauseAdvice(
            Action.ROLL_BACK,
            f"{advice} Whether a roll back leads to another model is not known: "
            f"{roll_back.problem}.",
        )
    if not roll_back.target:
        return CauseAdvice(
            Action.ALERT,
            f"No roll back: {roll_back.problem}. Find out what the server lacks (histories, "
            "contexts) and restore it; where it lacks nothing, refit.",
        )
    times = "" if roll_back.steps == 1 else f", {roll_back.steps} roll backs away"
    return CauseAdvice(
        Action.ROLL_BACK, f"{advice} The champion with another model is {roll_back.target}{times}."
    )
