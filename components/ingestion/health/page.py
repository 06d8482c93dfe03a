"""The health page as files: health.html for people, health.json for programs."""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

from refit.dataset import Split
from refit.files import write_json
from refit.health import HealthCheck

HEALTH_FILES = ("health.html", "health.json")
TEMPLATES = Path(__file__).parent
BAR_COLOURS = {"train": "#0b5cad", "validation": "#8a6d3b", "test": "#0f6b3d"}
INK = "#1f2933"
MOST_BARS = 400


def write_health(
    folder: Path,
    source: str,
    split: Split,
    days: Mapping[date, int],
    checks: Sequence[HealthCheck],
) -> None:
    """Write health.html, a page without external resources, and health.json.

    Args:
        folder: The dataset folder.
        source: Name of the source.
        split: The split by time.
        days: The number of events of each day that has any, in order.
        checks: The lines of the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["limits"] = describe_limits
    page = environment.get_template("page.html").render(
        source=source,
        split=split,
        n_events=sum(days.values()),
        n_days=len(days),
        checks=checks,
        picture=base64.b64encode(_draw_days(days, split).encode()).decode(),
    )
    (folder / HEALTH_FILES[0]).write_text(page, encoding="utf-8")
    write_json(
        folder / HEALTH_FILES[1],
        {
            "source": source,
            "split": split.model_dump(mode="json"),
            "events_per_day": {day.isoformat(): n for day, n in days.items()},
            "checks": [c.model_dump(mode="json") | {"state": c.state} for c in checks],
        },
    )


def _draw_days(days: Mapping[date, int], split: Split) -> str:
    """The events per day, coloured by split, as SVG; of a long time, the mean of several days."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    first, last = min(days), max(days)
    width = -(-((last - first).days + 1) // MOST_BARS)
    bars: dict[str, tuple[list[date], list[float]]] = {part: ([], []) for part in BAR_COLOURS}
    for start in range(0, (last - first).days + 1, width):
        begin = first + timedelta(days=start)
        total = sum(days.get(begin + timedelta(days=i), 0) for i in range(width))
        at, heights = bars[_find_part(begin, split)]
        at.append(begin)
        heights.append(total / width)
    figure = Figure(figsize=(10.0, 2.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for part, (at, heights) in bars.items():
        if at:
            axes.bar(at, heights, width, color=BAR_COLOURS[part], label=part, align="edge")
    of_days = "day" if width == 1 else f"day (means of {width} days)"
    axes.set_title(f"Events per {of_days}, by split", fontsize=11, color=INK, loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=9)
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlim(first, last + timedelta(days=width))
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=9, length=0)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "health"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _find_part(day: date, split: Split) -> str:
    if day >= split.test_start.date():
        return "test"
    return "validation" if day >= split.validation_start.date() else "train"


def describe_limits(check: HealthCheck) -> str:
    """The thresholds of a line in words; empty where it has none."""
    limits = {"look": check.look, "stop": check.stop}
    return ", ".join(
        f"{name} from {value:g}" for name, value in limits.items() if value is not None
    )
