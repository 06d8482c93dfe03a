"""The training curve."""

from collections.abc import Sequence
from pathlib import Path

from refit.model import Epoch


def draw_curve(epochs: Sequence[Epoch], chosen: int, recall_at: int, path: Path) -> None:
    """Draw loss and validation recall by epoch, with the chosen epoch marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.subplots()
    right = left.twinx()
    numbers = [epoch.number for epoch in epochs]
    recalls = [float("nan") if epoch.recall is None else epoch.recall for epoch in epochs]
    (loss,) = left.plot(numbers, [e.loss for e in epochs], "o-", color="#7a7a7a")
    (recall,) = right.plot(numbers, recalls, "s-", color="#0b6e4f", linewidth=2)
    mark = left.axvline(chosen, color="#c44536", linestyle="--", linewidth=1.5)
    left.set_xlabel("epoch")
    left.set_ylabel("training loss")
    right.set_ylabel(f"validation recall@{recall_at}")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.grid(axis="x", alpha=0.3)
    best = recalls[numbers.index(chosen)]
    searched = best == best
    left.set_title(
        f"Recall@{recall_at} {best:.4f} at epoch {chosen}, the chosen one"
        if searched
        else f"{chosen} epochs, as set; validation recall was not measured"
    )
    figure.legend(
        [loss, recall, mark],
        ["training loss", f"validation recall@{recall_at}", "chosen epoch"],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    figure.savefig(path, dpi=120)
