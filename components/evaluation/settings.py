"""How a model is evaluated, and every threshold of the gate."""

from difflib import get_close_matches
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from components.evaluation.leak_settings import LeakSettings
from refit.extensions import ExtensionKind
from refit.ledger import LookSettings
from refit.model_server import STAND_IN
from refit.settings import FiniteSettings

METRIC_NAMES = ("hit_rate", "ndcg", "mrr")
OF_SEVERAL = "recall"
"""A metric of queries with several relevant items; with one it is the hit rate."""
BEYOND_NAMES = (
    "novelty",
    "diversity",
    "age_days",
    "days_to_sale",
    "new_listings",
    "small_sellers",
    "size_parity",
    "price_parity",
    "calibration_error",
)
"""What ``components.evaluation.beyond_accuracy`` measures, at the shortest cut."""
BASELINES = ExtensionKind(
    name="baseline",
    group="refit.baselines",
    package="components.evaluation.baselines",
    needs=("NAME", "NEEDS", "tune"),
)
"""How baselines are found; for their attributes see ``components.evaluation.tuning``."""


def need_reasons(excused: dict[str, str]) -> dict[str, str]:
    """Check that everything that is excused has a reason."""
    silent = sorted(name for name, reason in excused.items() if not reason.strip())
    if silent:
        raise ValueError(f"excused without a reason: {', '.join(silent)}")
    return excused


class SliceFloor(FiniteSettings):
    """The minimum that the model must reach on a slice of the test queries.

    Attributes:
        slice: Name of the slice, e.g. ``new users``, ``listed within 24 h`` or ``size: M``.
        at_least: Minimum of the primary metric, for the lower end of its interval.
        of_best_baseline: Minimum as a share of the best baseline's value on the same slice.
        of_champion: Minimum as a share of the champion's value on the same slice. The model is
            refused if it is shown to be below: the upper end of the paired interval is.
        needs_n, needs_users: Queries, and users, that the slice must have; with fewer the check
            fails.
    """

    slice: str
    at_least: float = Field(default=0.0, ge=0.0, le=1.0)
    of_best_baseline: float = Field(default=0.9, ge=0.0)
    of_champion: float = Field(default=0.95, ge=0.0, le=1.0)
    needs_n: int = Field(default=100, ge=1)
    needs_users: int = Field(default=30, ge=2)


class FreshnessSettings(FiniteSettings):
    """How old what is judged may be.

    Attributes:
        as_of: Ages are counted from ``end``, the end of the data, or from ``now``. With ``end``
            historical data can be replayed; a shop's own runs should say ``now``, so that an
            export that is no longer renewed is refused.
        max_model_days: Largest age of the newest example that the model was trained on.
        max_index_days: Largest age of the items in the index.
        max_test_days: Largest age of the last test query.
    """

    as_of: Literal["end", "now"] = "end"
    max_model_days: float = Field(default=90.0, gt=0.0)
    max_index_days: float = Field(default=45.0, gt=0.0)
    max_test_days: float = Field(default=45.0, gt=0.0)


