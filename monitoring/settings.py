"""Settings of the monitor: how drift is measured and calibrated, and what follows from it."""

from datetime import timedelta
from fnmatch import fnmatchcase
from math import ceil
from typing import Literal

from pydantic import Field, field_validator, model_validator

from monitoring.closings import Closing
from monitoring.faults.settings import ANSWERED_DAYS, FaultSettings
from monitoring.quality.settings import QualitySettings
from refit.alert import Action
from refit.settings import Settings

CARRIED_OUT = (Action.REFIT, Action.REFRESH, Action.QUARANTINE)
"""Actions that the monitor can carry out by itself."""


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

    embedding: tuple[str, ...] = ("mean_shift", "new_region")
    score: tuple[str, ...] = ("quantile_shares",)
    mix: tuple[str, ...] = ("value_shares",)
    concentration: tuple[str, ...] = ("concentration",)
    number: tuple[str, ...] = ("null_share", "quantile_shares")
    category: tuple[str, ...] = ("null_share", "new_values", "value_shares")
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
        floors: Overrides of the metrics' own floors, by metric: the smallest value that does
            harm; no threshold lies below it. What days differ by anyway needs no floor.
        false_alarm_rate: Nominal share of results that report drift where there is none. An alert
            needs more than one such result, see ``alerts_per_month`` of the policy.
        window_rows: Rows of a window's table that are measured, at most; bounds memory.
        reference_rows: Rows of a reference table that are measured, at most.
        sample_rows: Rows of each table that are kept for examples, pictures and Evidently, at most.
        minimum_rows: A result on fewer rows is insufficient data.
        window_days: Length of a window; calibration cuts the reference into blocks of it.
        reference_days: Items and events of the last days of the data set are the reference; of
            earlier windows, those of so many days count beside it.
        index_days: With an older index, listings are insufficient data.
        panel_change: A larger share of the lists of a fixed panel of queries that changed, over
            items that both indexes hold, is drift. 1 sets no limit: where popularity is an input of
            the item tower, the lists of any model move away from what they were.
        choice_windows: So many windows of what people choose of what they see are compared
            together; one alone shows little of taste.
        depth: How many of an answer's items count as recommended.
        mix_columns: Item columns whose mix among recommended items is measured.
        concentration_columns: Those of them whose values come and go, as sellers do: measured is
            how concentrated the recommendations are, not on which values.
        unknown_items: With a larger share of recommended items unknown, their mix is not measured.
        price_bands: The number of price bands; each holds equally many items of the live stock.
        largest_vocabulary: Columns with more values count as text; a mix pools the rarer ones.
        faults: How the feeds are checked for named faults.
        closings: Planned closings of the shop, such as ``{first: 2026-12-24, last: 2026-12-27}``.
            A window that one touches is not measured, and later windows are not compared with it.
        seed: Seed of sampling.
    """

    metrics: MetricsByKind = MetricsByKind()
    extra_metrics: tuple[ExtraMetric, ...] = ()
    floors: dict[str, float] = {}
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=0.5)
    window_rows: int = Field(default=200_000, ge=50)
    reference_rows: int = Field(default=400_000, ge=100)
    sample_rows: int = Field(default=4000, ge=50)
    minimum_rows: int = Field(default=50, ge=2)
    window_days: float = Field(default=1.0, gt=0)
    reference_days: float = Field(default=28.0, gt=0)
    index_days: float = Field(default=7.0, gt=0)
    panel_change: float = Field(default=1.0, gt=0, le=1)
    choice_windows: int = Field(default=2, ge=1)
    depth: int = Field(default=10, ge=1)
    mix_columns: tuple[str, ...] = ("category_1", "brand", "price_band", "seller_id")
    concentration_columns: tuple[str, ...] = ("seller_id",)
    unknown_items: float = Field(default=0.1, ge=0, lt=1)
    price_bands: int = Field(default=5, ge=2)
    largest_vocabulary: int = Field(default=200, ge=2)
    faults: FaultSettings = FaultSettings()
    closings: tuple[Closing, ...] = ()
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
        kind: ``expected cost`` alerts on the evidence of all results together and refits where
            waiting costs more; ``windows`` counts windows of single results.
        alerts_per_month: ``expected cost``: false alerts that all results together may raise in a
            month of 30 days, see ``monitoring.budget``.
        windows_needed, windows_considered: ``windows``: drift in N of the last M is persistent.
        refit_on: ``windows``: persistent drift of these may start a refit; all other only alerts.
        refit_minutes, purchases_per_minute: ``expected cost``: what a refit costs: minutes of
            machine time, and how many purchases such a minute is worth.
        horizon_days: ``expected cost``: how long a loss lasts if nobody acts.
        recovered: ``expected cost``: the share of a loss that a refit wins back.
        usual_rate, assumed_loss: ``expected cost``: where purchases are not measured, purchases
            per answer, and the share of them that is assumed lost where the model meets what it
            has never seen.
        automatic: Actions that are carried out, of ``refit``, ``refresh`` and ``quarantine``; the
            others are only recommended, and a roll back always is.
        faults: Results whose drift signals a broken feed; while one drifts in the newest window,
            no refit starts. None takes what the drift metrics declare themselves.
        waived: Results that this installation cannot have; their lack of data is no alert.
        insufficient_data_windows: This many windows in a row in which a result was not measured are
            an alert.
        judgement_windows: So are this many in which rates of live quality were measured, and none
            of them could be judged because there was too little to compare it with.
        cooldown_hours: The shortest time between two refits.
        retry_days: A refit that the gate refused is not tried again on the same evidence before.
        minimum_new_events: A refit needs this many events that the bundle has not seen.
        worse: An unresolved alert escalates when a result reaches this multiple of its value.
        dry_run: Decide and alert, but carry out nothing.
        enabled: The kill switch: false means no action at all; alerts continue.
    """

    kind: Literal["expected cost", "windows"] = "expected cost"
    alerts_per_month: float = Field(default=0.5, gt=0, le=30)
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
    refit_minutes: float = Field(default=60.0, gt=0)
    purchases_per_minute: float = Field(default=0.05, ge=0)
    horizon_days: float = Field(default=7.0, gt=0)
    recovered: float = Field(default=0.5, gt=0, le=1)
    usual_rate: float = Field(default=0.02, gt=0, le=1)
    assumed_loss: float = Field(default=0.3, ge=0, le=1)
    automatic: tuple[Action, ...] = CARRIED_OUT
    faults: tuple[str, ...] | None = None
    waived: tuple[str, ...] = ()
    insufficient_data_windows: int = Field(default=3, ge=1)
    judgement_windows: int = Field(default=14, ge=1)
    cooldown_hours: float = Field(default=72.0, ge=0)
    retry_days: float = Field(default=14.0, ge=0)
    minimum_new_events: int = Field(default=1000, ge=0)
    worse: float = Field(default=1.5, gt=1)
    dry_run: bool = False
    enabled: bool = True

    @field_validator("automatic")
    @classmethod
    def _can_be_carried_out(cls, automatic: tuple[Action, ...]) -> tuple[Action, ...]:
        if others := [action for action in automatic if action not in CARRIED_OUT]:
            raise ValueError(
                f"{', '.join(others)} is never carried out by itself, only recommended: name "
                f"{', '.join(CARRIED_OUT)} or none of them; a person rolls back with "
                "refit bundles rollback or in the review application"
            )
        return automatic

    @property
    def refit_cost(self) -> float:
        """What a refit costs, in purchases."""
        return self.refit_minutes * self.purchases_per_minute


