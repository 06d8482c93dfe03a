"""Write the review pages: plain HTML files that need no network and no server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.review.charts import draw_series
from monitoring.review.evidence import AlertEvidence, MetricEvidence
from monitoring.review.runbook import INSUFFICIENT_DATA, advise
from monitoring.store import Refit
from refit.alert import Alert
from refit.drift import DriftResult, DriftState
from refit.files import read_json, write_atomically

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Finding:
    """One result with a value that the alert is about, as the page shows it.

    Attributes:
        result: The result.
        times: Its value over its threshold; None without a value.
        since: The first window of the unbroken run of windows in this state.
        unit: What the value means; empty where it is unknown.
        meaning, action: The runbook's entry.
        series: The value over windows, as SVG.
        picture: The drift metric's own picture, as SVG; empty where it has none.
        caption: What that picture shows.
    """

    result: DriftResult
    times: float | None
    since: str
    unit: str
    meaning: str
    action: str
    series: str
    picture: str
    caption: str


def write_alert(
    folder: Path, alert: Alert, history: Sequence[DriftResult], refit: Refit | None
) -> Path:
    """Write an alert's page.

    Args:
        folder: Where the pages are; the alert's evidence is there as ``<alert_id>.json``.
        alert: What to show.
        history: The bundle's results up to now, oldest window first.
        refit: The refit that followed, if there was one.

    Returns:
        The page's path.
    """
    newest = max((r.window.end for r in alert.results), default=None)
    past = [r for r in history if newest is None or r.window.end <= newest]
    series: dict[str, list[DriftResult]] = {}
    for result in past:
        series.setdefault(result.name, []).append(result)
    file = folder / f"{alert.alert_id}.json"
    evidence = AlertEvidence.parse(read_json(file)) if file.exists() else None
    findings = [
        _find(r, series.get(r.name, [r]), evidence.metrics.get(r.name) if evidence else None)
        for r in alert.results
        if r.state is not DriftState.INSUFFICIENT_DATA
    ]
    names = {result.name for result in alert.results}
    live = [
        draw_series(each, _title(each[-1]))
        for name, each in series.items()
        if name.startswith("live:") and name not in names
    ]
    page = _render(
        "alert.html",
        alert=alert,
        findings=sorted(findings, key=lambda each: -(each.times or 0)),
        unmeasured=_group_unmeasured(alert.results),
        what_to_do=INSUFFICIENT_DATA.action,
        quality=_describe_quality(series),
        live=live,
        evidence=evidence,
        refit=refit,
        others=_list_others(past, names),
    )
    return _write(folder / f"{alert.alert_id}.html", page)


def write_index(folder: Path, alerts: Sequence[Alert], refits: Sequence[Refit]) -> Path:
    """Write ``index.html``: all alerts, newest first."""
    page = _render("index.html", alerts=alerts, refits={refit.alert_id: refit for refit in refits})
    return _write(folder / "index.html", page)


def _find(
    result: DriftResult, series: Sequence[DriftResult], evidence: MetricEvidence | None
) -> Finding:
    times = None
    if result.value is not None and result.threshold:
        times = result.value / result.threshold
    meaning, action = advise(result) if evidence is None else evidence.advice
    return Finding(
        result=result,
        times=times,
        since=_since(series),
        unit=evidence.unit if evidence else "",
        meaning=meaning,
        action=action,
        series=draw_series(series, _title(result)),
        picture=evidence.picture if evidence else "",
        caption=evidence.caption if evidence else "",
    )


def _group_unmeasured(results: Sequence[DriftResult]) -> dict[str, list[str]]:
    """Names of the results with insufficient data, by the reason."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.state is DriftState.INSUFFICIENT_DATA:
            groups.setdefault(result.why, []).append(result.name)
    return groups


def _since(series: Sequence[DriftResult]) -> str:
    """The first window of the unbroken run of the newest window's state."""
    newest = series[-1]
    first = newest
    for result in reversed(series):
        if result.state is not newest.state:
            break
        first = result
    return f"{first.window.start:%Y-%m-%d %H:%M}"


def _title(result: DriftResult) -> str:
    is_live = result.subject.startswith("live:")
    return result.subject if is_live else f"{result.subject} · {result.statistic}"


def _describe_quality(series: dict[str, list[DriftResult]]) -> list[str]:
    """Whether live quality fell, in words; what was not measured is named as unknown."""
    lines = []
    for subject, label in (
        ("live:click-rate", "Click rate"),
        ("live:purchase-rate", "Purchase rate"),
    ):
        each = series.get(f"{subject}/drop", [])
        last = each[-1] if each else None
        if last is None or last.value is None or last.level is None or last.interval is None:
            why = last.why if last is not None else "it was not measured"
            lines.append(f"{label}: unknown, {why}.")
            continue
        verdict = "it fell" if last.state is DriftState.DRIFT else "no clear fall"
        low, high = last.interval
        lines.append(
            f"{label}: {verdict}. {last.level:.2%} of answers (95% interval {low:.2%} to "
            f"{high:.2%}) in the newest window, {last.level + last.value:.2%} in the bundle's "
            f"first windows; a fall of more than {(last.threshold or 0):.2%} is drift."
        )
    return lines


def _list_others(past: Sequence[DriftResult], names: set[str]) -> dict[str, list[str]]:
    """Names of all other results of the newest window, by state."""
    newest = max((result.window.end for result in past), default=None)
    others: dict[str, list[str]] = {}
    for result in past:
        if result.window.end == newest and result.name not in names:
            others.setdefault(str(result.state), []).append(result.name)
    return others


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Lets a line break after the slash of subject/statistic.
    environment.filters["breakable"] = lambda text: escape(text).replace("/", Markup("/<wbr>"))
    return environment.get_template(template).render(**values)


def _write(path: Path, page: str) -> Path:
    with write_atomically(path) as staging:
        staging.write_text(page, encoding="utf-8")
    return path
