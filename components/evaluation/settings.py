"""What a model is judged on, and every threshold of the gate."""

from typing import Literal, Self

from pydantic import Field, model_validator

from refit.settings import Settings

METRIC_NAMES = ("hit_rate", "ndcg", "mrr")


class SliceFloor(Settings):
    """The least that a slice of the test queries must get.

    Attributes:
        slice: Name of the slice, e.g. ``new users`` or ``size: M``.
        at_least: Floor of the deciding metric; the lower end of its interval must reach it.
        of_best_baseline: Floor as a share of what the best baseline reaches on the same slice.
        needs_n: Queries that the slice must have; fewer is a failure.
    """

    slice: str
    at_least: float = Field(default=0.0, ge=0.0, le=1.0)
    of_best_baseline: float = Field(default=0.9, ge=0.0)
    needs_n: int = Field(default=100, ge=1)


class BaselineSettings(Settings):
    """The grids that the baselines are tuned over on the validation split, and their limits.

    Attributes:
        half_lives_days: Decays of popularity that are tried.
        priors: Events that every item is credited with in its popularity.
        alphas: Strengths of additive smoothing towards the overall share of a context value.
        tuning_queries: Validation queries that tuning looks at, spread over time.
        tuning_moments: At most this many snapshots are looked at while tuning.
        max_terms: At most this many context columns, or attribute terms, are combined.
        max_values: Values of a column that are counted apart; the rest count as one.
        number_bins: Numeric columns are cut into this many equally filled bins.
        cooccurrence_powers: How strongly the popularity of the co-occurring item is divided out.
        history_decays: Weight of the next older history item relative to the newer one.
        blends: Weight of popularity (its largest value taken as 1) added to history scores.
        profile_length: Latest distinct items of a user that co-occurrence and EASE learn from.
        ease_lambdas: L2 penalties of EASE that are tried.
        ease_max_items: EASE inverts a matrix over the items with events (4 bytes x items^2, three
            times); with more items than this it is reported as not run.
    """

    half_lives_days: tuple[float, ...] = (7.0, 30.0, 60.0, 120.0, 240.0, 100_000.0)
    priors: tuple[float, ...] = (1e-6, 0.1, 1.0)
    alphas: tuple[float, ...] = (3.0, 10.0, 30.0)
    tuning_queries: int = Field(default=4000, ge=1)
    tuning_moments: int = Field(default=4, ge=1)
    max_terms: int = Field(default=5, ge=1)
    max_values: int = Field(default=100, ge=1)
    number_bins: int = Field(default=6, ge=2)
    cooccurrence_powers: tuple[float, ...] = (0.25, 0.5, 0.75)
    history_decays: tuple[float, ...] = (1.0, 0.8)
    blends: tuple[float, ...] = (1e-4, 1e-2, 0.1, 1.0)
    profile_length: int = Field(default=50, ge=2)
    ease_lambdas: tuple[float, ...] = (100.0, 500.0)
    ease_max_items: int = Field(default=5000, ge=1)


