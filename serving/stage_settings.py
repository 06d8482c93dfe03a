"""Settings of the stages of an answer: retrieval, slate, and the buckets of an experiment."""

from typing import Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from refit.extensions import ExtensionKind
from refit.settings import Settings
from serving.request import MAX_K

RETRIEVERS = ExtensionKind(
    name="retriever",
    group="refit.retrievers",
    package="serving.retrievers",
    needs=("retrieve",),
    advice="a retriever's package must be in the serving environment, .venv-serving",
)
TOWERS, POPULAR, SIMILAR = "towers", "popular", "similar"


class RetrievalSettings(Settings):
    """Where the candidates of an answer come from.

    Attributes:
        retrievers: Retrievers by name, or by dotted name such as ``acme.refit.editors_picks``, each
            with its weight: with ``{towers: 8, fresh: 1, followed: 1}`` eight of ten places are
            filled by the towers. A place that a retriever cannot fill goes to the others. Without
            an answer of the query tower, ``popular`` fills all of them.
        popularity: Weight of popularity in the towers' score: below 1, fewer slots go to the most
            popular items. The score that is returned has this weight.
        fresh_days: How long a listing counts as fresh.
        similar_to: Of how many of the person's latest items ``similar`` finds similar ones.
    """

    retrievers: dict[str, NonNegativeFloat] = {TOWERS: 1.0}
    popularity: float = Field(1.0, ge=0, le=2)
    fresh_days: PositiveFloat = 3.0
    similar_to: int = Field(3, ge=1, le=50)

    @field_validator("retrievers")
    @classmethod
    def _check_retrievers(cls, weights: dict[str, float]) -> dict[str, float]:
        if not any(weights.values()):
            raise ValueError("at least one retriever needs a weight above 0")
        for name in weights:
            if not RETRIEVERS.is_known(name):
                raise ValueError(RETRIEVERS.explain_unknown(name))
        return weights


class ExplorationSettings(Settings):
    """Which slots are drawn at random, and from what.

    Attributes:
        share: Share of the slots in which a new or under-shown listing is drawn; 0 draws none.
            Only answers of the query tower explore.
        first_slot: The slots before this one, counted from 0, are never drawn.
        new_days: How long a listing counts as new.
        under_shown: Share of the bundle's items that count as under-shown: those with the least
            popularity when the index was built.
        listings: From how many listings is drawn: of the new and under-shown ones, the nearest to
            the person. More listings get a chance if it is larger, each a smaller one.
        salt: Another text draws other slots for the same request ids.
    """

    share: float = Field(0.0, ge=0, le=0.5)
    first_slot: int = Field(0, ge=0, lt=MAX_K)
    new_days: NonNegativeFloat = 3.0
    under_shown: float = Field(0.2, ge=0, le=1)
    listings: PositiveInt = 100
    salt: str = "refit"


class SlateSettings(Settings):
    """What is shown of the candidates.

    Attributes:
        caps: How many items of one answer may have the same value of an item column, such as
            ``{seller_id: 2, category_2: 5}``. An item without a value counts as no other. Where
            the candidates do not fill an answer within the caps, the best of the others do.
        diversity: How much an item's likeness to those above it counts against its place among
            the candidates, from 0, not at all, to 1, nothing else.
        candidates: For each place, how many candidates caps and diversity choose from.
        exploration: Which slots are drawn at random.
    """

    caps: dict[str, PositiveInt] = {}
    diversity: float = Field(0.0, ge=0, lt=1)
    candidates: int = Field(5, ge=1, le=50)
    exploration: ExplorationSettings = ExplorationSettings()

    @property
    def chooses(self) -> bool:
        """Whether the list differs from the order of the candidates."""
        return bool(self.caps) or self.diversity > 0

    def count_candidates(self, k: int) -> int:
        """How many candidates an answer of k items is chosen from."""
        return k * self.candidates if self.chooses else k


class BucketSettings(Settings):
    """One bucket of an experiment.

    Attributes:
        share: Share of the people who are in it.
        retrieval: What takes the place of the recommender's ``retrieval`` for them; null keeps it.
        slate: What takes the place of its ``slate``; null keeps it.
    """

    share: float = Field(ge=0, le=1)
    retrieval: RetrievalSettings | None = None
    slate: SlateSettings | None = None


class ExperimentSettings(Settings):
    """Buckets of people whose answers differ, for a comparison.

    Attributes:
        salt: Another text draws other people, as for another experiment.
        buckets: By name, in this order; people beyond the sum of the shares are in none.
    """

    salt: str = "experiment"
    buckets: dict[str, BucketSettings] = {}

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        total = sum(bucket.share for bucket in self.buckets.values())
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of the buckets add up to {total:g}, more than 1")
        return self
