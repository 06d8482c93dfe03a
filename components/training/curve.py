"""The training curve."""

from collections.abc import Sequence
from pathlib import Path

from refit.model import TowerPair

COLOURS = ("#0b6e4f", "#2d6aa3", "#8a5a00", "#7b4b94")


def draw_curve(
    pairs: Sequence[TowerPair], joined_recall: float | None, recall_at: int, path: Path
) -> None:
    """Draw loss and validation recall by epoch, with the chosen epoch marked.

    Args:
        pairs: Each pair of towers; the loss is the first one's.
        joined_recall: Of all pairs together, drawn as a line.
        recall_at: The K of the recall.
        path: Of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.subplots()
    right = left.twinx()
    first = pairs[0]
    (loss,) = left.plot(
        [e.number for e in first.epochs], [e.loss for e in first.epochs], "o-", color="#7a7a7a"
    )
    shown, labels = [loss], ["training loss"]
    for i, pair in enumerate(pairs):
        recalls = [float("nan") if e.recall is None else e.recall for e in pair.epochs]
        numbers = [e.number for e in pair.epochs]
        (line,) = right.plot(numbers, recalls, "s-", color=COLOURS[i % len(COLOURS)], linewidth=2)
        shown.append(line)
        labels.append(f"validation recall@{recall_at}" + (f", pair {i + 1}" if pairs[1:] else ""))
    if joined_recall is not None:
        shown.append(right.axhline(joined_recall, color="#222222", linestyle=":", linewidth=2))
        labels.append(f"all {len(pairs)} pairs together")
    shown.append(left.axvline(first.chosen_epoch, color="#c44536", linestyle="--", linewidth=1.5))
    labels.append("chosen epoch")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss")
    right.set_ylabel(f"validation recall@{recall_at}")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.grid(axis="x", alpha=0.3)
    left.set_title(_describe(pairs, joined_recall, recall_at))
    figure.legend(shown, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def _describe(pairs: Sequence[TowerPair], joined_recall: float | None, recall_at: int) -> str:
    first = pairs[0]
    if first.recall is None:
        return f"{first.chosen_epoch} epochs, as set; validation recall was not measured"
    if joined_recall is None:
        return (
            f"Recall@{recall_at} {first.recall:.4f} at epoch {first.chosen_epoch}, the chosen one"
        )
    alone = ", ".join(f"{pair.recall or 0.0:.4f}" for pair in pairs)
    return f"Recall@{recall_at} {joined_recall:.4f} of all pairs together; alone {alone}"
