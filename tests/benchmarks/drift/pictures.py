"""The picture of the benches: how evidence grows in calm markets, and after a change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refit.files import write_atomically
from tests.benchmarks.drift.harmful import CALM_DAYS

_LEAST, _MOST = 1e-3, 1e4
_COLOURS = ("#2a78d6", "#d1662a", "#7a3fb0", "#1c8a5a")


def draw_evidence(
    calm: Sequence[Sequence[float]], harmful: Mapping[str, Sequence[Sequence[float]]], path: Path
) -> None:
    """Draw the evidence by day as a share of what an alert needs.

    Args:
        calm: Of markets without drift; one grey line each.
        harmful: Of markets with a change, by change; one line each, a colour for each change.
        path: The SVG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for market in calm:
        left.plot(range(1, len(market) + 1), _clip(market), color="#8a8f98", lw=1)
    left.set(title=f"{len(calm)} calm markets", xlabel="day")
    left.set_ylabel("evidence / what an alert needs")
    for (name, markets), colour in zip(harmful.items(), _COLOURS, strict=False):
        for i, market in enumerate(markets):
            days = range(1 - CALM_DAYS, len(market) + 1 - CALM_DAYS)
            right.plot(days, _clip(market), color=colour, lw=1, label=None if i else name)
    right.axvline(0.5, color="#8a8f98", lw=1, ls=":")
    right.set(
        title=f"{sum(map(len, harmful.values()))} markets that change",
        xlabel="days since the change began",
    )
    if harmful:
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
