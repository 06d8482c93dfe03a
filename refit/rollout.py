"""The records of a rollout: the proposal of a bundle, and the decision about it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from refit.bundle import BundleManifest
from refit.settings import Settings
from refit.verdict import Verdict


class Block(Settings):
    """A model that was taken out of service and may not come back until a person says so.

    Attributes:
        block_id: Its id.
        bundle_id: The bundle that served it.
        why: By whom it was taken out of service, and for which reason.
        embedding_version: Its towers; "" blocks the bundle alone.
        index_fingerprint: Its index, if what serves instead has the same towers; "" blocks the
            towers with any index.
    """

    block_id: str
    bundle_id: str
    why: str
    embedding_version: str = ""
    index_fingerprint: str = ""

    def covers(self, manifest: BundleManifest) -> bool:
        """Whether a bundle holds the blocked model."""
        if manifest.bundle_id == self.bundle_id:
            return True
        if not self.embedding_version or manifest.embedding_version != self.embedding_version:
            return False
        return self.index_fingerprint in ("", manifest.index_fingerprint)


class Unblock(Settings):
    """The lifting of one block.

    Attributes:
        block_id: The block.
        bundle_id: The bundle that it was lifted for.
        at: Time of it.
        by, reason: Author and reason.
    """

    block_id: str
    bundle_id: str
    at: datetime
    by: str
    reason: str


class Proposal(Settings):
    """A bundle that passed its gate and is to replace the champion after a rollout.

    Attributes:
        bundle_id: The bundle.
        champion: Id of the champion that its gate compared it with; "" if there was none.
        at: Time of the proposal.
        by, reason: Author and reason, recorded in the audit trail.
        forced: Whether a person proposed a bundle that was refused or superseded.
    """

    bundle_id: str
    champion: str
    at: datetime
    by: str
    reason: str
    forced: bool = False

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
        action: ``promote`` makes the bundle champion, ``roll_back`` removes the canary,
            ``supersede`` gives way to a later proposal before there was a canary.
        verdict: The comparison of canary and baseline; passed if ``action`` is ``promote``.
        counts: Request counts by predictor and measure.
        last_promotion: Number of the registry's latest promotion at the time of the decision.
        started_at, at: Start of the rollout, and time of the decision.
        by: Author, recorded in the audit trail.
        blocks: The model that is blocked from now on, because it was shown to be worse.
        superseded_by: Id of the bundle that it gave way to.
    """

    rollout_id: str
    bundle_id: str
    champion: str
    action: Literal["promote", "roll_back", "supersede"]
    verdict: Verdict
    counts: Mapping[str, Mapping[str, float | None]] = {}
    last_promotion: int
    started_at: datetime
    at: datetime
    by: str
    blocks: Block | None = None
    superseded_by: str = ""
