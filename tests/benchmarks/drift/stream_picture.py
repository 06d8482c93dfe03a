"""The picture of the real streams: what frozen and refitted models find, and the alerts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refit.files import write_atomically
from tests.benchmarks.drift.streams import StreamRun, choose_models

SMOOTHED = 5
"""Windows; the thin lines are single ones."""
FROZEN, FRESH, POLICY, ALERT = "#8a8f98", "#2a78d6", "#1c8a5a", "#c0392b"


def draw_streams(runs: Sequence[StreamRun], path: Path) -> None:
    """Draw a panel for each stream: recall by window, real falls, alerts and refits.

    Args:
        runs: The streams.
        path: The SVG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), 1, squeeze=False)[:, 0]
    for axis, run in zip(axes, runs, strict=True):
        _draw_stream(axis, run)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=3, loc="outside lower center")
    with write_atomically(path) as staging:
        figure.savefig(staging, format="svg", metadata={"Date": None})


def _draw_stream(axis: Any, run: StreamRun) -> None:
    stream, models = run.stream, run.models
    days = [stream.begin(window) for window in run.windows]
    served = dict(zip(run.windows, choose_models(run.windows, run.refits), strict=True))
    lines = {
        "first model, never refitted": (
            FROZEN,
            [models.score(stream.first, w).mean() for w in run.windows],
        ),
        "refitted before each window": (FRESH, [models.score(w, w).mean() for w in run.windows]),
        "policy": (POLICY, [models.score(served[w], w).mean() for w in run.windows]),
    }
    for name, (colour, values) in lines.items():
        axis.plot(days, values, color=colour, lw=0.6, alpha=0.35)
        axis.plot(days, _smooth(values), color=colour, lw=1.8, label=name)
    top = max(max(values) for _, values in lines.values())
    real = [days[i] for i, fall in enumerate(run.falls, 1) if fall.is_real]
    alerts = [day for day, each in zip(days, run.frozen, strict=True) if each.is_raised]
    refits = [stream.begin(window) for window in run.refits]
    marks = (
        ("window with a real fall of the first model", real, FROZEN, "s", 1.06),
        ("alert about the first model", alerts, ALERT, "v", 1.13),
        ("refit by the policy", refits, POLICY, "^", 1.20),
    )
    for name, at, colour, marker, height in marks:
        axis.plot(at, [height * top] * len(at), marker, color=colour, ms=4, ls="", label=name)
    axis.set_title(f"{stream.name}, windows of {stream.days} days", loc="left", fontsize=11)
    axis.set(ylim=(0, 1.27 * top), ylabel="recall at 10")
    axis.spines[["top", "right"]].set_visible(False)


def _smooth(values: Sequence[float]) -> list[float]:
    """The means of some windows around each."""
    reach = SMOOTHED // 2
    return [float(np.mean(values[max(i - reach, 0) : i + reach + 1])) for i in range(len(values))]