class EvaluationSettings(Settings):
    """How a model is judged, and what the gate demands.

    Attributes:
        candidates: ``live``: all the stock live at the query's moment. ``seen``: of that, the items
            with an event before the test window; queries for other items are counted and reported
            apart from the main table.
        cuts: Lengths k of the lists that metrics are taken at.
        metric: The deciding metric, e.g. ``hit_rate_at_100``.
        margin: The model must beat the best baseline by this share of its value.
        guard_metric, guard_tolerance: On this metric the model may not be worse than the best
            baseline by more than this share of its value, by the lower end of the interval.
        champion_tolerance: The same against the champion, on the deciding metric.
        required_baselines: Baselines that must have run.
        min_queries, min_users: Fewer make every comparison a failure.
        max_unanswerable: Largest share of queries whose positive item could not have been shown
            under the eligibility rules (not live, own listing, bought before ...); more means that
            the data contradict the rules.
        slice_floors: Floors per slice; a slice that is named and empty fails.
        slice_columns: Columns of the item, or else of the context, whose values make slices.
        slice_values: At most this many values of a column, the most frequent ones.
        slice_min_n: Smaller slices are not shown.
        price_bands: Equally filled price bands.
        min_coverage: Least share of the candidates that appear in a list of the longest cut.
        max_item_gini: Most unequal exposure of items that is allowed at the longest cut.
        max_seller_gini: The same for sellers; null only where the data have no sellers.
        min_index_recall: Least recall@100 of the index against exact search.
        max_index_p99_ms: Slowest 99th percentile of an index search.
        max_vector_gap: Largest difference between an index vector and the item tower's answer.
        smoke_test: Command that serves a SavedModel over PredictionService; ``{python}``,
            ``{port}``, ``{name}`` and ``{path}`` are filled in. TensorFlow Serving's own takes
            ``--port={port} --model_name={name} --model_base_path={path}``.
            Empty means that there is no test, which the gate refuses.
        smoke_test_seconds: How long the server may take to answer.
        max_smoke_test_gap: Largest difference between the server's and the model's own answer.
        max_queries: More test queries than this are thinned out evenly over time.
        replicates, seed: Bootstrap replicates over users, and the seed of all sampling.
        examples: Example queries in the report.
        prediction_queries: Visits answered as reference predictions, at most, evenly over time.
        baselines: The grids of the baselines.
    """

    candidates: Literal["live", "seen"] = "live"
    cuts: tuple[int, ...] = (10, 50, 100)
    metric: str = "hit_rate_at_100"
    margin: float = Field(default=0.01, ge=0.0)
    guard_metric: str = "hit_rate_at_10"
    guard_tolerance: float = Field(default=0.1, ge=0.0)
    champion_tolerance: float = Field(default=0.02, ge=0.0)
    required_baselines: tuple[str, ...] = ("popularity",)
    min_queries: int = Field(default=500, ge=1)
    min_users: int = Field(default=100, ge=2)
    max_unanswerable: float = Field(default=0.02, ge=0.0, le=1.0)
    slice_floors: tuple[SliceFloor, ...] = (
        SliceFloor(slice="new users"),
        SliceFloor(slice="known users"),
    )
    slice_columns: tuple[str, ...] = ("category_1", "size", "condition")
    slice_values: int = Field(default=6, ge=1)
    slice_min_n: int = Field(default=50, ge=1)
    price_bands: int = Field(default=4, ge=2)
    min_coverage: float = Field(default=0.2, ge=0.0, le=1.0)
    max_item_gini: float = Field(default=0.97, ge=0.0, le=1.0)
    max_seller_gini: float | None = Field(default=0.95, ge=0.0, le=1.0)
    min_index_recall: float = Field(default=0.95, ge=0.0, le=1.0)
    max_index_p99_ms: float = Field(default=50.0, gt=0.0)
    max_vector_gap: float = Field(default=1e-3, ge=0.0)
    smoke_test: tuple[str, ...] = (
        "{python}",
        "-m",
        "serving.model_server",
        "--port={port}",
        "--model={name}={path}",
    )
    smoke_test_seconds: float = Field(default=180.0, gt=0.0)
    max_smoke_test_gap: float = Field(default=1e-4, ge=0.0)
    max_queries: int = Field(default=50_000, ge=1)
    replicates: int = Field(default=1000, ge=100)
    seed: int = 7
    examples: int = Field(default=5, ge=0)
    prediction_queries: int = Field(default=5000, ge=1)
    baselines: BaselineSettings = BaselineSettings()

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        known = [f"{name}_at_{k}" for name in METRIC_NAMES for k in self.cuts]
        for name in (self.metric, self.guard_metric):
            if name not in known:
                raise ValueError(f"unknown metric {name!r}; known metrics: {', '.join(known)}")
        return self

    @property
    def longest(self) -> int:
        """The longest list that is judged."""
        return max(self.cuts)
