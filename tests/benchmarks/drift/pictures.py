"""The picture of the benches: how evidence grows in calm markets, and after a change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refit.files import write_atomically
from tests.benchmarks.drift.calm import CalmRun
from tests.benchmarks.drift.harmful import CALM_DAYS, HarmfulRun

_LEAST, _MOST = 1e-3, 1e4
_COLOURS = ("#2a78d6", "#d1662a", "#7a3fb0", "#1c8a5a")


def draw_evidence(calm: Sequence[CalmRun], harmful: Sequence[HarmfulRun], path: Path) -> None:
    """Draw the evidence by day as a share of what an alert needs.

    Args:
        calm: Markets without drift; one grey line each.
        harmful: Markets with a change; one line each, a colour for each change.
        path: The SVG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for market in calm:
        left.plot(range(1, len(market.evidence) + 1), _clip(market.evidence), color="#8a8f98", lw=1)
    left.set(
        title=f"{len(calm)} calm markets", xlabel="day", ylabel="evidence / what an alert needs"
    )
    names = list(dict.fromkeys(run.name for run in harmful))
    for name, colour in zip(names, _COLOURS, strict=False):
        for i, run in enumerate(run for run in harmful if run.name == name):
            days = range(1 - CALM_DAYS, len(run.evidence) + 1 - CALM_DAYS)
            label = name if i == 0 else None
            right.plot(days, _clip(run.evidence), color=colour, lw=1, label=label)
    right.axvline(0.5, color="#8a8f98", lw=1, ls=":")
    right.set(title=f"{len(harmful)} markets that change", xlabel="days since the change began")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.axhline(1, color="#c0392b", lw=1.5)
        axis.set_yscale("log")
        axis.set_ylim(_LEAST, _MOST * 2)
        axis.spines[["top", "right"]].set_visible(False)
    with write_atomically(path) as staging:
        figure.savefig(staging, format="svg", metadata={"Date": None})


def _clip(evidence: Sequence[float]) -> list[Any]:
    return [min(max(share, _LEAST), _MOST) for share in evidence]
