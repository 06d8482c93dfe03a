"""Settings of the monitor: how drift is measured and calibrated, and what follows from it."""

from fnmatch import fnmatchcase

from pydantic import Field, model_validator

from refit.settings import Settings


class MetricsByKind(Settings):
    """Names of the drift metrics by the kind of what they measure.

    Attributes:
        embedding: The vectors of queries and of live listings.
        score: The mean score of an answer.
        mix: A column of the recommended items.
        concentration: A column of them whose values come and go, such as ``seller_id``.
        number: A column of numbers of the items or events table.
        category: A column of at most ``largest_vocabulary`` different values.
        vector: A column of vectors.
        text: Any other column.
    """

    embedding: tuple[str, ...] = ("frechet",)
    score: tuple[str, ...] = ("wasserstein",)
    mix: tuple[str, ...] = ("jensenshannon",)
    concentration: tuple[str, ...] = ("concentration",)
    number: tuple[str, ...] = ("null_share", "wasserstein")
    category: tuple[str, ...] = ("null_share", "new_values", "jensenshannon")
    vector: tuple[str, ...] = ("null_share", "vector_norm", "centroid_shift")
    text: tuple[str, ...] = ("null_share",)


class ExtraMetric(Settings):
    """One more drift metric, and what it measures.

    Attributes:
        metric: Its name: a module of ``monitoring/drift_metrics``, an entry point of the group
            ``refit.drift_metrics``, or a dotted name.
        subjects: Shell patterns of subjects, such as ``scores`` or ``input:items.*``. Subjects
            that the metric cannot measure are left out; none at all is an error.
    """

    metric: str
    subjects: tuple[str, ...] = Field(min_length=1)

    def measures(self, subject: str) -> bool:
        """Whether one of the patterns matches a subject."""
        return any(fnmatchcase(subject, pattern) for pattern in self.subjects)


class MeasureSettings(Settings):
    """How drift is measured, and how its thresholds are calibrated.

    Attributes:
        metrics: The drift metrics of each kind of subject.
        extra_metrics: Further drift metrics of some subjects.
        floors: Overrides of the metrics' own floors, by metric: the smallest value worth an
            alert; no threshold lies below it.
        false_alarm_rate: Nominal share of results that report drift where there is none.
        trials: Bootstrap samples that each threshold rests on.
        sample_size: Rows of a window that are measured, at most; bounds memory and sensitivity.
        reference_size: Rows of each reference table that are kept, at most.
        minimum_rows: A result on fewer rows is insufficient data.
        window_days: Length of a window; calibration cuts the reference into blocks of it.
        minimum_blocks: With fewer blocks there is no between-day bound.
        reference_days: Items and events of the last days of the data set are the reference.
        depth: How many of an answer's items count as recommended.
        mix_columns: Item columns whose mix among recommended items is measured.
        concentration_columns: Those of them whose values come and go, as sellers do: measured is
            how concentrated the recommendations are, not on which values.
        unknown_items: With a larger share of recommended items unknown, their mix is not measured.
        price_bands: The number of price bands; each holds equally many items of the live stock.
        largest_vocabulary: Columns with more values count as text; a mix pools the rarer ones.
        outcome_hours: An event counts as an answer's outcome up to this long after it.
        click_events, purchase_events: The event types of the two outcome rates.
        baseline_windows: A bundle's first windows set the level of live quality.
        fallback_share: A larger share of fallback answers is drift.
        seed: Seed of sampling and of the bootstrap.
    """

    metrics: MetricsByKind = MetricsByKind()
    extra_metrics: tuple[ExtraMetric, ...] = ()
    floors: dict[str, float] = {}
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=0.5)
    trials: int = Field(default=199, ge=19)
    sample_size: int = Field(default=2000, ge=50)
    reference_size: int = Field(default=8000, ge=100)
    minimum_rows: int = Field(default=50, ge=2)
    window_days: float = Field(default=1.0, gt=0)
    minimum_blocks: int = Field(default=5, ge=3)
    reference_days: float = Field(default=28.0, gt=0)
    depth: int = Field(default=10, ge=1)
    mix_columns: tuple[str, ...] = ("category_1", "brand", "price_band", "seller_id")
    concentration_columns: tuple[str, ...] = ("seller_id",)
    unknown_items: float = Field(default=0.1, ge=0, lt=1)
    price_bands: int = Field(default=5, ge=2)
    largest_vocabulary: int = Field(default=200, ge=2)
    outcome_hours: float = Field(default=24.0, gt=0)
    click_events: tuple[str, ...] = ("view", "like", "cart", "offer", "purchase")
    purchase_events: tuple[str, ...] = ("purchase",)
    baseline_windows: int = Field(default=5, ge=1)
    fallback_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 0

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of all drift metrics that are measured, sorted."""
        by_kind = {name for names in self.metrics.model_dump().values() for name in names}
        return tuple(sorted(by_kind | {extra.metric for extra in self.extra_metrics}))

    @model_validator(mode="after")
    def _check_floors(self) -> "MeasureSettings":
        measured = self.metric_names
        if unknown := sorted(self.floors.keys() - set(measured)):
            raise ValueError(
                f"floors: {', '.join(unknown)} is not measured; metrics: {', '.join(measured)}"
            )
        if too_low := sorted(name for name, floor in self.floors.items() if not floor >= 0):
            raise ValueError(f"floors: {', '.join(too_low)} must be at least 0")
        return self


class PolicySettings(Settings):
    """What follows from results. Patterns are shell patterns over ``subject/statistic``.

    Attributes:
        windows_needed, windows_considered: Drift in N of the last M windows is persistent.
        refit_on: Persistent drift of these may start a refit; all other drift only alerts.
        faults: Results whose drift signals a broken feed; while one drifts in the newest window,
            no refit starts. None takes what the drift metrics declare themselves.
        waived: Results that this installation cannot have; their lack of data is no alert.
        insufficient_data_windows: This many windows in a row without a value are an alert.
        cooldown_hours: The shortest time between two refits.
        minimum_new_events: A refit needs this many events that the bundle has not seen.
        dry_run: Decide and alert, but start no refit.
        enabled: The kill switch: false means no refit at all; alerts continue.
    """

    windows_needed: int = Field(default=2, ge=1)
    windows_considered: int = Field(default=3, ge=1)
    refit_on: tuple[str, ...] = (
        "query-embedding/*",
        "listing-embedding/*",
        "scores/*",
        "mix:*",
        "live:click-rate/*",
        "live:purchase-rate/*",
    )
    faults: tuple[str, ...] | None = None
    waived: tuple[str, ...] = ()
    insufficient_data_windows: int = Field(default=3, ge=1)
    cooldown_hours: float = Field(default=72.0, ge=0)
    minimum_new_events: int = Field(default=1000, ge=0)
    dry_run: bool = False
    enabled: bool = True


class MonitorSettings(Settings):
    """All settings of one run of the monitor.

    Attributes:
        measure: How drift is measured and calibrated.
        policy: When drift raises an alert, and when it starts a refit.
        lease_seconds: A claimed refit whose owner has not renewed its claim for this long is
            taken over by the next run.
        maximum_attempts: A refit that was abandoned this often is marked as failed.
    """

    measure: MeasureSettings = MeasureSettings()
    policy: PolicySettings = PolicySettings()
    lease_seconds: float = Field(default=30.0, gt=0)
    maximum_attempts: int = Field(default=3, ge=1)
