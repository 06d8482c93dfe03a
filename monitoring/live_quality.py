"""Live quality: what people did with the answers they got, and whose fault a fall is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring import tables
from monitoring.closings import Closing, find_closing
from monitoring.frame import combine
from monitoring.quality import concept, propensity
from monitoring.quality.baseline import JudgedRate, RateSeries, judge_series
from monitoring.quality.holdout import ORGANIC_RATE, Lift, compare_with, explain_fall, find_episode
from monitoring.quality.intervals import ratio_interval, wilson_interval
from monitoring.quality.join import (
    UTC_TIME,
    EventFeed,
    Flags,
    JoinedAnswers,
    join_answers,
    organic_sums,
    read_events,
    to_microseconds,
    within,
)
from monitoring.quality.maturity import Delays, explain_immature, find_mature, period_of
from monitoring.quality.results import find_p_value, insufficient_data, report_drop
from monitoring.quality.settings import QualitySettings
from monitoring.settings import MeasureSettings
from refit.drift import DriftResult, DriftState, Window
from refit.errors import DataValidationError, RefitError
from refit.prediction import HOLDOUT, ON_PURPOSE, keep_first_pages

RATES = {"click": "live:click-rate", "purchase": "live:purchase-rate"}
PROMOTION = "promotion:"
"""Of the rates of new towers beside those of the towers before."""
PROMOTION_WINDOWS = 7
"""How many windows after a promotion new towers are compared with the ones before."""
REVENUE = "live:revenue-rate"
PARTIAL = 0.1
"""A window with a larger part before the first answer is only used where there is no other."""
UNPRICED = 0.05
"""With a larger share of purchases without a price, revenue is unknown."""
CONCEPT_WINDOWS = 7
"""How many earlier windows the ranks of organic choices are compared with; bounds the cost."""


def measure_live_quality(
    settings: MeasureSettings,
    log: Path,
    events: Path | None,
    embedding_version: str,
    windows: Sequence[Window],
    *,
    quality: QualitySettings | None = None,
    items: Path | None = None,
    index: Path | None = None,
) -> list[DriftResult]:
    """Rates of clicks, purchases and revenue, and what explains a fall, window by window.

    A window's rates are about the answers whose outcome window, and the lag of the events feed
    after it, ended within the window: each answer is measured once, when nothing of it is missing.
    Their value is how far the rate lies below what earlier windows of the same towers make
    expected; with a holdout, or people who browse by themselves, how far beyond the market's fall.

    Always reported are ``live:click-rate``, ``live:purchase-rate``, ``live:fallback-share`` and
    ``live:other-index-share``; with prices ``live:revenue-rate``; with a holdout or organic events
    ``live:<kind>-lift`` (the model's rate relative to theirs) and ``live:market-<kind>-rate``; with
    outcomes ``live:outcome-delay``; with propensities ``live:ips-<kind>-rate``; with an index and
    enough organic events ``live:concept``; in the windows after a promotion
    ``promotion:<kind>-rate``, whose expected rate comes from the towers before.

    Args:
        settings: With fewer than ``minimum_rows`` answers a window is not measured, nor where a
            closing touches the answers or the time in which their outcomes come.
        log: Prediction log.
        events: Parquet of events with ``request_id``.
        embedding_version: Only answers of these towers count.
        windows: What to measure, oldest first.
        quality: What an outcome is, and which falls are more than chance; None for the defaults.
        items: Parquet of the items table, for prices that events lack.
        index: Index folder of the live stock.

    Returns:
        Results of every window; insufficient data where a rate cannot be measured. Rates have no
        result in a window in which the towers are so new that no answer can have matured.
    """
    quality = quality or QualitySettings()
    windows = sorted(windows, key=lambda window: window.start)
    run = _Run(
        settings.minimum_rows,
        quality,
        log,
        events,
        embedding_version,
        windows,
        items,
        closings=settings.closings,
    )
    results = [result for kind, name in RATES.items() for result in run.measure_rate(kind, name)]
    optional: list[Callable[[], list[DriftResult]]] = [
        run.measure_revenue,
        run.measure_delays,
        run.measure_promotion,
        run.measure_propensities,
    ]
    if index is not None:
        optional.append(lambda: run.measure_concept(index))
    for measure in optional:
        results += measure()
    return results + [share for window in windows for share in run.measure_shares(window)]


FALLBACKS, OTHER_INDEX = "live:fallback-share", "live:other-index-share"
_SWITCHED = timedelta(hours=1)
"""After so long all servers have loaded a new index."""


@dataclass(frozen=True)
class _Run:
    """What one run measures; the log and the events are read and joined once."""

    minimum: int
    settings: QualitySettings
    log: Path
    events: Path | None
    embedding_version: str
    windows: Sequence[Window]
    items: Path | None
    before: tuple[str, datetime] | None = None
    closings: Sequence[Closing] = ()

    @cached_property
    def grid(self) -> list[Window]:
        """Earlier windows on the grid of those that are measured, and these."""
        first = self.windows[0]
        length = first.end - first.start
        count = max(int(timedelta(days=self.settings.baseline_days) / length), 1)
        earlier = [
            Window(start=first.start - back * length, end=first.start - (back - 1) * length)
            for back in range(count, 0, -1)
        ]
        return [*earlier, *self.windows]

    @cached_property
    def periods(self) -> list[Window]:
        """The answers' own periods, for each window of the grid."""
        return [period_of(self.settings, window) for window in self.grid]

    @cached_property
    def feed(self) -> EventFeed:
        if self.events is None:
            raise DataValidationError("no events were given")
        until = self.windows[-1].end
        return read_events(self.events, self.items, self.periods[0].start, until)

    @cached_property
    def answers(self) -> JoinedAnswers:
        whole = Window(start=self.periods[0].start, end=self.periods[-1].end)
        return join_answers(
            self.settings, self.log, self.feed, self.embedding_version, whole, self.before
        )

    @cached_property
    def chosen(self) -> list[Flags]:
        """For each window of the grid, [N] its answers that are mature."""
        mature = find_mature(self.settings, self.feed, self.answers.time)
        return [within(self.answers.time, period) & mature for period in self.periods]

    @cached_property
    def reasons(self) -> list[str]:
        """For each window of the grid, why its rates cannot be measured; empty if they can."""
        reasons: list[str] = []
        before: list[np.ndarray] = []
        for window, period, mature in zip(self.grid, self.periods, self.chosen, strict=True):
            chosen = within(self.answers.time, period)
            if closing := find_closing(self.closings, period.start, window.end):
                reasons.append(f"planned closing on {closing}")
                continue
            if chosen.sum() < self.minimum or period == self.partial:
                reasons.append(f"{chosen.sum()} answers, {self.minimum} are needed")
                continue
            known = [one for one in before if np.isfinite(one).any()]
            delays = Delays.of(self.settings, np.concatenate(known)) if known else None
            why = explain_immature(self.settings, self.feed, self.answers, chosen, delays)
            reasons.append(why)
            if not why:
                before.append(self.answers.delay[mature])
        return reasons

    @cached_property
    def partial(self) -> Window | None:
        """The period in which the log of these towers began, if a later one can replace it.

        It holds some hours of a day only, whose rates may differ from those of whole days.
        """
        if not len(self.answers.time):
            return None
        first = int(self.answers.time.min())
        earlier = self.periods[: len(self.grid) - len(self.windows)]
        begun = [period for period in earlier if to_microseconds(period.end) > first]
        if len(begun) < 2:
            return None
        length = (begun[0].end - begun[0].start) / timedelta(microseconds=1)
        missing = first - to_microseconds(begun[0].start)
        return begun[0] if missing > PARTIAL * length else None

    @cached_property
    def answered(self) -> pa.Table:
        """Towers and time of every answer on the grid."""
        whole = Window(start=self.periods[0].start, end=self.windows[-1].end)
        return tables.read_log(self.log, ("embedding_version", "time"), whole)

    @cached_property
    def first_answer(self) -> datetime | None:
        """Time of the first answer of these towers on the grid; None when there is none."""
        times = self.answered
        own = times.filter(pc.equal(times["embedding_version"], self.embedding_version))["time"]
        first: datetime | None = pc.min(own).as_py()
        return first

    def is_new(self, i: int) -> bool:
        """Whether these towers had begun to answer, but no answer could have matured yet."""
        first = self.first_answer
        return first is not None and self.periods[i].end <= first < self.grid[i].end

    @cached_property
    def predecessor(self) -> tuple[str, datetime] | None:
        """The towers that answered before these, until when; None where there were none."""
        first = self.first_answer
        if first is None:
            return None
        log = self.answered.filter(pc.less(self.answered["time"], pa.scalar(first, UTC_TIME)))
        if not log.num_rows:
            return None
        last = pc.index(log["time"], pc.max(log["time"])).as_py()
        return str(log["embedding_version"][last]), first

    @cached_property
    def promoted(self) -> int | None:
        """The first window of the grid that is wholly of these towers, others coming before."""
        if self.before is None:
            return None
        _, since = self.before
        return next((i for i, p in enumerate(self.periods) if p.start >= since), len(self.periods))

    def judge(self, kind: str, chosen: Sequence[Flags]) -> list[JudgedRate]:
        """Judge one rate of some answers of each window of the grid."""
        sums = [self.answers.sums(kind, flags) for flags in chosen]
        series = RateSeries(self.periods, sums, self.reasons)
        return judge_series(self.settings, series, self.minimum, until=self.promoted)

    def measure_rate(self, kind: str, subject: str) -> list[DriftResult]:
        """The rate of one kind of outcome, and of whatever tells the market from the model."""

        def measure() -> list[DriftResult]:
            model = self.judge(kind, [flags & self.answers.by_model for flags in self.chosen])
            return self._report_rates(kind, subject, model)

        return self._guard(subject, measure)

    def _guard(self, subject: str, measure: Callable[[], list[DriftResult]]) -> list[DriftResult]:
        """The results, or insufficient data with the error that prevented them."""
        try:
            return measure()
        except Exception as error:
            why = (
                str(error) if isinstance(error, RefitError) else f"{type(error).__name__}: {error}"
            )
            return [
                insufficient_data(subject, "drop", window, self.embedding_version, why)
                for window in self.windows
            ]

    @cached_property
    def is_readable(self) -> bool:
        """Whether log and events can be read; if not, the rates of outcomes say why."""
        try:
            return bool(len(self.answers.time))
        except Exception:
            return False

    def _judge_market(self, kind: str, model: Sequence[JudgedRate]) -> dict[str, list[JudgedRate]]:
        """Rates that do not depend on the model, by name, the better ones first."""
        found = {}
        held = [flags & self.answers.holdout for flags in self.chosen]
        if any(flags.any() for flags in held):
            sums = [self.answers.sums(kind, flags) for flags in held]
            series = RateSeries(self.periods, sums, self.reasons)
            fewest = self.settings.minimum_holdout
            found[HOLDOUT] = judge_series(self.settings, series, fewest, model, self.promoted)
        if len(self.feed.organic.time):
            sums = organic_sums(self.settings, self.feed, kind, self.periods)
            series = RateSeries(self.periods, sums, self.reasons)
            found[ORGANIC_RATE] = judge_series(
                self.settings, series, self.minimum, model, self.promoted
            )
        return found

    def _report_rates(
        self, kind: str, subject: str, model: Sequence[JudgedRate]
    ) -> list[DriftResult]:
        results = []
        market = self._judge_market(kind, model)
        for i in range(len(self.grid) - len(self.windows), len(self.grid)):
            if self.is_new(i):
                continue
            lifts = self._compare(i, model, market)
            results.append(self._report_model(kind, subject, i, model[i], lifts))
            if market:
                results += self._report_market(
                    kind, i, model[i], {name: judged[i] for name, judged in market.items()}, lifts
                )
        return results

    def _report_model(
        self, kind: str, subject: str, i: int, model: JudgedRate, lifts: Sequence[Lift]
    ) -> DriftResult:
        detail = self._describe(i, model, kind)
        lift, said = explain_fall(model, lifts)
        beyond = None
        if lift is not None and model.expected is not None:
            beyond = lift.drop * model.expected, lift.threshold * model.expected
        elif lifts and said:
            model, said = replace(model, expected=None, why=said), ""
        return report_drop(
            subject,
            self.grid[i],
            self.embedding_version,
            model,
            kind != "revenue",
            f"{detail}; {said}" if said else detail,
            beyond,
            self.settings.false_alarm_rate,
        )

    def _report_market(
        self,
        kind: str,
        i: int,
        model: JudgedRate,
        market: Mapping[str, JudgedRate],
        lifts: Sequence[Lift],
    ) -> list[DriftResult]:
        """The rate of the best denominator, and the model's relative to it, if they are known.

        Where they are not, the result of the model's rate says what follows.
        """
        window, version = self.grid[i], self.embedding_version
        name = next((n for n, judged in market.items() if judged.expected is not None), None)
        if name is None:
            return []
        rival = market[name]
        rate = report_drop(
            f"live:market-{kind}-rate",
            window,
            version,
            rival,
            kind != "revenue" and name == HOLDOUT,
            f"{name}: {self._describe(i, rival, kind)}",
        )
        lift = next((one for one in lifts if one.name == name), None)
        now, other = model.now, rival.now
        if lift is None or now is None or other is None:
            return [rate]
        ratio, interval = None, None
        if now.rate > 0 and other.rate > 0:
            ratio, interval = now.rate / other.rate, ratio_interval(now, other)
        result = DriftResult(
            subject=f"live:{kind}-lift",
            statistic="drop",
            value=lift.drop,
            threshold=lift.threshold,
            n_reference=round(rival.n_earlier),
            n_current=rate.n_current,
            window=window,
            state=DriftState.DRIFT if lift.fell else DriftState.OK,
            p_value=find_p_value(lift.drop, lift.threshold, self.settings.false_alarm_rate),
            embedding_version=version,
            level=ratio,
            interval=interval,
            detail=f"the model's rate divided by the {name}; the drop is relative",
        )
        return [rate, result]

    def measure_promotion(self) -> list[DriftResult]:
        """Rates of these towers beside those of the ones before, for some windows."""
        if not self.is_readable or self.predecessor is None:
            return []
        both = replace(self, before=self.predecessor)
        results = []
        for kind in RATES:
            subject = f"{PROMOTION}{kind}-rate"
            results += both._guard(subject, partial(both._measure_promotion, kind, subject))
        return results

    def _measure_promotion(self, kind: str, subject: str) -> list[DriftResult]:
        assert self.promoted is not None
        measured = len(self.grid) - len(self.windows)
        of_these = range(
            max(self.promoted, measured),
            min(self.promoted + PROMOTION_WINDOWS, len(self.grid)),
        )
        if not of_these:
            return []
        model = self.judge(kind, [flags & self.answers.by_model for flags in self.chosen])
        market = self._judge_market(kind, model)
        results = []
        for i in (i for i in of_these if model[i].expected is not None):
            if any(judged[i].fell for judged in market.values()):
                lifts = self._compare(i, model, market)
                results.append(self._report_model(kind, subject, i, model[i], lifts))
                continue
            detail = f"beside the towers before: {self._describe(i, model[i], kind)}"
            towers, window = self.embedding_version, self.grid[i]
            results.append(report_drop(subject, window, towers, model[i], True, detail))
        return results

    def _compare(
        self, i: int, model: Sequence[JudgedRate], market: Mapping[str, Sequence[JudgedRate]]
    ) -> list[Lift]:
        """The fall of the model's rate beside those of rates that do not depend on it."""
        episode = find_episode(model, i)
        compared = [
            compare_with(
                self.settings, name, [model[j] for j in episode], [judged[j] for j in episode]
            )
            for name, judged in market.items()
        ]
        return [lift for lift in compared if lift is not None]

    def _describe(self, i: int, judgement: JudgedRate, kind: str) -> str:
        period, now = self.periods[i], judgement.now
        said = f"answers of {period.start:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M}"
        if now is None or judgement.expected is None:
            return said
        form = "{:.4g}" if kind == "revenue" else "{:.2%}"
        level, expected = form.format(now.rate), form.format(judgement.expected)
        capped = ""
        if kind == "revenue":
            capped = f", prices capped at their {self.settings.winsor_quantile:.0%} quantile"
        return (
            f"{said}: {level}, {expected} expected from {judgement.earlier} earlier windows; "
            f"{len(now.people)} people{capped}"
        )

    def measure_revenue(self) -> list[DriftResult]:
        """Revenue per answer, if it is measured here and anything has a price."""
        if not self.settings.revenue or not self.is_readable or not self.feed.priced:
            return []
        return self._guard(REVENUE, self._measure_revenue)

    def _measure_revenue(self) -> list[DriftResult]:
        own = [flags & self.answers.by_model for flags in self.chosen]
        reasons = list(self.reasons)
        for i, flags in enumerate(own):
            bought = int(self.answers.hits["purchase"][flags].sum())
            missing = float(self.answers.unpriced[flags].sum())
            if not reasons[i] and missing > UNPRICED * max(bought, 1):
                reasons[i] = f"{missing:.0f} of about {bought} purchases have no price"
        sums = [self.answers.sums("revenue", flags) for flags in own]
        model = judge_series(self.settings, RateSeries(self.periods, sums, reasons), self.minimum)
        return self._report_rates("revenue", REVENUE, model)

    def measure_delays(self) -> list[DriftResult]:
        """How much later than before outcomes come, where there are enough of them."""
        if not self.is_readable:
            return []
        seen = np.isfinite(self.answers.delay)
        delays = [self.answers.delay[flags & seen] for flags in self.chosen]
        found = []
        first = len(self.grid) - len(self.windows)
        usable = [i for i in range(first) if not self.reasons[i]]
        for i, window in enumerate(self.windows, start=first):
            earlier = [delays[j] for j in usable] + [
                delays[j] for j in range(first, i) if not self.reasons[j]
            ]
            before = Delays.of(self.settings, np.concatenate([np.empty(0), *earlier]))
            now = Delays.of(self.settings, delays[i])
            if min(len(before.hours), len(now.hours)) < self.minimum:
                continue
            growth, threshold = now.median - before.median, self.settings.delay_hours
            drifts = growth > threshold
            found.append(
                DriftResult(
                    subject="live:outcome-delay",
                    statistic="growth",
                    value=growth,
                    threshold=threshold,
                    n_reference=len(before.hours),
                    n_current=len(now.hours),
                    window=window,
                    state=DriftState.DRIFT if drifts else DriftState.OK,
                    embedding_version=self.embedding_version,
                    level=now.median,
                    detail=("outcomes arrive later than before: " if drifts else "")
                    + f"half of the first outcomes came within {now.median:.2g} hours, "
                    f"{before.median:.2g} in earlier windows; {now.late:.1%} came after "
                    "outcome_hours",
                )
            )
        return found

    def measure_propensities(self) -> list[DriftResult]:
        """Rates of shown items by inverse propensity, where exploration is logged."""
        if not self.is_readable:
            return []
        results = []
        for kind in RATES:
            subject = f"live:ips-{kind}-rate"
            results += self._guard(subject, partial(self._measure_shown, kind, subject))
        return results

    @cached_property
    def shown(self) -> propensity.ShownItems | None:
        whole = Window(start=self.periods[0].start, end=self.periods[-1].end)
        return propensity.read_shown_items(
            self.settings, self.log, self.feed, self.embedding_version, whole
        )

    def _measure_shown(self, kind: str, subject: str) -> list[DriftResult]:
        shown = self.shown
        if shown is None:
            return []
        sizes = [shown.effective_size(period) for period in self.periods]
        reasons = [
            why
            or (
                f"propensities of {size:.0f} effective items, {self.minimum} are needed"
                if size < self.minimum
                else ""
            )
            for why, size in zip(self.reasons, sizes, strict=True)
        ]
        sums = [shown.sums(kind, period) for period in self.periods]
        judged = judge_series(self.settings, RateSeries(self.periods, sums, reasons), 0)
        results = []
        for i, window in enumerate(self.windows, start=len(self.grid) - len(self.windows)):
            slots = shown.rates_by_slot(kind, self.periods[i])
            sources = shown.rates_by_source(kind, self.periods[i])
            detail = (
                f"{self._describe(i, judged[i], kind)}; by slot from the first: "
                f"{', '.join(f'{rate:.2%}' for rate in slots)}; "
                + "".join(f"{name} {rate:.2%}; " for name, rate in sources.items())
                + f"{sizes[i]:.0f} effective items; "
                f"{shown.unusable} without a usable propensity"
            )
            results.append(
                report_drop(subject, window, self.embedding_version, judged[i], True, detail)
            )
        return results

    def measure_concept(self, index: Path) -> list[DriftResult]:
        """How the champion ranks what people chose without it, where there are such choices."""
        if not self.is_readable or not len(self.feed.organic.time):
            return []
        return self._guard("live:concept", lambda: self._measure_concept(index))

    def _measure_concept(self, index: Path) -> list[DriftResult]:
        first = max(len(self.grid) - len(self.windows) - CONCEPT_WINDOWS, 0)
        periods = self.periods[first:]
        labels = concept.rank_labels(
            self.settings, self.log, self.feed, index, self.embedding_version, periods
        )
        k = self.settings.concept_k
        sums = [labels.sums(k, period) for period in periods]
        if not any(one is not None and one.total >= self.minimum for one in sums):
            return []  # people hardly choose anything without the recommender here
        series = RateSeries(periods, sums, [""] * len(periods))
        judged = judge_series(self.settings, series, self.minimum)
        results = []
        for i, window in enumerate(self.windows, start=len(periods) - len(self.windows)):
            judgement, detail = judged[i], ""
            if judgement.now is None or judgement.now.total < self.minimum:
                n = judgement.now.total if judgement.now else 0
                judgement = replace(
                    judgement,
                    why=f"{n:.0f} organic choices of indexed items within concept_hours of an "
                    f"answer, {self.minimum} are needed; {labels.unknown} more are not in the "
                    "index",
                )
            else:
                detail = (
                    f"share of organic choices among the {k} nearest of all items; mean "
                    f"reciprocal rank {labels.mean_reciprocal_rank(periods[i]):.3f}; "
                    f"{labels.unknown} choices of all windows are not in the index"
                )
            results.append(
                report_drop("live:concept", window, self.embedding_version, judgement, True, detail)
            )
        return results

    def measure_shares(self, window: Window) -> list[DriftResult]:
        """Shares of the answers that the model, or the newest index, did not give."""
        version = self.embedding_version
        columns = (*("embedding_version", "bundle_id", "time"), "fallback", "positions", "scores")
        try:
            answers = keep_first_pages(tables.read_log(self.log, columns, window))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            return [
                insufficient_data(subject, "share", window, version, why)
                for subject in (FALLBACKS, OTHER_INDEX)
            ]
        own = answers.filter(pc.equal(answers["embedding_version"], version))
        on_purpose = pc.is_in(own["fallback"], pa.array(ON_PURPOSE, pa.string()))
        meant = own.filter(pc.invert(on_purpose))
        return [
            self._report_share(FALLBACKS, window, meant, find_fallbacks),
            self._report_share(OTHER_INDEX, window, own, find_other_indexes),
        ]

    def _report_share(
        self,
        subject: str,
        window: Window,
        answers: pa.Table,
        find: Callable[[pa.Table], tuple[float, str]],
    ) -> DriftResult:
        n, version = answers.num_rows, self.embedding_version
        if n < self.minimum:
            why = f"{n} answers, {self.minimum} are needed"
            return insufficient_data(subject, "share", window, version, why, n)
        (share, detail), threshold = find(answers), self.settings.fallback_share
        return DriftResult(
            subject=subject,
            statistic="share",
            value=share,
            threshold=threshold,
            n_reference=0,
            n_current=n,
            window=window,
            state=DriftState.DRIFT if share > threshold else DriftState.OK,
            embedding_version=version,
            level=share,
            interval=wilson_interval(share, n),
            detail=detail,
        )


def find_fallbacks(answers: pa.Table) -> tuple[float, str]:
    """The share of answers without the model, and how many of them only their scores give away.

    An answer whose scores are no numbers, or all one number, was not ranked by the model.
    """
    fallback = np.asarray(pc.is_valid(answers["fallback"]), dtype=bool)
    unranked = find_unranked(combine(answers["scores"])) & ~fallback
    share = f"{unranked.mean():.1%}"
    told = f"the scores of {share} of the answers are no numbers, or all one"
    return float((fallback | unranked).mean()), told if unranked.any() else ""


def find_other_indexes(answers: pa.Table) -> tuple[float, str]:
    """The share of answers from an index whose successor answered an hour before, and which.

    Where two answer side by side, a part of the servers has not loaded the newer one. Indexes
    follow each other by their first answers. Of two that answer all day either may be the first,
    and so the smaller share counts.
    """
    first = answers.group_by("bundle_id").aggregate([("time", "min")]).sort_by("time_min")
    begins = tables.to_days(first["time_min"])
    ends = np.append(begins[1:], np.inf) + _SWITCHED / timedelta(days=1)
    place = pc.index_in(combine(answers["bundle_id"]), value_set=combine(first["bundle_id"]))
    late = tables.to_days(answers["time"]) > ends[np.asarray(place)]
    named = pc.unique(answers["bundle_id"].filter(pa.array(late))).to_pylist()[:3]
    share = float(late.mean())
    told = f"{', '.join(named)} answered on, an hour after the next index did" if named else ""
    return min(share, 1.0 - share), told


def find_unranked(scores: pa.ListArray) -> NDArray[np.bool_]:
    """[n] lists of scores that hold no number, or several times the same: nothing ranked them."""
    flat = np.asarray(pc.list_flatten(scores), dtype=np.float64)
    rows = np.asarray(pc.list_parent_indices(scores), dtype=np.int64)
    n = len(scores)
    low, high, count = np.full(n, np.inf), np.full(n, -np.inf), np.bincount(rows, minlength=n)
    finite = np.isfinite(flat)
    broken = np.bincount(rows, ~finite, n) > 0
    np.minimum.at(low, rows[finite], flat[finite])
    np.maximum.at(high, rows[finite], flat[finite])
    return broken | ((count > 1) & (low == high))
