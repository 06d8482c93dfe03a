"""The report's figures: methods, slices and groups of inputs with their 95% intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.evaluation.results import Interval, LeakResults, Method, Results
from components.evaluation.settings import EvaluationSettings

MODEL_COLOUR = "#0b5cad"
OTHER_COLOUR = "#8a6d3b"
CHAMPION_COLOUR = "#5b3f8c"
INK = "#1f2933"
COLOURS = {"model": MODEL_COLOUR, "champion": CHAMPION_COLOUR, "baseline": OTHER_COLOUR}
MARKS = {"model": "D", "champion": "s", "baseline": "o"}


def draw_pictures(folder: Path, settings: EvaluationSettings, results: Results) -> list[Path]:
    """Draw the figures of methods, slices and groups of inputs into a new folder.

    Returns:
        Their paths, in the order of the report.
    """
    folder.mkdir()
    pictures = [_draw_methods(folder / "methods.png", settings, results)]
    if results.slices:
        pictures.append(_draw_slices(folder / "slices.png", settings, results))
    if results.leaks.groups:
        pictures.append(_draw_leaks(folder / "leaks.png", settings, results.leaks))
    return pictures


def _draw_methods(path: Path, settings: EvaluationSettings, results: Results) -> Path:
    ran = [m for m in results.methods if not m.not_run]
    ran.sort(key=lambda m: _value(m.metrics.get(settings.metric)))
    figure = _figure(10.0, 1.3 + 0.42 * len(ran))
    metrics = dict.fromkeys((settings.metric, settings.guard_metric))  # they may be the same
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        for y, method in enumerate(ran):
            _bar(panel, method.metrics.get(metric), y, method.kind)
        model = next((m.metrics.get(metric) for m in ran if m.kind == "model"), None)
        if model is not None and model.value is not None:
            panel.axvline(model.value, color=MODEL_COLOUR, linewidth=0.8, linestyle=":")
        panel.set_title(metric.replace("_", " "), fontsize=11, color=INK, loc="left")
        panel.set_xlim(left=0)
        _tidy(panel, len(ran))
    panels[0].set_yticks(range(len(ran)), [m.name for m in ran], fontsize=10)
    for label, method in zip(panels[0].get_yticklabels(), ran, strict=True):
        label.set_color(COLOURS[method.kind])
    return _save(figure, path)


def _draw_slices(path: Path, settings: EvaluationSettings, results: Results) -> Path:
    best = results.best_baseline(settings.metric)
    compared = [m for m in results.methods if m.kind == "model" or m is best]
    slices = [s for s in results.slices if s.n][::-1]
    figure = _figure(10.0, 1.2 + 0.36 * len(slices))
    panel = figure.subplots()
    for y, part in enumerate(slices):
        for offset, method in zip((0.13, -0.13), compared, strict=False):
            _bar(panel, part.metrics.get(method.name), y + offset, method.kind)
    panel.set_yticks(range(len(slices)), [f"{s.name}  (n={s.n:,})" for s in slices], fontsize=9)
    panel.set_title(settings.metric.replace("_", " "), fontsize=11, color=INK, loc="left")
    panel.set_xlim(left=0)
    _tidy(panel, len(slices))
    _legend(panel, compared)
    return _save(figure, path)


def _draw_leaks(path: Path, settings: EvaluationSettings, leaks: LeakResults) -> Path:
    groups = sorted(leaks.groups, key=lambda group: _value(group.fall))
    figure = _figure(10.0, 1.2 + 0.3 * len(groups))
    panel = figure.subplots()
    for y, group in enumerate(groups):
        fall = group.fall
        if fall.value is None or fall.low is None or fall.high is None:
            continue
        colour = OTHER_COLOUR if group.limited else MODEL_COLOUR
        panel.barh(y, fall.value, height=0.6, color=colour)
        panel.plot([fall.low, fall.high], [y, y], color=INK, linewidth=1.2)
    if leaks.gain.value is not None and leaks.gain.value > 0:
        limit = settings.leaks.max_share * leaks.gain.value
        panel.axvline(limit, color=OTHER_COLOUR, linewidth=1.0, linestyle=":")
    panel.set_yticks(range(len(groups)), [group.name for group in groups], fontsize=9)
    title = f"fall of {settings.metric.replace('_', ' ')} without each group of inputs"
    panel.set_title(title, fontsize=11, color=INK, loc="left")
    _tidy(panel, len(groups))
    return _save(figure, path)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _bar(panel: Any, interval: Interval | None, y: float, kind: str) -> None:
    if interval is None or interval.value is None:
        return
    low, high = interval.low or interval.value, interval.high or interval.value
    panel.plot([low, high], [y, y], color=COLOURS[kind], linewidth=2.2, solid_capstyle="butt")
    mark = {"color": COLOURS[kind], "markersize": 6.5, "clip_on": False, "zorder": 3}
    panel.plot([interval.value], [y], MARKS[kind], **mark)


def _legend(panel: Any, methods: Sequence[Method]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[m.kind], marker=MARKS[m.kind], label=m.name) for m in methods
    ]
    panel.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
    )


def _tidy(panel: Any, rows: int) -> None:
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)
    panel.tick_params(axis="x", labelsize=9)
    panel.set_ylim(-0.6, rows - 0.4)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120, facecolor="white")
    return path


def _value(interval: Interval | None) -> float:
    return interval.value if interval is not None and interval.value is not None else -1.0
