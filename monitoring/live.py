"""Live quality: what people did with the answers they got, joined by request id."""

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


@dataclass(frozen=True)
class Rate:
    """How many answers of a window led to something."""

    hits: int
    answers: int

    @property
    def share(self) -> float:
        """Hits an answer."""
        return self.hits / self.answers

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the share. Source: Wilson, 1927."""
        z, n, p = float(ndtri(0.975)), self.answers, self.share
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


def measure_live(
    settings: MeasureSettings,
    log: Path,
    events: Path | None,
    embedding_version: str,
    windows: Sequence[Window],
) -> list[DriftResult]:
    """Click rate, purchase rate and share of fallbacks, window by window.

    A rate is answers with at least one such outcome, over answers. Its result is how far it fell
    below the level of the towers' first windows in the log; the threshold is what chance allows,
    or what those windows differ by among themselves, whichever is more.
    """
    kinds = {
        "live:click-rate": settings.click_events,
        "live:purchase-rate": settings.purchase_events,
    }
    results = []
    for subject, wanted in kinds.items():
        try:
            outcomes = _Outcomes(settings, log, events, embedding_version, tuple(wanted))
            results += [_drop_reading(subject, outcomes, window) for window in windows]
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            results += [
                _insufficient_data(subject, "drop", w, embedding_version, why) for w in windows
            ]
    results += [_fallback_reading(settings, log, embedding_version, window) for window in windows]
    return results


class _Outcomes:
    """Rates of one kind of outcome, each window's counted once."""

    def __init__(
        self,
        settings: MeasureSettings,
        log: Path,
        events: Path | None,
        embedding_version: str,
        wanted: tuple[str, ...],
    ) -> None:
        self.settings, self.log, self.events = settings, log, events
        self.embedding_version, self.wanted = embedding_version, wanted
        times = tables.read_log(log, ("embedding_version", "time"))
        mine = times.filter(pc.equal(times["embedding_version"], embedding_version))["time"]
        self.first: datetime | None = pc.min(mine).as_py()
        self._rates: dict[Window, Rate] = {}

    def rate(self, window: Window) -> Rate:
        """The rate of one window."""
        if window not in self._rates:
            self._rates[window] = self._count(window)
        return self._rates[window]

    def before(self, window: Window) -> list[Rate]:
        """The rates of the towers' first windows, on the grid of the window that is judged."""
        if self.first is None or self.first >= window.start:
            return []
        length = window.end - window.start
        start = window.start - math.ceil((window.start - self.first) / length) * length
        starts = [start + place * length for place in range(self.settings.baseline_windows)]
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
        outcomes = ds.dataset(str(self.events), format="parquet").to_table(
            columns=["request_id", "event_time"],
            filter=(ds.field("event_time") >= start)
            & (ds.field("event_time") < end)
            & ds.field("event_type").isin(list(self.wanted))
            & ds.field("request_id").is_valid(),
        )
        joined = answers.join(outcomes, keys="request_id", join_type="inner")
        delay = pc.subtract(
            pc.cast(joined["event_time"], pa.int64()), pc.cast(joined["time"], pa.int64())
        )
        in_time = pc.less_equal(delay, int(reach.total_seconds() * 1e6))
        hits = pc.count_distinct(joined.filter(in_time)["request_id"]).as_py()
        return Rate(hits, answers.num_rows)


def _drop_reading(subject: str, outcomes: _Outcomes, window: Window) -> DriftResult:
    settings, embedding_version = outcomes.settings, outcomes.embedding_version
    if outcomes.events is None:
        why = "no events were given, so no outcome is known"
        return _insufficient_data(subject, "drop", window, embedding_version, why)
    before, now = outcomes.before(window), outcomes.rate(window)
    if now.answers < settings.minimum_rows:
        why = f"{now.answers} answers, {settings.minimum_rows} are needed"
        return _insufficient_data(subject, "drop", window, embedding_version, why, now.answers)
    known = {"level": now.share, "interval": now.interval}
    pooled = Rate(sum(rate.hits for rate in before), sum(rate.answers for rate in before))
    if pooled.answers < settings.minimum_rows:
        why = (
            f"no level to hold it against: {pooled.answers} answers of these towers came before "
            "this window"
        )
        return _insufficient_data(
            subject, "drop", window, embedding_version, why, now.answers, known
        )
    if not pooled.hits and not now.hits:
        why = "no outcome names a request id of this log, before or now"
        return _insufficient_data(
            subject, "drop", window, embedding_version, why, now.answers, known
        )
    value = pooled.share - now.share
    threshold = _allowed_drop(settings, before, pooled, now)
    if threshold >= pooled.share:
        why = (
            f"the first {len(before)} windows differ so much that not even a fall from "
            f"{pooled.share:.2%} to nothing would stand out"
        )
        return _insufficient_data(
            subject, "drop", window, embedding_version, why, now.answers, known
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
    """The drop that undrifted windows exceed at the stated false-alarm rate."""
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


def _fallback_reading(
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
    known: dict[str, object] | None = None,
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
            **(known or {}),
        }
    )
