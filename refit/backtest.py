"""A backtest: the same settings, fitted and judged at several cuts of the past."""

from datetime import datetime
from typing import Self

from pydantic import Field, model_validator

from refit.settings import Settings


class BacktestSettings(Settings):
    """Which cuts ``refit backtest`` goes through, and what it demands.

    Attributes:
        cuts: Number of test windows: the config's own, and earlier ones.
        step_days: Days from one window to the one before it. None: the length of the test, so that
            the windows follow each other without overlap.
        seeds: Models that are fitted at each cut, each with another ``training.seed``. A cut counts
            by their mean gain; how much they differ is reported.
        better_in: The model must be better than the best baseline in at least so many cuts. None:
            in all but one, or in the only one.
        worst: In no cut may it be worse than the best baseline, or than the champion, by more than
            this share of the other's value.
    """

    cuts: int = Field(default=4, ge=1, le=100)
    step_days: float | None = Field(default=None, gt=0.0)
    seeds: int = Field(default=1, ge=1, le=100)
    better_in: int | None = Field(default=None, ge=1)
    worst: float = Field(default=0.05, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.better_in is not None and self.better_in > self.cuts:
            raise ValueError(f"better_in is {self.better_in}, but there are {self.cuts} cuts")
        return self

    @property
    def needed(self) -> int:
        """Number of cuts in which the model must be better."""
        return self.better_in if self.better_in is not None else max(1, self.cuts - 1)


class PlannedFit(Settings):
    """One fit of a backtest: a cut and a seed. Its texts are parameters of pipeline steps.

    Attributes:
        cut: End of the cut's test window, ISO 8601.
        seed: The seed of the training.
        ingestion: IngestSettings of the cut, as JSON.
        training: TrainSettings with the seed, as JSON.
        champion: Id of the champion's bundle if it may be compared, else empty.
        champion_state: ``none``, ``compared``, or ``seen``: it was trained on this window.
    """

    cut: str
    seed: str
    ingestion: str
    training: str
    champion: str
    champion_state: str


class Gain(Settings):
    """A paired gain over another method.

    Attributes:
        over: The method's name.
        value, low, high: The gain of the primary metric with its 95% interval.
        of: The method's own value.
    """

    over: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    of: float | None = None

    @property
    def share(self) -> float | None:
        """The gain as a share of the other's value."""
        return self.value / self.of if self.value is not None and self.of else None


class FitResult(Settings):
    """What one fit measured.

    Attributes:
        cut: End of the cut's test window.
        seed: The seed of the training.
        start, until: Times of the first and last test query.
        n_queries: Number of test queries.
        metric: The primary metric.
        value: The model's.
        best_baseline: The gain over the best baseline; None if none ran.
        champion: The gain over the champion; None if it was not compared.
        champion_state: See ``PlannedFit``.
        passed: Whether the gate of a single window passes the model.
        reasons: Why not.
    """

    cut: datetime
    seed: int
    start: str
    until: str
    n_queries: int
    metric: str
    value: float | None
    best_baseline: Gain | None
    champion: Gain | None
    champion_state: str
    passed: bool
    reasons: tuple[str, ...] = ()