class BaselineSettings(FiniteSettings):
    """Which baselines run, and the grids that the built-in ones are tuned over.

    Attributes:
        include: Baselines that run, by the name of a built-in one, by the entry point of an
            installed package, or by a dotted name.
        extra: Baselines that run in addition, named likewise.
        options: Options of baselines, by their name in ``include`` or ``extra``.
        half_lives_days: Half-lives of popularity that are compared.
        priors: Events that every item gets in its popularity.
        alphas: Additive smoothing towards the overall share of a context value, in events.
        tuning_queries: Validation queries that parameters are compared on, spread over time.
        tuning_snapshots: At most this many snapshots that these queries come from.
        max_factors: At most this many context columns, or attribute factors, are combined.
        max_values: Values of a column that are counted separately; the rest count as one.
        number_bins: Numeric columns are cut into this many equally filled bins.
        cooccurrence_powers: How strongly the candidate's popularity is divided out.
        history_decays: Weight of the next older history item relative to the newer one.
        blends: Weight of popularity (scaled to a largest value of 1) added to history scores.
        profile_length: Latest distinct items of a user that co-occurrence and EASE learn from.
        ease_lambdas: L2 penalties of EASE that are compared.
        excused: Baselines that need not run, each with the reason, such as ``{ease: "..."}``. Every
            other baseline that does not run refuses the model.
        ease_max_items: EASE inverts a matrix over the items with events (three times 4 bytes x
            items^2); with more items than this its sparse form runs.
        ease_neighbours: In the sparse form, how many other items explain an item.
        ease_most_items: In the sparse form, how many items have columns: those with the most users.
    """

    include: tuple[str, ...] = (
        "popularity",
        "popularity_in_context",
        "attributes_in_context",
        "cooccurrence",
        "ease",
    )
    extra: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = {}
    excused: dict[str, str] = {}
    half_lives_days: tuple[float, ...] = (7.0, 30.0, 60.0, 120.0, 240.0, 100_000.0)
    priors: tuple[float, ...] = (1e-6, 0.1, 1.0)
    alphas: tuple[float, ...] = (3.0, 10.0, 30.0)
    tuning_queries: int = Field(default=4000, ge=1)
    tuning_snapshots: int = Field(default=4, ge=1)
    max_factors: int = Field(default=5, ge=1)
    max_values: int = Field(default=100, ge=1)
    number_bins: int = Field(default=6, ge=2)
    cooccurrence_powers: tuple[float, ...] = (0.25, 0.5, 0.75)
    history_decays: tuple[float, ...] = (1.0, 0.8)
    blends: tuple[float, ...] = (1e-4, 1e-2, 0.1, 1.0)
    profile_length: int = Field(default=50, ge=2)
    ease_lambdas: tuple[float, ...] = (100.0, 500.0)
    ease_max_items: int = Field(default=5000, ge=1)
    ease_neighbours: int = Field(default=30, ge=1)
    ease_most_items: int = Field(default=200_000, ge=1)

    @property
    def names(self) -> tuple[str, ...]:
        """All baselines that run, in the order of the report."""
        return (*self.include, *self.extra)

    @field_validator("include", "extra")
    @classmethod
    def _check_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not BASELINES.is_known(name):
                raise ValueError(BASELINES.explain_unknown(name))
        return names

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice in include and extra: {', '.join(twice)}")
        stray = sorted(self.options.keys() - set(self.names))
        if stray:
            raise ValueError(f"options for baselines that do not run: {', '.join(stray)}")
        stray = sorted(self.excused.keys() - set(self.names))
        if stray:
            raise ValueError(f"excused, but not in include or extra: {', '.join(stray)}")
        return self

    @field_validator("excused")
    @classmethod
    def _check_reasons(cls, excused: dict[str, str]) -> dict[str, str]:
        return need_reasons(excused)


class Bound(FiniteSettings):
    """What a measurement must reach, or must not exceed.

    Attributes:
        at_least: Smallest value that passes.
        at_most: Largest value that passes.
    """

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least, at_most or both")
        return self


class BeyondSettings(FiniteSettings):
    """What is measured beyond accuracy, on the lists of the shortest cut.

    Attributes:
        new_days: A listing is new for so many days.
        small_seller_listings: A seller with at most so many live listings is small.
        price_bands: Equally filled price bands of the stock.
        smallest_part: Sizes and price bands with a smaller share of the stock are left out.
    """

    new_days: float = Field(default=7.0, gt=0.0)
    small_seller_listings: int = Field(default=3, ge=1)
    price_bands: int = Field(default=4, ge=2)
    smallest_part: float = Field(default=0.01, ge=0.0, le=1.0)


