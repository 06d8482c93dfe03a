"""The figures of a study's page."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.training.tuning.results import TriedSettings, TuneResults
from components.training.tuning.space import short_name, show_value
from components.training.tuning.study import FAILED, MEASURED, OUT_OF_TIME, PRUNED

COLOURS = {MEASURED: "#0b5cad", PRUNED: "#9aa5b1", OUT_OF_TIME: "#8a6d3b", FAILED: "#c44536"}
BEST, INK = "#0b6e4f", "#1f2933"
MOST_AXES = 10
"""Settings of the parallel coordinates, the most important ones."""


def draw_pictures(folder: Path, results: TuneResults) -> list[tuple[Path, str]]:
    """Draw the figures into a new folder.

    Returns:
        Each with what it shows, in the order of the page.
    """
    folder.mkdir()
    drawn = [
        (
            _draw_history(folder / "history.png", results),
            "Validation recall by trial, and the best so far",
        )
    ]
    if results.importance:
        drawn.append(
            (
                _draw_importance(folder / "importance.png", results),
                "How much each setting decides which trials are among the best (PED-ANOVA)",
            )
        )
    drawn += [
        (
            _draw_parallel(folder / "parallel.png", results),
            "Every measured trial as a line through its settings, the best in green",
        ),
        (_draw_cost(folder / "cost.png", results), "Seconds that each trial took"),
    ]
    return drawn


def _draw_history(path: Path, results: TuneResults) -> Path:
    figure = _figure(10.0, 4.0)
    panel = figure.subplots()
    trials = [trial for trial in results.trials if trial.recall is not None]
    for outcome in (PRUNED, OUT_OF_TIME, MEASURED):
        some = [trial for trial in trials if trial.outcome == outcome]
        face = COLOURS[outcome] if outcome == MEASURED else "none"
        style = {"markerfacecolor": face, "color": COLOURS[outcome], "markersize": 5.5}
        panel.plot([t.number for t in some], [t.recall for t in some], "o", label=outcome, **style)
    measured = [trial for trial in trials if trial.outcome == MEASURED]
    so_far, best = [], -math.inf
    for trial in measured:
        best = max(best, trial.recall or 0.0)
        so_far.append(best)
    numbers = [trial.number for trial in measured]
    panel.step(numbers, so_far, where="post", color=BEST, linewidth=1.6, label="best so far")
    if results.own:
        own = results.own.recall
        panel.axhline(own, color=INK, linewidth=0.9, linestyle=":", label="own settings")
    panel.set_xlabel("trial")
    panel.set_ylabel(f"validation recall@{results.recall_at}")
    _tidy(panel, "y")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return _save(figure, path)


def _draw_importance(path: Path, results: TuneResults) -> Path:
    shares = sorted(results.importance.items(), key=lambda each: each[1])
    figure = _figure(10.0, 1.0 + 0.32 * len(shares))
    panel = figure.subplots()
    panel.barh(range(len(shares)), [share for _, share in shares], color=COLOURS[MEASURED])
    panel.set_yticks(range(len(shares)), [short_name(name) for name, _ in shares], fontsize=9)
    panel.set_xlabel("share")
    panel.set_xlim(0, None)
    _tidy(panel, "x")
    return _save(figure, path)


def _draw_parallel(path: Path, results: TuneResults) -> Path:
    measured = [trial for trial in results.trials if trial.outcome == MEASURED]
    names = sorted(results.ranges, key=lambda name: -results.importance.get(name, 0.0))[:MOST_AXES]
    recalls = [trial.recall or 0.0 for trial in measured]
    axes = [_Axis.of(name, measured) for name in names]
    low, high = min(recalls), max(recalls)
    figure = _figure(10.0, 4.6)
    panel = figure.subplots()
    for trial in sorted(measured, key=lambda trial: trial is results.best):
        share = ((trial.recall or 0.0) - low) / ((high - low) or 1.0)
        heights = [axis.height(trial.values.get(axis.name)) for axis in axes]
        is_best = trial.number == results.best.number
        panel.plot(
            range(len(axes) + 1),
            [*heights, share],
            color=BEST if is_best else COLOURS[MEASURED],
            alpha=1.0 if is_best else 0.1 + 0.5 * share,
            linewidth=2.2 if is_best else 1.1,
        )
    for x, axis in enumerate(axes):
        panel.axvline(x, color="#cbd2d9", linewidth=0.8, zorder=0)
        for height, text in axis.marks:
            panel.annotate(text, (x, height), fontsize=7, xytext=(3, 0), textcoords="offset points")
    panel.axvline(len(axes), color=INK, linewidth=0.8, zorder=0)
    for height, recall in ((0.0, low), (1.0, high)):
        panel.annotate(
            f"{recall:.4f}", (len(axes), height), fontsize=8, xytext=(3, 0),
            textcoords="offset points",
        )  # fmt: skip
    labels = [*(short_name(name) for name in names), f"recall@{results.recall_at}"]
    panel.set_xticks(range(len(labels)), labels, fontsize=8, rotation=25, ha="right")
    panel.set_yticks([])
    panel.set_xlim(-0.1, len(axes) + 0.6)
    for side in ("top", "right", "left", "bottom"):
        panel.spines[side].set_visible(False)
    return _save(figure, path)


def _draw_cost(path: Path, results: TuneResults) -> Path:
    figure = _figure(10.0, 3.4)
    panel = figure.subplots()
    for outcome in COLOURS:
        some = [trial for trial in results.trials if trial.outcome == outcome]
        if some:
            numbers, seconds = [t.number for t in some], [t.seconds for t in some]
            panel.bar(numbers, seconds, color=COLOURS[outcome], label=outcome)
    panel.set_xlabel("trial")
    panel.set_ylabel("seconds")
    _tidy(panel, "y")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return _save(figure, path)


class _Axis:
    """One setting of the parallel coordinates: where a value stands between 0 and 1.

    Numbers stand by their size, or by its logarithm where the largest is 20 times the smallest;
    everything else by its place in the order.
    """

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name = name
        self._values = sorted(set(values), key=lambda value: (str(type(value)), value))
        numbers = [v for v in self._values if isinstance(v, int | float)]
        self._by_size = len(numbers) == len(self._values) > 4
        self._by_ratio = self._by_size and numbers[0] > 0 and numbers[-1] >= 20 * numbers[0]

    @classmethod
    def of(cls, name: str, trials: Sequence[TriedSettings]) -> "_Axis":
        return cls(name, [trial.values[name] for trial in trials if name in trial.values])

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Heights with the values that stand there."""
        shown = self._values
        if self._by_size:
            shown = [self._values[0], self._values[-1]]
        return [(self.height(value), show_value(value)) for value in shown]

    def height(self, value: Any) -> float:
        """Where a value stands; NaN where it has none."""
        if value not in self._values:
            return math.nan
        if len(self._values) == 1:
            return 0.5
        if not self._by_size:
            return self._values.index(value) / (len(self._values) - 1)
        low, high, at = (self._scaled(v) for v in (self._values[0], self._values[-1], value))
        return (at - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._by_ratio else float(value)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _tidy(panel: Any, axis: str) -> None:
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.grid(axis=axis, color="#e4e7eb", linewidth=0.8)
    panel.set_axisbelow(True)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120, facecolor="white")
    return path
