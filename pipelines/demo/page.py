"""The demo's page: a timeline, plots, verdicts and alerts."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refit.files import write_atomically

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8a8a8a"
"""From the Okabe-Ito palette, which colour-blind readers can distinguish."""

MARK_COLOURS = {"change": ORANGE, "alert": "#CC79A7", "refit": GREEN, "swap": BLUE}


def write_page(summary: Mapping[str, Any], path: Path) -> None:
    """Write ``summary`` as one self-contained HTML page."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        summary=summary,
        quality_picture=draw_quality(summary["days"], summary["marks"], summary["unit"]),
        drift_picture=draw_drift(summary["drift"], summary["marks"]),
        quiet=sorted(
            {r["subject"] for r in summary["drift"]} - set(choose_subjects(summary["drift"]))
        ),
    )
    with write_atomically(path) as staging:
        staging.write_text(html, encoding="utf-8")


def draw_quality(
    days: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]], unit: str
) -> str:
    """Plot live quality by day (or other ``unit``) with its 95% interval; returns a data URI.

    For a simulation, whose truth is known, also plot the true chance of a sale of the lists shown,
    as a share of that of a perfect recommender's lists.
    """
    plt = _pyplot()
    known = [day for day in days if day["truth"]]
    figure, grid = plt.subplots(
        2 if known else 1,
        1,
        figsize=(9.5, 5.4 if known else 3.6),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    axes = grid[0, 0]
    x = [day["day"] for day in days]
    low, high = [day["low"] for day in days], [day["high"] for day in days]
    axes.fill_between(x, low, high, color=BLUE, alpha=0.15, lw=0, label="95% interval")
    axes.plot(x, [day["rate"] for day in days], color=BLUE, marker="o", ms=3.5, label="live")
    axes.set_ylabel("share of answers", fontsize=9)
    axes.legend(loc="lower left", frameon=False, fontsize=8, ncols=2)
    if known:
        share = [d["truth"]["chance_of_sale"] / d["truth"]["perfect_chance"] for d in known]
        grid[1, 0].plot([d["day"] for d in known], share, color=GREEN, marker="o", ms=3.5)
        grid[1, 0].set_ylabel("true chance of a sale,\nof a perfect list's", fontsize=9)
    for place, each in enumerate(grid.flat):
        each.set_ylim(bottom=0)
        _draw_marks(each, marks, labels=not place)
    grid[-1, 0].set_xlabel(unit)
    grid[-1, 0].xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    return _as_data_uri(figure)


def draw_drift(results: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]]) -> str:
    """Plot drift statistics divided by their thresholds; returns a data URI, "" without results.

    Plotted are those of embeddings, scores and live quality, and all that drifted at least once.
    """
    plt = _pyplot()
    known = [r for r in results if r["value"] is not None and r["threshold"]]
    subjects = choose_subjects(known)
    if not subjects:
        return ""
    columns = 2
    rows = -(-len(subjects) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(9.5, 1.7 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, subject in zip(grid.flat, subjects, strict=False):
        own = [r for r in known if r["subject"] == subject]
        x = [r["day"] for r in own]
        y = [max(r["value"] / r["threshold"], 0.0) for r in own]
        axes.plot(x, y, color=GREY, lw=1)
        for state, colour, marker in (("ok", BLUE, "o"), ("drift", ORANGE, "D")):
            at = [i for i, r in enumerate(own) if r["state"] == state]
            axes.plot([x[i] for i in at], [y[i] for i in at], marker, color=colour, ms=4)
        axes.axhline(1.0, color="black", lw=0.8, ls="--")
        axes.set_title(subject, fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        _draw_marks(axes, marks, labels=False)
    for axes in list(grid.flat)[len(subjects) :]:
        axes.set_visible(False)
    figure.supylabel("value ÷ threshold", fontsize=9)
    return _as_data_uri(figure)


def choose_subjects(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the results to plot: embeddings, scores and live quality first."""
    first = ("query-embedding", "listing-embedding", "scores", "live:purchase-rate")
    drifted = {r["subject"] for r in results if r["state"] == "drift"}
    names = {r["subject"] for r in results}
    plotted = {name for name in names if name.startswith(first)} | drifted

    def order(name: str) -> tuple[int, str]:
        return next((i for i, start in enumerate(first) if name.startswith(start)), 9), name

    return sorted(plotted, key=order)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _draw_marks(axes: Any, marks: Sequence[Mapping[str, Any]], labels: bool = True) -> None:
    top = axes.get_ylim()[1]
    for place, mark in enumerate(marks):
        colour = MARK_COLOURS.get(mark["kind"], GREY)
        axes.axvline(mark["day"], color=colour, lw=1.2, ls=":")
        if labels:
            axes.annotate(
                mark["label"],
                (mark["day"], top * (1.0 - 0.09 * (place % 4))),
                xytext=(4, -2),
                textcoords="offset points",
                fontsize=8,
                color=colour,
                va="top",
            )


def _as_data_uri(figure: Any) -> str:
    import matplotlib.pyplot as plt

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
