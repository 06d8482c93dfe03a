"""Live quality: what users did with the answers they got, joined by request id."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy.special import ndtri, stdtrit

from monitoring import tables
from monitoring.settings import MeasureSettings
from refit.drift import DriftResult, DriftState, Window
from refit.errors import DataValidationError


@dataclass(frozen=True)
class Rate:
    """How many answers of a window had an outcome.

    Attributes:
        hits: Answers with an outcome.
        answers: All answers.
    """

    hits: int
    answers: int

    @property
    def share(self) -> float:
        """Hits per answer."""
        return self.hits / self.answers

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the share. Source: Wilson, 1927."""
        z, n, p = float(ndtri(0.975)), self.answers, self.share
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


def measure_live_quality(
    settings: MeasureSettings,
    log: Path,
    events: Path | None,
    embedding_version: str,
    windows: Sequence[Window],
) -> list[DriftResult]:
    """Click rate, purchase rate and share of fallbacks, window by window.

    A rate is the share of answers with at least one such outcome. Its value is how far it fell
    below the level of the towers' first windows in the log; its threshold is the larger of what
    chance explains and of how much those windows differ from each other.

    Args:
        settings: Event types, and how far apart answer and outcome may be.
        log: Prediction log.
        events: Parquet of events with ``request_id``.
        embedding_version: Only answers of these towers count.
        windows: What to measure.

    Returns:
        Three results per window; insufficient data where a rate cannot be measured.
    """
    event_types = {
        "live:click-rate": settings.click_events,
        "live:purchase-rate": settings.purchase_events,
    }
    results = []
    for subject, types in event_types.items():
        try:
            outcomes = _Outcomes(settings, log, events, embedding_version, tuple(types))
            results += [_measure_drop(subject, outcomes, window) for window in windows]
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            results += [
                _insufficient_data(subject, "drop", w, embedding_version, why) for w in windows
            ]
    results += [_measure_fallbacks(settings, log, embedding_version, w) for w in windows]
    return results


class _Outcomes:
    """Rates of one kind of outcome; each window is counted once."""

    def __init__(
        self,
        settings: MeasureSettings,
        log: Path,
        events: Path | None,
        embedding_version: str,
        types: tuple[str, ...],
    ) -> None:
        self.settings, self.log, self.events = settings, log, events
        self.embedding_version, self.types = embedding_version, types
        times = tables.read_log(log, ("embedding_version", "time"))
        own = times.filter(pc.equal(times["embedding_version"], embedding_version))["time"]
        self.first: datetime | None = pc.min(own).as_py()
        self._rates: dict[Window, Rate] = {}

    def rate(self, window: Window) -> Rate:
        """The rate of one window."""
        if window not in self._rates:
            self._rates[window] = self._count(window)
        return self._rates[window]

    def before(self, window: Window) -> list[Rate]:
        """The rates of the towers' first windows, on the grid of the window that is measured."""
        if self.first is None or self.first >= window.start:
            return []
        length = window.end - window.start
        start = window.start - math.ceil((window.start - self.first) / length) * length
        starts = [start + i * length for i in range(self.settings.baseline_windows)]
        grid = [Window(start=s, end=s + length) for s in starts if s + length <= window.start]
        return [rate for w in grid if (rate := self.rate(w)).answers]

    def _count(self, window: Window) -> Rate:
        answers = tables.read_log(self.log, ("request_id", "embedding_version", "time"), window)
        answers = answers.filter(pc.equal(answers["embedding_version"], self.embedding_version))
        if not answers.num_rows:
            return Rate(0, 0)
        reach = timedelta(hours=self.settings.outcome_hours)
        start, end = (
            pa.scalar(t, pa.timestamp("us", tz="UTC")) for t in (window.start, window.end + reach)
        )
        if self.events is None:
            raise DataValidationError("there are no outcomes")
        outcomes = ds.dataset(str(self.events), format="parquet").to_table(
            columns=["request_id", "event_time"],
            filter=(ds.field("event_time") >= start)
            & (ds.field("event_time") < end)
            & ds.field("event_type").isin(list(self.types))
            & ds.field("request_id").is_valid(),
        )
        joined = answers.join(outcomes, keys="request_id", join_type="inner")
        delay = pc.subtract(
            pc.cast(joined["event_time"], pa.int64()), pc.cast(joined["time"], pa.int64())
        )
        in_time = pc.less_equal(delay, int(reach.total_seconds() * 1e6))
        hits = pc.count_distinct(joined.filter(in_time)["request_id"]).as_py()
        return Rate(hits, answers.num_rows)