class LogKeepingSettings(Settings):
    """How the prediction log is kept. No training reads it; the monitor and rollouts do.

    Attributes:
        compact: Whether each run of the monitor first merges the small parts of the log.
        keep_days: Days of the log that are older are removed at the end of a run of the monitor.
            At least as many as the monitor itself reads; 0 keeps all.
    """

    compact: bool = True
    keep_days: int = Field(default=180, ge=0)


class MonitorSettings(Settings):
    """All settings of one run of the monitor.

    Attributes:
        measure: How drift is measured and calibrated.
        quality: What an outcome is, and how a fall of live quality is told from chance.
        policy: When drift raises an alert, and when it starts a refit.
        log: How the prediction log is kept.
        lease_seconds: A claimed refit whose owner has not renewed its claim for this long is
            taken over by the next run.
        maximum_attempts: A refit that was abandoned this often is marked as failed.
    """

    measure: MeasureSettings = MeasureSettings()
    quality: QualitySettings = QualitySettings()
    policy: PolicySettings = PolicySettings()
    log: LogKeepingSettings = LogKeepingSettings()
    lease_seconds: float = Field(default=30.0, gt=0)
    maximum_attempts: int = Field(default=3, ge=1)

    @property
    def log_days(self) -> int:
        """Days of the prediction log that a run of the monitor reads."""
        measure, quality = self.measure, self.quality
        back = max(
            quality.baseline_days, measure.choice_windows * measure.window_days, ANSWERED_DAYS
        )
        # The log is kept by days, of which the first and the last may be read in part.
        return ceil(back + measure.window_days + quality.lag / timedelta(days=1)) + 1

    @model_validator(mode="after")
    def _keep_what_is_read(self) -> "MonitorSettings":
        if 0 < self.log.keep_days < self.log_days:
            raise ValueError(
                f"log.keep_days: {self.log.keep_days} is less than the {self.log_days} days that "
                "the monitor itself reads (quality.baseline_days, outcome_hours and "
                f"feed_lag_hours, measure.window_days): give {self.log_days} or more, or 0 to "
                "keep all"
            )
        return self
