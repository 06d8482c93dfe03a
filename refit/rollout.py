"""The records of a rollout: the proposal of a bundle, and the decision about it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from refit.settings import Settings
from refit.verdict import Verdict


class Proposal(Settings):
    """A bundle that passed its gate and is to replace the champion after a rollout.

    Attributes:
        bundle_id: The bundle.
        champion: Id of the champion that its gate compared it with; "" if there was none.
        at: Time of the proposal.
        by, reason: Author and reason, recorded in the audit trail.
    """

    bundle_id: str
    champion: str
    at: datetime
    by: str
    reason: str

    @property
    def rollout_id(self) -> str:
        """Id of the proposal's only rollout."""
        return f"{self.at:%Y%m%dT%H%M%S}{self.at.microsecond:06}Z-{self.bundle_id}"


class RolloutDecision(Settings):
    """The decision that ends a rollout, with its evidence.

    Attributes:
        rollout_id: The rollout.
        bundle_id: The proposed bundle.
        champion: Id of the champion that it was compared with.
        action: ``promote`` makes the bundle champion, ``roll_back`` removes the canary.
        verdict: The comparison of canary and baseline; passed if ``action`` is ``promote``.
        counts: Request counts by predictor and measure.
        last_promotion: Number of the registry's latest promotion at the time of the decision.
        started_at, at: Start of the rollout, and time of the decision.
        by: Author, recorded in the audit trail.
    """

    rollout_id: str
    bundle_id: str
    champion: str
    action: Literal["promote", "roll_back"]
    verdict: Verdict
    counts: Mapping[str, Mapping[str, float | None]] = {}
    last_promotion: int
    started_at: datetime
    at: datetime
    by: str