class EvaluationSettings(FiniteSettings):
    """How a model is evaluated, and what the gate requires.

    Attributes:
        candidates: ``live``: all items live at the time of the query. ``seen``: of those, the items
            with an event before the test split; queries with another positive are left out, and
            counted in the report.
        relevant: ``each``: every event is a query of its own, with one relevant item. ``together``:
            the events of a user at the same time are one query with several relevant items, as in
            published tables over a given split. There is a metric ``recall`` then, the share of
            the relevant items that are found; ``ndcg`` is over that of the best possible list,
            ``hit_rate`` counts lists that find one, ``mrr`` takes the first; and results are not
            cut into slices by item.
        cuts: Lengths k of the lists that metrics are computed at.
        metric: The primary metric, e.g. ``hit_rate_at_100``.
        margin: The model must beat the best baseline by this share of the baseline's value.
        guard_metric, guard_tolerance: On this metric the model may be worse than the best baseline
            by at most this share of its value, for the lower end of the interval.
        champion_tolerance: The same against the champion, on the primary metric. The test must be
            large enough for it: see ``equal_passes``.
        equal_passes: A tolerance counts only in a test in which a model that is exactly as good
            passes with this probability. In a smaller test the model must be shown to be better,
            and otherwise the verdict is that the data cannot tell.
        power: The report states the smallest gain that the test detects with this probability.
        best_of_last: The model is compared with the best of this many last champions too, with the
            same tolerance, so that small losses cannot add up; 1 compares with the champion only.
        excused_bundles: Earlier champions that need not be compared with, each with the reason.
        freshness: How old the model, the index and the test window may be.
        required_baselines: Baselines that must have run, by their name in the report or in
            ``baselines``.
        min_queries, min_users: With fewer, every comparison fails.
        max_unanswerable: Largest share of queries whose positive was not eligible (not live, own
            listing, bought before ...); a larger one means that the data contradict the rules.
        max_left_out: Largest share of queries that are left out for any reason, including items
            that were not seen before the test.
        max_positive_in_history: Largest share of queries whose positive item stands in their
            history with an event of less than an hour ago; a larger one means that visits are
            predicted from themselves.
        slice_floors: Minimums by slice; a slice that is empty fails.
        slice_columns: Columns of the items, or else of the context, whose values become slices.
        slice_values: At most this many values of a column, the most frequent ones.
        slice_min_n: Slices with fewer queries are not reported.
        price_bands: Equally filled price bands.
        min_coverage: Smallest share of the candidates that appear in lists of the longest cut.
        max_item_gini: Largest Gini coefficient of item exposure at the longest cut.
        max_seller_gini: The same for sellers; null only where the data have no sellers.
        min_index_recall: Smallest recall@100 of the index against exact search.
        max_index_p99_ms: Largest 99th percentile of the duration of an index search.
        max_vector_gap: Largest difference between an index vector and the item tower's output.
        smoke_test: Command that serves a SavedModel over PredictionService; ``{python}``,
            ``{port}``, ``{name}`` and ``{path}`` are filled in. Refit's stand-in by default; that
            of TensorFlow Serving is in ``refit/model_server.py``. Without a command there is no
            smoke test, and the gate refuses the model.
        smoke_test_seconds: How long the server may take until it answers.
        max_smoke_test_gap: Largest difference between the server's and the model's own vectors.
        max_queries: If there are more test queries, they are thinned out evenly over time.
        replicates, seed: Bootstrap replicates over users, and the seed of all sampling.
        examples: Example queries in the report.
        prediction_queries: At most this many visits get reference predictions, evenly over time.
        prediction_index_ages_days: Ages of the index that answers the visits of the first day, of
            the second day, and so on, in turn, in whole days. Set the ages that an index reaches
            in service: otherwise lower scores of an older index count as drift. Several ages need
            a test window of at least as many days.
        beyond: What is measured beyond accuracy: novelty, diversity, time to sale, new listings,
            small sellers, parity of sizes and prices, calibration.
        serve_baseline: Whether a baseline may pass that is to be served as itself, with
            ``training.towers: popularity``, while there is no champion. It need not beat the
            baselines, nor reach the floors of slices and of exposure; everything else holds.
        baseline_share: What such towers must reach, as a share of the best popularity baseline's
            value; less means that they are not that baseline.
        bounds: Further demands of the gate on the model, by measurement, such as
            ``novelty_at_10: {at_least: 4}``: a metric, or one of ``novelty``, ``diversity``,
            ``age_days``, ``days_to_sale``, ``new_listings``, ``small_sellers``, ``size_parity``,
            ``price_parity`` and ``calibration_error`` at the shortest cut. What was not measured
            fails.
        looks: How judgements on the same test window are counted.
        baselines: Which baselines run, and their grids.
        leaks: How far the metric may rest on inputs that may hold what came later.
    """

    candidates: Literal["live", "seen"] = "live"
    relevant: Literal["each", "together"] = "each"
    cuts: tuple[int, ...] = (10, 50, 100)
    metric: str = "hit_rate_at_100"
    margin: float = Field(default=0.01, ge=0.0)
    guard_metric: str = "hit_rate_at_10"
    guard_tolerance: float = Field(default=0.1, ge=0.0, lt=1.0)
    champion_tolerance: float = Field(default=0.05, ge=0.0, lt=1.0)
    equal_passes: float = Field(default=0.95, ge=0.5, lt=1.0)
    power: float = Field(default=0.8, ge=0.5, lt=1.0)
    best_of_last: int = Field(default=10, ge=1)
    excused_bundles: dict[str, str] = {}
    freshness: FreshnessSettings = FreshnessSettings()
    required_baselines: tuple[str, ...] = ("popularity",)
    min_queries: int = Field(default=500, ge=1)
    min_users: int = Field(default=100, ge=2)
    max_unanswerable: float = Field(default=0.02, ge=0.0, le=1.0)
    max_left_out: float = Field(default=0.5, ge=0.0, le=1.0)
    max_positive_in_history: float = Field(default=0.05, ge=0.0, le=1.0)
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
    smoke_test: tuple[str, ...] = STAND_IN
    smoke_test_seconds: float = Field(default=180.0, gt=0.0)
    max_smoke_test_gap: float = Field(default=1e-4, ge=0.0)
    max_queries: int = Field(default=50_000, ge=1)
    replicates: int = Field(default=1000, ge=100)
    seed: int = 7
    examples: int = Field(default=5, ge=0)
    prediction_queries: int = Field(default=5000, ge=1)
    prediction_index_ages_days: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    serve_baseline: bool = False
    baseline_share: float = Field(default=0.9, gt=0.0, le=1.0)
    beyond: BeyondSettings = BeyondSettings()
    bounds: dict[str, Bound] = {}
    looks: LookSettings = LookSettings()
    baselines: BaselineSettings = BaselineSettings()
    leaks: LeakSettings = LeakSettings()

    @field_validator("excused_bundles")
    @classmethod
    def _check_reasons(cls, excused: dict[str, str]) -> dict[str, str]:
        return need_reasons(excused)

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        known = self.metric_names
        for name in (self.metric, self.guard_metric):
            if name not in known:
                raise ValueError(f"unknown metric {name!r}; known metrics: {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        known = self.metric_names
        known += [f"{name}_at_{self.shortest}" for name in BEYOND_NAMES]
        for name in self.bounds:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                raise ValueError(f"bounds: unknown measurement {name!r}; {hint}")
        return self

    @property
    def metric_names(self) -> list[str]:
        """Every metric at every cut, such as ``hit_rate_at_10``."""
        names = METRIC_NAMES if self.relevant == "each" else (*METRIC_NAMES, OF_SEVERAL)
        return [f"{name}_at_{k}" for name in names for k in self.cuts]

    @property
    def shortest(self) -> int:
        """Length of the shortest list."""
        return min(self.cuts)

    @property
    def longest(self) -> int:
        """Length of the longest list."""
        return max(self.cuts)
