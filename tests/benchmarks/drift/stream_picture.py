"""The picture of the real streams: what frozen and refitted models find, and the alerts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refit.files import write_atomically
from tests.benchmarks.drift.streams import StreamRun, choose_models

FROZEN, FRESH, POLICY, ALERT = "#8a8f98", "#2a78d6", "#1c8a5a", "#c0392b"


def draw_streams(runs: Sequence[StreamRun], path: Path) -> None:
    """Draw a panel for each stream: recall by window, real falls, alerts and refits.

    Args:
        runs: The streams.
        path: The SVG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3 * len(runs)), layout="constrained")
    for axis, run in zip(figure.subplots(len(runs), 1, squeeze=False)[:, 0], runs, strict=True):
        _draw_stream(axis, run)
    with write_atomically(path) as staging:
        figure.savefig(staging, format="svg", metadata={"Date": None})


def _draw_stream(axis: Any, run: StreamRun) -> None:
    stream, models = run.stream, run.models
    days = [stream.begin(window) for window in run.windows]
    served = dict(zip(run.windows, choose_models(run.windows, run.refits), strict=True))
    lines = {
        "first model": (FROZEN, [models.score(stream.first, w).mean() for w in run.windows]),
        "refitted before each window": (FRESH, [models.score(w, w).mean() for w in run.windows]),
        "policy": (POLICY, [models.score(served[w], w).mean() for w in run.windows]),
    }
    for name, (colour, values) in lines.items():
        axis.plot(days, values, color=colour, lw=1.4, label=name)
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
    axis.set_title(f"{stream.name}, windows of {stream.days} days", loc="left")
    axis.set(ylim=(0, 1.27 * top), ylabel="recall at 10")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
