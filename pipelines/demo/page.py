"""The demo's page: what happened, day by day, with pictures."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refit.files import write_atomically

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8a8a8a"
"""From the Okabe-Ito palette, which colour-blind readers can tell apart."""

MARK_COLOURS = {"change": ORANGE, "alert": "#CC79A7", "refit": GREEN, "swap": BLUE}


def write_page(summary: Mapping[str, Any], path: Path) -> None:
    """Write the story of ``summary`` as one self-contained HTML page."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        summary=summary,
        quality_picture=draw_quality(summary["days"], summary["marks"]),
        drift_picture=draw_drift(summary["drift"], summary["marks"]),
    )
    with write_atomically(path) as staging:
        staging.write_text(html, encoding="utf-8")


def draw_quality(days: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]]) -> str:
    """Live quality by day with its 95% interval, as a data URI."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9.5, 3.6), layout="constrained")
    x = [day["day"] for day in days]
    axes.fill_between(
        x,
        [day["low"] for day in days],
        [day["high"] for day in days],
        color=BLUE,
        alpha=0.15,
        lw=0,
        label="95% interval",
    )
    axes.plot(x, [day["rate"] for day in days], color=BLUE, marker="o", ms=3.5, label="live")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("day")
    axes.set_ylabel("answers that led to a purchase")
    _draw_marks(axes, marks)
    axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
    return _as_data_uri(figure)


def draw_drift(readings: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]]) -> str:
    """Each drift statistic over its threshold by day, as a data URI; empty without readings."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    known = [r for r in readings if r["value"] is not None and r["threshold"]]
    subjects = sorted({reading["subject"] for reading in known})
    if not subjects:
        return ""
    columns = 2
    rows = -(-len(subjects) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(9.5, 1.9 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, subject in zip(grid.flat, subjects, strict=False):
        own = [r for r in known if r["subject"] == subject]
        x = [r["day"] for r in own]
        y = [r["value"] / r["threshold"] for r in own]
        axes.plot(x, y, color=GREY, lw=1)
        for state, colour, marker in (("ok", BLUE, "o"), ("drift", ORANGE, "D")):
            at = [i for i, r in enumerate(own) if r["state"] == state]
            axes.plot([x[i] for i in at], [y[i] for i in at], marker, color=colour, ms=4)
        axes.axhline(1.0, color="black", lw=0.8, ls="--")
        axes.set_title(subject, fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        _draw_marks(axes, marks, labels=False)
    for axes in list(grid.flat)[len(subjects) :]:
        axes.set_visible(False)
    figure.supylabel("value ÷ threshold", fontsize=9)
    return _as_data_uri(figure)


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
