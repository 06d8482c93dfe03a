"""Settings of the index step."""

from typing import Literal

from pydantic import Field

from refit.index import VectorType
from refit.settings import Settings


class IndexValidationSettings(Settings):
    """What a refreshed index must reach to replace the champion's.

    Attributes:
        min_share_of_live: Live listings as a share of those in the champion's index: a truncated
            table of items must not remove most listings.
        min_recall_at_100: recall@100 against exact search.
        min_queries: Queries that the recall must be measured on.
        max_p99_ms: Largest 99th percentile of the duration of a search.
    """

    min_share_of_live: float = Field(default=0.5, ge=0, le=1)
    min_recall_at_100: float = Field(default=0.95, ge=0, le=1)
    min_queries: int = Field(default=100, ge=1)
    max_p99_ms: float = Field(default=50.0, gt=0)


class IndexSettings(Settings):
    """How the index is built.

    Attributes:
        kind: ``auto`` is ``flat`` up to ``flat_up_to`` live items and ``ivf`` above. ``ivf`` is
            used from the size at which it is faster than a scan.
        flat_up_to: Up to this size an exact scan takes a fraction of a millisecond.
        target_recall_at_100: As many IVF lists are visited as this recall needs on real queries; if
            half of the lists are not enough, the index is flat.
        vectors: How an ``ivf`` index stores vectors: ``float16`` takes half of the memory of
            ``float32``, ``int8`` a quarter. What it finds is ranked again by the vectors
            themselves; ``target_recall_at_100`` and the gate's limit hold for the result.
        n_queries: Validation and test examples that the index is measured on.
        popular_items: Items kept for each context value, for the fallback without the model.
        popularity_half_life_days: The half-life, of those in the spec, that ranks them; None is the
            longest.
        popularity_smoothing: Events at the overall shares that are added to each context value.
        batch_size: Items embedded at once.
        seed: Seed of the sample of query vectors and of the IVF lists.
        validation: The gate of a refreshed index.
    """

    kind: Literal["auto", "flat", "ivf"] = "auto"
    flat_up_to: int = 50_000
    target_recall_at_100: float = Field(default=0.98, gt=0, le=1)
    vectors: VectorType = "float32"
    n_queries: int = Field(default=1000, ge=1)
    popular_items: int = Field(default=500, ge=1)
    popularity_half_life_days: float | None = None
    popularity_smoothing: float = Field(default=10.0, ge=0)
    batch_size: int = Field(default=2048, ge=1)
    seed: int = 0
    validation: IndexValidationSettings = IndexValidationSettings()
