"""The verdict over the cuts of a backtest, and its report."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from components.evaluation.report import make_environment
from components.evaluation.results import CHAMPION, Interval, Results
from refit.backtest import BacktestSettings, FitResult, Gain
from refit.files import read_json, remove, write_atomically, write_json
from refit.settings import Settings
from refit.verdict import Check, Verdict

BACKTEST_FILE = "backtest.json"
VERDICT_FILE = "verdict.json"


class CutSummary(Settings):
    """One cut: the means over its seeds.

    Attributes:
        cut: End of its test window, as a date.
        start, until: Times of its first and last test query.
        n_queries: Number of test queries.
        value: The model's primary metric, the mean over seeds.
        spread: The standard deviation over seeds; None with one seed.
        best_baseline, champion: Mean gains. An interval is that of the first seed: it says how much
            the queries differ, not the seeds.
        champion_state: See ``refit.backtest.PlannedFit``.
        passed: In how many of its fits the gate of a single window passes.
        fits: Number of its fits.
    """

    cut: str
    start: str
    until: str
    n_queries: int
    value: float | None
    spread: float | None
    best_baseline: Gain
    champion: Gain | None
    champion_state: str
    passed: int
    fits: int


def read_fit(evaluation: Path, cut: str, seed: str, champion_state: str) -> FitResult:
    """Read what a fit of a backtest measured from its evaluation folder."""
    results = Results.parse(read_json(evaluation / "metrics.json"))
    verdict = Verdict.parse(read_json(evaluation / VERDICT_FILE))
    metric = results.protocol["metric"]
    best = results.best_baseline(metric)
    champion = next((m for m in results.of_kind(CHAMPION)), None)
    state = champion_state
    if state == "compared" and champion is None:
        ran = next((m for m in results.methods if m.kind == CHAMPION), None)
        state = ran.not_run if ran else "it was not ranked"
    return FitResult(
        cut=datetime.fromisoformat(cut),
        seed=int(seed),
        start=results.protocol["from"],
        until=results.protocol["until"],
        n_queries=results.n_queries,
        metric=metric,
        value=results.methods[0].metrics.get(metric, Interval()).value,
        best_baseline=_gain(best, metric),
        champion=_gain(champion, metric),
        champion_state=state,
        passed=verdict.passed,
        reasons=verdict.reasons,
    )


def judge_cuts(settings: BacktestSettings, fits: Sequence[FitResult], out: Path) -> Verdict:
    """Apply the rule over all cuts and write the backtest's folder, atomically.

    It holds backtest.json, verdict.json, report.html and report.md.

    Args:
        settings: The rule.
        fits: What every fit measured.
        out: The folder; an existing one is replaced.
    """
    cuts = summarize(fits)
    verdict = Verdict.of(_checks(settings, fits, cuts))
    page: dict[str, Any] = {
        "settings": settings,
        "cuts": cuts,
        "fits": fits,
        "verdict": verdict,
        "metric": fits[0].metric if fits else "",
    }
    with write_atomically(out) as folder:
        folder.mkdir()
        rows = [cut.model_dump(mode="json") for cut in cuts]
        write_json(
            folder / BACKTEST_FILE,
            {"cuts": rows, "fits": [fit.model_dump(mode="json") for fit in fits]},
        )
        write_json(folder / VERDICT_FILE, verdict.model_dump(mode="json"))
        for suffix in ("html", "md"):
            text = make_environment().get_template(f"backtest_template.{suffix}").render(page)
            (folder / f"report.{suffix}").write_text(text, encoding="utf-8")
        remove(out)
    return verdict


def summarize(fits: Sequence[FitResult]) -> tuple[CutSummary, ...]:
    """The means over the seeds of each cut, the latest cut first."""
    ordered = sorted(fits, key=lambda fit: (fit.cut, -fit.seed), reverse=True)
    return tuple(_summarize(list(group)) for _, group in groupby(ordered, key=lambda fit: fit.cut))


def _summarize(fits: list[FitResult]) -> CutSummary:
    values = [fit.value for fit in fits]
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    first = fits[0]
    return CutSummary(
        cut=f"{first.cut:%Y-%m-%d}",
        start=first.start,
        until=first.until,
        n_queries=first.n_queries,
        value=fmean(known) if whole else None,
        spread=stdev(known) if whole and len(known) > 1 else None,
        best_baseline=_mean_gain([fit.best_baseline for fit in fits]) or Gain(over="none"),
        champion=_mean_gain([fit.champion for fit in fits]),
        champion_state=first.champion_state,
        passed=sum(fit.passed for fit in fits),
        fits=len(fits),
    )


def _mean_gain(gains: Sequence[Gain | None]) -> Gain | None:
    """The mean over seeds; without a value if one of them has none."""
    there = [gain for gain in gains if gain is not None]
    if len(there) < len(gains) or not there:
        return None
    values = [gain.value for gain in there if gain.value is not None]
    of = [gain.of for gain in there if gain.of is not None]
    update = {
        "value": fmean(values) if len(values) == len(there) else None,
        "of": fmean(of) if len(of) == len(there) else None,
    }
    return there[0].model_copy(update=update)


def _checks(
    settings: BacktestSettings, fits: Sequence[FitResult], cuts: Sequence[CutSummary]
) -> list[Check]:
    wanted = settings.cuts * settings.seeds
    measured = [cut.best_baseline.value for cut in cuts]
    better = sum(value is not None and value > 0 for value in measured)
    missing = [cut.cut for cut in cuts if cut.best_baseline.share is None]
    why = f"no gain over a baseline was measured in the cut {', '.join(missing)}" if missing else ""
    checks = [
        Check(name="fits that were measured", measured=len(fits), at_least=wanted),
        Check(
            name="cuts in which the model is better than the best baseline",
            measured=None if missing else better,
            at_least=settings.needed,
            n=len(cuts),
            needs_n=settings.cuts,
            why=why,
        ),
        _worst("the best baseline", [cut.best_baseline for cut in cuts], settings, why),
    ]
    compared = [cut for cut in cuts if cut.champion_state not in ("none", "seen")]
    if compared:
        unmeasured = [f"{c.cut}: {c.champion_state}" for c in compared if c.champion is None]
        gains = [cut.champion or Gain(over=CHAMPION) for cut in compared]
        checks.append(_worst("the champion", gains, settings, "; ".join(unmeasured)))
    return checks


def _worst(rival: str, gains: Sequence[Gain], settings: BacktestSettings, why: str) -> Check:
    shares = [gain.share for gain in gains]
    known = [share for share in shares if share is not None]
    return Check(
        name=f"gain over {rival} in the worst cut, as a share of its value",
        measured=min(known) if known and len(known) == len(shares) else None,
        at_least=-settings.worst,
        why=why or f"{rival} has no value to compare with",
    )


def _gain(method: Any, metric: str) -> Gain | None:
    if method is None:
        return None
    gain = method.gain.get(metric, Interval())
    return Gain(
        over=method.name,
        value=gain.value,
        low=gain.low,
        high=gain.high,
        of=method.metrics.get(metric, Interval()).value,
    )
