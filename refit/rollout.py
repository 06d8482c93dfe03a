"""The nouns of a rollout: the bundle that is to go live, and what became of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from refit.settings import Settings
from refit.verdict import Verdict


class Proposal(Settings):
    """A bundle that passed its gate and is to replace the champion, once it has proved itself.

    Attributes:
        bundle_id: The bundle.
        champion: Whom its gate compared it with; "" when there was none.
        by, reason: Who asks for it and why; kept in the audit trail.
    """

    bundle_id: str
    champion: str
    at: datetime
    by: str
    reason: str

    @property
    def rollout_id(self) -> str:
        """The rollout that carries it out; one proposal has one."""
        return f"{self.at:%Y%m%dT%H%M%S}{self.at.microsecond:06}Z-{self.bundle_id}"


class RolloutDecision(Settings):
    """How a rollout ended, and what that rests on.

    Attributes:
        action: ``promote`` makes the bundle champion, ``roll_back`` takes it away.
        verdict: What was compared between the arms; passed when ``action`` is ``promote``.
        counts: What each arm had served, by arm and measure.
        after: How many changes of champion there had been.
    """

    rollout_id: str
    bundle_id: str
    champion: str
    action: Literal["promote", "roll_back"]
    verdict: Verdict
    counts: Mapping[str, Mapping[str, float | None]] = {}
    after: int
    started_at: datetime
    at: datetime
    by: str