def _measure_drop(subject: str, outcomes: _Outcomes, window: Window) -> DriftResult:
    settings, embedding_version = outcomes.settings, outcomes.embedding_version
    if outcomes.events is None:
        why = "no events were given"
        return _insufficient_data(subject, "drop", window, embedding_version, why)
    before, now = outcomes.before(window), outcomes.rate(window)
    if now.answers < settings.minimum_rows:
        why = f"{now.answers} answers, {settings.minimum_rows} are needed"
        return _insufficient_data(subject, "drop", window, embedding_version, why, now.answers)
    level: dict[str, object] = {"level": now.share, "interval": now.interval}
    pooled = Rate(sum(rate.hits for rate in before), sum(rate.answers for rate in before))
    if pooled.answers < settings.minimum_rows:
        why = (
            f"no earlier level to compare with: {pooled.answers} answers of these towers before "
            f"this window, {settings.minimum_rows} are needed"
        )
        return _insufficient_data(
            subject, "drop", window, embedding_version, why, now.answers, level
        )
    if not pooled.hits and not now.hits:
        why = "no event names a request_id of this log, before this window or in it"
        return _insufficient_data(
            subject, "drop", window, embedding_version, why, now.answers, level
        )
    value = pooled.share - now.share
    threshold = _allowed_drop(settings, before, pooled, now)
    if threshold >= pooled.share:
        why = (
            f"the first {len(before)} windows differ so much that even a fall from "
            f"{pooled.share:.2%} to 0 would not exceed the threshold"
        )
        return _insufficient_data(
            subject, "drop", window, embedding_version, why, now.answers, level
        )
    return DriftResult(
        subject=subject,
        statistic="drop",
        value=value,
        threshold=threshold,
        n_reference=pooled.answers,
        n_current=now.answers,
        window=window,
        state=DriftState.DRIFT if value > threshold else DriftState.OK,
        embedding_version=embedding_version,
        level=now.share,
        interval=now.interval,
        detail=f"{now.share:.2%} of answers, {pooled.share:.2%} in the first {len(before)} windows",
    )


def _allowed_drop(
    settings: MeasureSettings, before: Sequence[Rate], pooled: Rate, now: Rate
) -> float:
    """The drop that windows without drift exceed at the false alarm rate."""
    rate = settings.false_alarm_rate
    p = (pooled.hits + now.hits + 1) / (pooled.answers + now.answers + 2)
    chance = float(ndtri(1 - rate)) * math.sqrt(
        p * (1 - p) * (1 / pooled.answers + 1 / now.answers)
    )
    count = len(before)
    if count < settings.minimum_blocks:
        return chance
    spread = float(np.std([r.share for r in before], ddof=1)) * math.sqrt(1 + 1 / count)
    return max(chance, float(stdtrit(count - 1, 1 - rate)) * spread)


def _measure_fallbacks(
    settings: MeasureSettings, log: Path, embedding_version: str, window: Window
) -> DriftResult:
    subject, statistic = "live:fallback-share", "share"
    try:
        answers = tables.read_log(log, ("embedding_version", "fallback"), window)
        answers = answers.filter(pc.equal(answers["embedding_version"], embedding_version))
        if answers.num_rows < settings.minimum_rows:
            why = f"{answers.num_rows} answers, {settings.minimum_rows} are needed"
            return _insufficient_data(
                subject, statistic, window, embedding_version, why, answers.num_rows
            )
        rate = Rate(answers.num_rows - answers["fallback"].null_count, answers.num_rows)
    except Exception as error:
        return _insufficient_data(
            subject, statistic, window, embedding_version, f"{type(error).__name__}: {error}"
        )
    return DriftResult(
        subject=subject,
        statistic=statistic,
        value=rate.share,
        threshold=settings.fallback_share,
        n_reference=0,
        n_current=rate.answers,
        window=window,
        state=DriftState.DRIFT if rate.share > settings.fallback_share else DriftState.OK,
        embedding_version=embedding_version,
        level=rate.share,
        interval=rate.interval,
    )


def _insufficient_data(
    subject: str,
    statistic: str,
    window: Window,
    embedding_version: str,
    why: str,
    n_current: int = 0,
    level: dict[str, object] | None = None,
) -> DriftResult:
    return DriftResult.model_validate(
        {
            "subject": subject,
            "statistic": statistic,
            "value": None,
            "threshold": None,
            "n_reference": 0,
            "n_current": n_current,
            "window": window,
            "state": DriftState.INSUFFICIENT_DATA,
            "embedding_version": embedding_version,
            "why": why,
            **(level or {}),
        }
    )
