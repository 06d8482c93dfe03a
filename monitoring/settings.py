"""Settings of watching: how drift is measured and calibrated, and what it may set off."""

from pydantic import Field, field_validator

from refit.settings import Settings

DEFAULT_FLOORS = {
    "null-share": 0.05,
    "new-values": 0.05,
    "vector-norm": 0.2,
    "centroid-shift": 0.1,
    "jensenshannon": 0.1,
    "wasserstein": 0.1,
    "concentration": 0.2,
    "frechet": 0.0,
}


class MeasureSettings(Settings):
    """How drift is measured, and how its thresholds are calibrated.

    Attributes:
        false_alarm_rate: Nominal share of results that say drift where there is none.
        trials: Resamples of the reference that each threshold rests on.
        sample_size: Rows of a window that are looked at, at most; bounds memory and sensitivity.
        reference_size: Rows of each reference table that are kept, at most.
        minimum_rows: A result on fewer rows is insufficient data.
        window_days: Length of a window; calibration cuts the reference into such blocks.
        minimum_blocks: Fewer blocks say nothing about how much one window differs from another.
        reference_days: Items and events of the last days of the data set are the reference.
        depth: How many of an answer's items count as recommended.
        mix_columns: Item columns whose mix among recommended items is watched.
        concentration_columns: Those of them whose values come and go, as sellers do: watched for
            how much few of them get, not for who they are.
        unknown_items: With a larger share of recommended items unknown, their mix is not measured.
        price_bands: Into how many bands, equally filled by the live stock, prices are cut.
        largest_vocabulary: Columns with more values get no new-values result; a mix pools the
            rarer ones.
        floors: Smallest change worth an alarm, by statistic; below it nothing is drift. Those not
            named keep their default.
        outcome_hours: An event counts as an answer's outcome up to so long after it.
        click_events, purchase_events: The event types of the two outcome rates.
        baseline_windows: A bundle's first windows set the level of live quality.
        fallback_share: More fallback answers than this share are drift.
        seed: Seed of sampling and resampling.
    """

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
    floors: dict[str, float] = DEFAULT_FLOORS
    outcome_hours: float = Field(default=24.0, gt=0)
    click_events: tuple[str, ...] = ("view", "like", "cart", "offer", "purchase")
    purchase_events: tuple[str, ...] = ("purchase",)
    baseline_windows: int = Field(default=5, ge=1)
    fallback_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 0

    @field_validator("floors")
    @classmethod
    def _keep_the_others(cls, floors: dict[str, float]) -> dict[str, float]:
        if unknown := floors.keys() - DEFAULT_FLOORS.keys():
            known = ", ".join(DEFAULT_FLOORS)
            raise ValueError(f"no floor for {', '.join(sorted(unknown))}; statistics: {known}")
        return DEFAULT_FLOORS | floors


class PolicySettings(Settings):
    """What results may set off. Patterns are shell patterns over ``subject/statistic``.

    Attributes:
        windows_needed, windows_looked_at: Drift in N of the last M windows is persistent.
        refit_on: Persistent drift of these may trigger a refit; all other drift only alerts.
        faults: Signs of a broken feed; while one drifts in the newest window, no refit starts. A
            null in an event's context is none: people do not always say what they want.
        waived: Results that this installation cannot have; their lack of data is not an alarm.
        cannot_tell_windows: So many windows in a row without a result are an alert of their own.
        cooldown_hours: No refit is requested sooner than this after the one before.
        minimum_new_events: A refit needs so many events that the bundle has not seen.
        dry_run: Decide and tell, but start nothing.
        enabled: The kill switch: off means no refit at all; alerts go on.
    """

    windows_needed: int = Field(default=2, ge=1)
    windows_looked_at: int = Field(default=3, ge=1)
    refit_on: tuple[str, ...] = (
        "query-embedding/*",
        "listing-embedding/*",
        "scores/*",
        "mix:*",
        "live:click-rate/*",
        "live:purchase-rate/*",
    )
    faults: tuple[str, ...] = (
        "input:items.*/null-share",
        "input:*/vector-norm",
        "input:*/centroid-shift",
    )
    waived: tuple[str, ...] = ()
    cannot_tell_windows: int = Field(default=3, ge=1)
    cooldown_hours: float = Field(default=72.0, ge=0)
    minimum_new_events: int = Field(default=1000, ge=0)
    dry_run: bool = False
    enabled: bool = True


class MonitorSettings(Settings):
    """Everything one run of the monitor needs to know.

    Attributes:
        measure: How drift is measured and calibrated.
        policy: What drift may set off.
        lease_seconds: A claimed refit whose owner was silent for so long is taken up by the next.
        maximum_attempts: A refit that was abandoned so often is given up as failed.
    """

    measure: MeasureSettings = MeasureSettings()
    policy: PolicySettings = PolicySettings()
    lease_seconds: float = Field(default=30.0, gt=0)
    maximum_attempts: int = Field(default=3, ge=1)
