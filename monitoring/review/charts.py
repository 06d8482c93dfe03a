"""Pictures of results over windows, as SVG text that stands inside a page."""

import io
import re
from collections.abc import Sequence
from typing import Any

from refit.drift import DriftResult, DriftState

# Okabe and Ito's palette, told apart by colour-blind readers too; shapes say the same again.
COLOURS = {
    DriftState.OK: "#0072B2",
    DriftState.DRIFT: "#D55E00",
    DriftState.INSUFFICIENT_DATA: "#767676",
}
MARKERS = {DriftState.OK: "o", DriftState.DRIFT: "^", DriftState.INSUFFICIENT_DATA: "x"}
LINE = "#444444"


def draw_series(results: Sequence[DriftResult], title: str) -> str:
    """One statistic over windows with its threshold, as SVG; windows oldest first."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.1), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    ends = [result.window.start for result in results]
    level = results[-1].subject.startswith("live:") and any(
        result.level is not None for result in results
    )
    values = [result.level if level else result.value for result in results]
    known = [(end, value) for end, value in zip(ends, values, strict=True) if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color="#9bb8cc", linewidth=1.2, zorder=1)
    if level:
        _draw_intervals(axes, results)
    else:
        lines = [
            (result.window.start, result.threshold)
            for result in results
            if result.threshold is not None
        ]
        if lines:
            axes.plot(*zip(*lines, strict=True), color=LINE, linewidth=1.2, linestyle="--")
    for state in DriftState:
        points = [
            (end, value or 0.0)
            for end, value, result in zip(ends, values, results, strict=True)
            if result.state is state
        ]
        if points:
            axes.scatter(
                *zip(*points, strict=True),
                color=COLOURS[state],
                marker=MARKERS[state],
                s=30,
                zorder=3,
                clip_on=False,
            )
    _style(axes, ends, title)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), title, describe_series(results))


def describe_series(results: Sequence[DriftResult]) -> str:
    """The picture in words, for readers who do not see it."""
    states = ", ".join(f"{r.window.start:%d %b} {r.state}" for r in results[-7:])
    last = results[-1]
    if last.value is None or last.threshold is None:
        return f"No value in the newest window: {last.why}. {states}."
    return f"Newest value {last.value:.3g}, threshold {last.threshold:.3g}. {states}."


def _draw_intervals(axes: Any, results: Sequence[DriftResult]) -> None:
    for result in results:
        if result.interval is not None:
            axes.vlines(result.window.start, *result.interval, color="#9bb8cc", linewidth=2)
    bounds = [
        (r.window.start, _bound(r.level, r.value, r.threshold, r.statistic == "drop"))
        for r in results
        if r.level is not None and r.value is not None and r.threshold is not None
    ]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), color=LINE, linewidth=1.2, linestyle="--")


def _bound(level: float, value: float, threshold: float, drop: bool) -> float:
    """The level at which drift begins."""
    return max(0.0, level + value - threshold) if drop else threshold


def _style(axes: Any, ends: Sequence[Any], title: str) -> None:
    from matplotlib.dates import DateFormatter
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=9, loc="left", color="#222222")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    step = max(1, -(-len(ends) // 6))
    axes.set_xticks(list(ends[::step]))
    axes.xaxis.set_major_formatter(DateFormatter("%d %b"))
    axes.tick_params(labelsize=7, colors="#444444")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")


def _inline(svg: str, title: str, words: str) -> str:
    """The bare <svg> element, scalable, with its description for screen readers."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    label = f"{title}. {words}".replace("&", "and").replace('"', "'").replace("<", "under ")
    # Several pictures share a page: identifiers must not collide.
    prefix = re.sub(r"\W+", "-", title)
    body = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", body)
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
