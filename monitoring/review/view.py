"""What an alert's page shows, in the order of the story, without a word of HTML."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from monitoring.review.charts import describe_series, draw_series
from monitoring.review.evidence import AlertEvidence, MetricEvidence
from monitoring.review.runbook import INSUFFICIENT_DATA, advise
from monitoring.review.since import describe_since
from monitoring.store import AlertStore, OrderRequest, Refit
from refit.alert import Alert, AuditEntry
from refit.drift import DriftResult, DriftState
from refit.errors import RefitError
from refit.files import read_json
from refit.quarantine import Quarantine

_DRAWING = threading.Lock()
HISTORY_WINDOWS = 60
"""Windows of results that a page shows."""


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn when it is asked for.

    Attributes:
        name: Unique on the page.
        words: The picture in words.
        draw: Returns it as SVG; called by one thread at a time, since Matplotlib is not made for
            more.
    """

    name: str
    words: str
    draw: Callable[[], str]

    def to_svg(self) -> str:
        """The picture."""
        with _DRAWING:
            return self.draw()


@dataclass(frozen=True)
class Finding:
    """One result with a value that the alert is about.

    Attributes:
        result: The result.
        times: Its value over its threshold; None without a value.
        since: The first window of the unbroken run of windows in this state.
        unit: What the value means; empty where it is unknown.
        meaning, action: The runbook's entry.
        series: The value over windows.
        picture: The drift metric's own picture; None where it has none.
    """

    result: DriftResult
    times: float | None
    since: str
    unit: str
    meaning: str
    action: str
    series: Picture
    picture: Picture | None


