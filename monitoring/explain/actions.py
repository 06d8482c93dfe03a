"""Which action follows from a cause, and what to say about it."""

from typing import NamedTuple

from monitoring.explain.causes import CAUSES
from refit.alert import Action
from refit.incident import Cause, Incident

LATE = frozenset({"silent", "stale"})
"""Faults of a feed whose rows may still come: the next export shows them."""


class CauseAdvice(NamedTuple):
    """The action that helps most, and what to do, for the person on call."""

    action: Action
    sentence: str


def advise_action(incident: Incident, hurts: bool | None = None) -> CauseAdvice:
    """The action that follows from the cause of an incident.

    Args:
        incident: From ``explain``.
        hurts: Whether live quality fell. New supply and taste are refitted on unless it is known
            that they do no harm; a season is refitted on where it is known that it does.
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
    return CauseAdvice(known.action, known.advice)
