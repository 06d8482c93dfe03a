"""Writing the review pages: plain HTML files that need no network and no server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.decide import name_of
from monitoring.review.charts import draw_series
from monitoring.review.examples import AlertExamples
from monitoring.review.runbook import advise
from monitoring.store import Refit
from refit.alert import Alert
from refit.drift import DriftResult, DriftState
from refit.files import read_json, write_atomically

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Moved:
    """One thing that the alert is about, as the page shows it."""

    name: str
    result: DriftResult
    times: float | None
    since: str
    meaning: str
    action: str
    picture: str


def write_alert(
    folder: Path, alert: Alert, history: Sequence[DriftResult], refit: Refit | None
) -> Path:
    """Write an alert's page.

    Args:
        folder: Where the pages are; examples stand there as ``<alert_id>.json``.
        alert: What to show.
        history: The bundle's results up to now, oldest window first.
        refit: The refit that followed, if one did.

    Returns:
        The page's path.
    """
    newest = max((r.window.end for r in alert.results), default=None)
    past = [r for r in history if newest is None or r.window.end <= newest]
    series: dict[str, list[DriftResult]] = {}
    for result in past:
        series.setdefault(name_of(result), []).append(result)
    moved = [_moved(result, series.get(name_of(result), [result])) for result in alert.results]
    about = {each.name for each in moved}
    live = [
        draw_series(each, _title(name))
        for name, each in series.items()
        if name.startswith("live:") and name not in about
    ]
    examples_file = folder / f"{alert.alert_id}.json"
    examples = AlertExamples.parse(read_json(examples_file)) if examples_file.exists() else None
    page = _render(
        "alert.html",
        alert=alert,
        moved=sorted(moved, key=lambda each: -(each.times or 0)),
        quality=_tell_quality(series),
        live=live,
        examples=examples,
        refit=refit,
        calm=_calm(past, about),
    )
    return _write(folder / f"{alert.alert_id}.html", page)


def write_index(folder: Path, alerts: Sequence[Alert], refits: Sequence[Refit]) -> Path:
    """Write ``index.html``: all alerts, newest first."""
    page = _render("index.html", alerts=alerts, refits={refit.alert_id: refit for refit in refits})
    return _write(folder / "index.html", page)


def _moved(result: DriftResult, series: Sequence[DriftResult]) -> Moved:
    name = name_of(result)
    times = None
    if result.value is not None and result.threshold:
        times = result.value / result.threshold
    meaning, action = advise(name)
    if result.state is DriftState.INSUFFICIENT_DATA:
        meaning = "It could not be measured, so nothing vouches for it."
    return Moved(
        name=name,
        result=result,
        times=times,
        since=_since(series),
        meaning=meaning,
        action=action,
        picture=draw_series(series, _title(name)),
    )


def _since(series: Sequence[DriftResult]) -> str:
    """The first window of the unbroken run of the newest window's state."""
    newest = series[-1]
    first = newest
    for result in reversed(series):
        if result.state is not newest.state:
            break
        first = result
    return f"{first.window.start:%Y-%m-%d %H:%M}"


def _title(name: str) -> str:
    subject, statistic = name.split("/")
    return subject if subject.startswith("live:") else f"{subject} · {statistic}"


def _tell_quality(series: dict[str, list[DriftResult]]) -> list[str]:
    """Whether live quality fell, in words; what is not known is said to be not known."""
    told = []
    for subject, label in (
        ("live:click-rate", "Click rate"),
        ("live:purchase-rate", "Purchase rate"),
    ):
        each = series.get(f"{subject}/drop", [])
        last = each[-1] if each else None
        if last is None or last.value is None or last.level is None or last.interval is None:
            why = last.why if last is not None else "it was not measured"
            told.append(f"{label}: cannot tell: {why}.")
            continue
        verdict = "it fell" if last.state is DriftState.DRIFT else "no clear fall"
        low, high = last.interval
        told.append(
            f"{label}: {verdict}. {last.level:.2%} of answers (95% interval {low:.2%} to "
            f"{high:.2%}) in the newest window, {last.level + last.value:.2%} at first; a fall "
            f"of more than {(last.threshold or 0):.2%} counts."
        )
    return told


def _calm(past: Sequence[DriftResult], about: set[str]) -> dict[str, list[str]]:
    """Names of all other results of the newest window, by state."""
    newest = max((result.window.end for result in past), default=None)
    calm: dict[str, list[str]] = {}
    for result in past:
        if result.window.end == newest and name_of(result) not in about:
            calm.setdefault(str(result.state), []).append(name_of(result))
    return calm


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _write(path: Path, page: str) -> Path:
    with write_atomically(path) as staging:
        staging.write_text(page, encoding="utf-8")
    return path
