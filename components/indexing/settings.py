"""Settings of the index step."""

from typing import Literal

from pydantic import Field

from refit.settings import Settings


class IndexValidationSettings(Settings):
    """What a refreshed index must hold to take the place of the champion's.

    Attributes:
        min_share_of_live: Live listings, as a share of those in the champion's index; a table
            that was cut off upstream must not empty the shop.
        min_recall_at_100: Of the index against the exact answer.
        min_queries: Query vectors that the recall rests on.
        max_p99_ms: Slowest 99th percentile of a search.
    """

    min_share_of_live: float = Field(default=0.5, ge=0, le=1)
    min_recall_at_100: float = Field(default=0.95, ge=0, le=1)
    min_queries: int = Field(default=100, ge=1)
    max_p99_ms: float = Field(default=50.0, gt=0)


class IndexSettings(Settings):
    """How the index is built.

    Attributes:
        kind: ``auto`` takes ``flat`` up to ``flat_up_to`` live items and ``ivf`` above; ``ivf``
            starts where the index is no longer quicker to scan.
        flat_up_to: Up to here an exact scan answers within a fraction of a millisecond.
        target_recall_at_100: IVF lists are visited until this share of the exact answer is
            found on trained query vectors; where none suffices the index becomes flat.
        n_queries: Query vectors, taken from validation and test examples, to measure with.
        popular_items: Items kept for each context value, for answers without the model.
        popularity_half_life_days: Which of the spec's half-lives ranks them; None is the longest.
        popularity_smoothing: Events' worth of overall popularity added to each context value's.
        batch_size: Items embedded at once.
        seed: Seed of the sample of query vectors and of the IVF lists.
        validation: The gate of a refreshed index.
    """

    kind: Literal["auto", "flat", "ivf"] = "auto"
    flat_up_to: int = 50_000
    target_recall_at_100: float = Field(default=0.98, gt=0, le=1)
    n_queries: int = Field(default=1000, ge=1)
    popular_items: int = Field(default=500, ge=1)
    popularity_half_life_days: float | None = None
    popularity_smoothing: float = Field(default=10.0, ge=0)
    batch_size: int = Field(default=2048, ge=1)
    seed: int = 0
    validation: IndexValidationSettings = IndexValidationSettings()