@dataclass(frozen=True)
class AlertView:
    """An alert with everything that is known around it.

    Attributes:
        alert: The alert.
        history: The results under its towers up to it, oldest window first.
        evidence: The rows behind it; None where they were not kept here.
        problem: Why the evidence cannot be shown.
        refits: Refits that followed, oldest first.
        orders: What people asked for, newest first.
        quarantines: Quarantines that came from it.
        entries: Its audit trail, newest first.
        since: What happened since, one sentence each.
    """

    alert: Alert
    history: Sequence[DriftResult]
    evidence: AlertEvidence | None = None
    problem: str = ""
    refits: Sequence[Refit] = ()
    orders: Sequence[OrderRequest] = ()
    quarantines: Sequence[Quarantine] = ()
    entries: Sequence[AuditEntry] = ()
    since: Sequence[str] = ()
    _series: dict[str, list[DriftResult]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for result in self.history:
            self._series.setdefault(result.name, []).append(result)

    @cached_property
    def findings(self) -> list[Finding]:
        """The results that have a value, those farthest beyond their thresholds first."""
        metrics = self.evidence.metrics if self.evidence else {}
        found = [
            _find(each, self._series.get(each.name, [each]), metrics.get(each.name))
            for each in self.alert.results
            if each.state not in (DriftState.INSUFFICIENT_DATA, DriftState.NOT_CHECKED)
        ]
        return sorted(found, key=lambda each: -(each.times or 0))

    @property
    def unmeasured(self) -> dict[str, list[str]]:
        """Names of the results with insufficient data, by the reason."""
        return _group_by_reason(self.alert.results, DriftState.INSUFFICIENT_DATA)

    @property
    def unchecked(self) -> dict[str, list[str]]:
        """Names of what was not checked in the newest window, by the reason."""
        newest = max((result.window.end for result in self.history), default=None)
        return list_unchecked([r for r in self.history if r.window.end == newest])

    @property
    def what_to_do(self) -> str:
        """What to do about results with insufficient data."""
        return INSUFFICIENT_DATA.action

    @cached_property
    def live(self) -> list[Picture]:
        """Live quality over windows, of those subjects that the findings do not show."""
        shown = {result.name for result in self.alert.results}
        return [
            _draw_series(series)
            for name, series in self._series.items()
            if name.startswith("live:") and name not in shown
        ]

    @property
    def quality(self) -> list[str]:
        """Live quality in words; what was not measured is named as unknown."""
        return describe_quality(self._series)

    @property
    def others(self) -> dict[str, list[str]]:
        """Names of all other results of the newest window, by state."""
        names = {result.name for result in self.alert.results}
        newest = max((result.window.end for result in self.history), default=None)
        found: dict[str, list[str]] = {}
        for result in self.history:
            is_other = result.name not in names and result.state is not DriftState.NOT_CHECKED
            if result.window.end == newest and is_other:
                found.setdefault(str(result.state), []).append(result.name)
        return found

    @property
    def title(self) -> str:
        """The alert in a line: its story, or else how many results it is about."""
        if self.alert.incident is not None:
            return self.alert.incident.summary
        drifted = [r for r in self.alert.results if r.state is DriftState.DRIFT]
        missing = sum(map(len, self.unmeasured.values()))
        if drifted:
            more = f", {missing} had insufficient data" if missing else ""
            return f"{_count(len(drifted))} drifted{more}"
        if missing:
            return f"{_count(missing)} had insufficient data"
        if self.alert.results:
            return (
                f"{_count(len(self.alert.results))} drifted in earlier windows, not in the newest"
            )
        return "Nothing was measured"

    @property
    def maps(self) -> list[Picture]:
        """Maps of embeddings, in the evidence's order."""
        maps = self.evidence.maps if self.evidence else ()
        return [
            Picture(f"map-{i}", each.caption, lambda svg=each.picture: svg)  # type: ignore[misc]
            for i, each in enumerate(maps)
        ]

    def picture(self, name: str) -> Picture | None:
        """A picture by its name."""
        found = [each.series for each in self.findings]
        found += [each.picture for each in self.findings if each.picture]
        return next((p for p in (*found, *self.live, *self.maps) if p.name == name), None)


def list_unchecked(results: Sequence[DriftResult]) -> dict[str, list[str]]:
    """Names of the results that were not checked, by the reason."""
    return _group_by_reason(results, DriftState.NOT_CHECKED)


def _group_by_reason(results: Sequence[DriftResult], state: DriftState) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.state is state:
            groups.setdefault(result.why, []).append(result.name)
    return groups


def _count(n: int) -> str:
    return f"{n} {'result' if n == 1 else 'results'}"


def read_view(store: AlertStore, pages: Path, alert: Alert) -> AlertView:
    """Read everything that is known around an alert.

    Args:
        store: The alert store.
        pages: The folder in which the monitor keeps evidence.
        alert: The alert.
    """
    newest = max((result.window.end for result in alert.results), default=None)
    history = [
        result
        for result in store.results(alert.embedding_version, HISTORY_WINDOWS)
        if newest is None or result.window.end <= newest
    ]
    evidence, problem = _read_evidence(pages / f"{alert.alert_id}.json")
    refits = [each for each in store.refits() if each.alert_id == alert.alert_id]
    later = store.results_since(newest or alert.created_at, "live:")
    return AlertView(
        alert=alert,
        history=history,
        evidence=evidence,
        problem=problem,
        refits=refits,
        orders=store.orders(alert.alert_id),
        quarantines=[
            each for each in store.quarantines(in_force=False) if each.alert_id == alert.alert_id
        ],
        entries=store.entries(alert.alert_id),
        since=describe_since(alert, history, later, refits),
    )


def _read_evidence(file: Path) -> tuple[AlertEvidence | None, str]:
    if not file.exists():
        return None, ""
    try:
        return AlertEvidence.parse(read_json(file)), ""
    except (RefitError, ValueError) as error:
        return None, f"The evidence cannot be read: {error}"


def _find(
    result: DriftResult, series: Sequence[DriftResult], evidence: MetricEvidence | None
) -> Finding:
    times = None
    if result.value is not None and result.threshold:
        times = result.value / result.threshold
    meaning, action = advise(result) if evidence is None else evidence.advice
    picture = None
    if evidence is not None and evidence.picture:
        svg = evidence.picture
        picture = Picture(f"metric-{_slug(result)}", evidence.caption, lambda: svg)
    return Finding(
        result=result,
        times=times,
        since=_since(series),
        unit=evidence.unit if evidence else "",
        meaning=meaning,
        action=action,
        series=_draw_series(series),
        picture=picture,
    )


def _draw_series(series: Sequence[DriftResult]) -> Picture:
    last = series[-1]
    title = (
        last.subject if last.subject.startswith("live:") else f"{last.subject} · {last.statistic}"
    )
    name = f"series-{_slug(last)}"
    return Picture(name, f"{title}. {describe_series(series)}", partial(draw_series, series, title))


def _slug(result: DriftResult) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in result.name)


def _since(series: Sequence[DriftResult]) -> str:
    """The first window of the unbroken run of the newest window's state."""
    newest = series[-1]
    first = newest
    for result in reversed(series):
        if result.state is not newest.state:
            break
        first = result
    return f"{first.window.start:%Y-%m-%d %H:%M}"


def describe_quality(series: Mapping[str, Sequence[DriftResult]]) -> list[str]:
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
            f"{high:.2%}) in the newest window, {last.level + last.value:.2%} expected; "
            f"a fall of more than {(last.threshold or 0):.2%} is drift."
            + (f" {last.detail}." if last.detail else "")
        )
    return lines
