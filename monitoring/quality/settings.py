"""Settings of live quality: what counts as an outcome, and which falls are more than chance."""

from datetime import timedelta

from pydantic import Field, model_validator

from refit.settings import FiniteSettings


class QualitySettings(FiniteSettings):
    """How live quality is measured. An answer counts once its outcome window is over.

    Attributes:
        outcome_hours: An event counts as an answer's outcome up to this long after it.
        feed_lag_hours: How much later than their ``event_time`` events may reach the monitor. A
            window's rates are about the answers whose outcome window closed this long before each
            moment of it, so that nothing that is still on its way is missing.
        minimum_mature: A window is measured when the outcomes feed reaches the end of the outcome
            window of at least this share of its answers.
        click_events, purchase_events: The event types of the outcome rates.
        revenue: Whether revenue per answer is measured, where events or items have a ``price``.
        winsor_quantile: Prices, and a person's number of organic events, count at most as much as
            this quantile of them: a few large ones would decide otherwise.
        baseline_days: Earlier answers of the same towers up to this old set the expected level.
        false_alarm_rate: Share of windows in which a rate is reported to fall where none does.
        day_to_day: Relative standard deviation between days, beyond chance, that is assumed until
            the days themselves show another.
        weekday: The same for the difference between weekdays; between times of day where windows
            are shorter than a day, ``weekend``.
        weekend: The same for the difference between weekends and other days.
        minimum_holdout: With fewer holdout answers in a window the holdout is not used.
        organic_spread: Relative standard deviation, beyond chance, of how differently people who
            browse by themselves and people who are answered may move with the market.
        delay_hours: A larger change of the median time from answer to outcome is reported.
        concept_hours: An organic event up to this long after an answer is a label of its query.
        concept_k: A label is found when it is among this many nearest items.
        concept_queries: Labels of a window that are measured, at most; drawn by person.
        fallback_share: A larger share of fallback answers is drift, and so is a larger share of
            answers from another index than the newest one.
    """

    outcome_hours: float = Field(default=24.0, gt=0)
    feed_lag_hours: float = Field(default=6.0, ge=0)
    minimum_mature: float = Field(default=0.9, gt=0, le=1)
    click_events: tuple[str, ...] = Field(
        default=("view", "like", "cart", "offer", "purchase"), min_length=1
    )
    purchase_events: tuple[str, ...] = Field(default=("purchase",), min_length=1)
    revenue: bool = True
    winsor_quantile: float = Field(default=0.99, gt=0.5, le=1)
    baseline_days: float = Field(default=42.0, gt=0)
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=0.5)
    day_to_day: float = Field(default=0.05, gt=0)
    weekday: float = Field(default=0.05, gt=0)
    weekend: float = Field(default=0.15, gt=0)
    minimum_holdout: int = Field(default=50, ge=2)
    organic_spread: float = Field(default=0.05, ge=0)
    delay_hours: float = Field(default=1.0, gt=0)
    concept_hours: float = Field(default=2.0, gt=0)
    concept_k: int = Field(default=100, ge=1)
    concept_queries: int = Field(default=500, ge=50)
    fallback_share: float = Field(default=0.05, ge=0, lt=1)

    @property
    def lag(self) -> timedelta:
        """How much later than the answers their rates are known."""
        return timedelta(hours=self.outcome_hours + self.feed_lag_hours)

    @model_validator(mode="after")
    def _check_hours(self) -> "QualitySettings":
        if self.concept_hours > self.outcome_hours:
            raise ValueError("concept_hours must be at most outcome_hours")
        return self
