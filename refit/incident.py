"""The Incident: results that one cause explains, with the evidence and what was ruled out."""

from datetime import datetime
from enum import StrEnum

from refit.settings import Settings


class Cause(StrEnum):
    """Why results drift; which action helps follows from it."""

    UPSTREAM_FAULT = "upstream fault"
    NEW_SUPPLY = "new supply"
    TASTE = "taste"
    SEASON = "season"
    INDEX_AGE = "index age"
    MODEL = "model"
    MARKET = "market"
    UNKNOWN = "unknown"


class Incident(Settings):
    """What happened, as one story.

    Attributes:
        cause: The kind of cause.
        fault: For an upstream fault its name, such as ``encoder replaced``.
        feed: The table or column where it began, such as ``items.price``; empty for none.
        summary: One sentence for the person on call.
        began: Start of the first window in which a result of this incident drifted.
        first_moved: ``subject/statistic`` of the result that drifted first, and most.
        explained: ``subject/statistic`` of the results that follow from the cause.
        unexplained: The drifting results that do not.
        evidence: One sentence each, the strongest first.
        ruled_out: The other causes that were considered, each with the reason against it.
    """

    cause: Cause
    summary: str
    began: datetime
    fault: str = ""
    feed: str = ""
    first_moved: str = ""
    explained: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    ruled_out: tuple[str, ...] = ()
