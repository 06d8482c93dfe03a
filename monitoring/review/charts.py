"""Pictures of the review page, as SVG; they follow a reader's dark mode by themselves."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from monitoring.drift_metrics import Array, DriftMetric, Parameters
from refit.drift import DriftResult, DriftState

# From Okabe and Ito's palette, which colour-blind readers can distinguish; shapes differ too.
COLOURS = {
    DriftState.OK: "#0072B2",
    DriftState.DRIFT: "#D55E00",
    DriftState.INSUFFICIENT_DATA: "#767676",
    DriftState.NOT_CHECKED: "#767676",
}
MARKERS = {
    DriftState.OK: "o",
    DriftState.DRIFT: "^",
    DriftState.INSUFFICIENT_DATA: "x",
    DriftState.NOT_CHECKED: ".",
}
LINE = "#444444"
_DARK = (
    "@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 !important } "
    "[style*='#444444'] { stroke: #a0a8b0 !important } "
    "[style*='#bbbbbb'] { stroke: #59636e !important } "
    "[style*='fill: #0072b2'] { fill: #58aee6 !important } "
    "[style*='fill: #d55e00'] { fill: #ff8a3d !important } }"
)


def draw_series(results: Sequence[DriftResult], title: str) -> str:
    """A result over windows with its threshold, as SVG: the picture that every metric has.

    Args:
        results: Of one subject and statistic, oldest window first. Of live quality the level
            itself is drawn, with its 95% interval.
        title: Shown above the picture.
    """
    figure, axes = _open_figure()
    starts = [result.window.start for result in results]
    level = results[-1].subject.startswith("live:") and any(
        result.level is not None for result in results
    )
    values = [result.level if level else result.value for result in results]
    known = [(at, value) for at, value in zip(starts, values, strict=True) if value is not None]
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
            (at, value or 0.0)
            for at, value, result in zip(starts, values, results, strict=True)
            if result.state is state
        ]
        if points:
            axes.scatter(
                *zip(*points, strict=True),
                color=COLOURS[state],
                marker=MARKERS[state],
                s=20,
                zorder=3,
                clip_on=False,
            )
    _style_series(axes, starts)
    return _to_svg(figure, axes, title, title, describe_series(results))


def draw_metric(
    metric: DriftMetric, reference: Array, current: Array, parameters: Parameters, name: str
) -> tuple[str, str]:
    """A drift metric's own picture of encoded rows, as SVG, and its caption.

    Args:
        metric: A drift metric that draws.
        reference: Encoded rows of the reference.
        current: Encoded rows of a window.
        parameters: What the metric learned from the reference.
        name: ``subject/statistic``, for the picture's label.
    """
    assert metric.draw is not None
    figure, axes = _open_figure()
    caption = str(metric.draw(axes, reference, current, parameters))
    _place_legend(axes)
    return _to_svg(figure, axes, "", f"{name} in detail", caption), caption


def draw_on_axes(
    draw: Callable[[Any], None], name: str, words: str, size: tuple[float, float]
) -> str:
    """What ``draw`` puts on Matplotlib axes, with a legend above, as SVG.

    Args:
        draw: Draws on the axes that it is given.
        name: The picture's label.
        words: The picture in words, for readers who do not see it.
        size: Width and height in inches.
    """
    figure, axes = _open_figure(size)
    draw(axes)
    _place_legend(axes)
    return _to_svg(figure, axes, "", name, words)


def _place_legend(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(labels)}
        axes.legend(handles, labels, fontsize=7, frameon=False, borderaxespad=0.2, **place)


def describe_series(results: Sequence[DriftResult]) -> str:
    """The picture of a series in words, for readers who do not see it."""
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


def _open_figure(size: tuple[float, float] = (3.5, 1.8)) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _style_series(axes: Any, starts: Sequence[Any]) -> None:
    from matplotlib.dates import DateFormatter
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    step = max(1, -(-len(starts) // 5))
    axes.set_xticks(list(starts[::step]))
    axes.xaxis.set_major_formatter(DateFormatter("%d %b"))


def _to_svg(figure: Any, axes: Any, title: str, name: str, words: str) -> str:
    from matplotlib import rc_context

    if title:
        axes.set_title(title, fontsize=8, loc="left", color="#222222")
    axes.tick_params(labelsize=7, colors="#444444")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.xaxis.label.set_size(7)
    axes.yaxis.label.set_size(7)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return _inline(buffer.getvalue(), name, words)


def _inline(svg: str, name: str, words: str) -> str:
    """The <svg> element alone, scalable, with a description for screen readers."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    label = f"{name}. {words}".replace("&", "and").replace('"', "'").replace("<", "under ")
    body = re.sub(r">", f"><style>{_DARK}</style>", body, count=1)
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
