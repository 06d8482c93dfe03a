"""The report as one HTML page, the verdict first, and as Markdown."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.evaluation.examples import Example
from components.evaluation.leak_settings import LeakSettings
from components.evaluation.results import GroupWorth, Interval, Results
from components.evaluation.settings import EvaluationSettings
from refit.dataset import DatasetManifest
from refit.verdict import Check, Verdict

TEMPLATES = Path(__file__).parent
PICTURE_TEXTS = {
    "methods.png": "Every method with its 95% interval, on the primary metric and the guard metric",
    "slices.png": "The model and the best baseline on parts of the test queries, with intervals",
    "leaks.png": "The fall of the metric without each group of inputs; dotted: the limit",
}


def write_report(
    folder: Path,
    settings: EvaluationSettings,
    results: Results,
    verdict: Verdict,
    examples: Sequence[Example],
    pictures: Sequence[Path],
    dataset: DatasetManifest | None,
) -> None:
    """Write report.html, a page without external resources, and report.md."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: (name or "").endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "rate": rate,
        "short": short,
        "interval": interval,
        "bound": bound,
        "share": share,
        "limit": limit,
        "plain": plain,
        "parameter": parameter,
    }
    best = results.best_baseline(settings.metric)
    page: dict[str, Any] = {
        "settings": settings,
        "results": results,
        "verdict": verdict,
        "best": best,
        "model": results.methods[0],
        "metrics": [f"{m}_at_{k}" for m in ("hit_rate", "ndcg", "mrr") for k in settings.cuts],
        "examples": examples,
        "dataset": dataset,
        "pictures": [
            {
                "stem": path.stem,
                "name": f"pictures/{path.name}",
                "text": PICTURE_TEXTS[path.name],
                "data": base64.b64encode(path.read_bytes()).decode(),
            }
            for path in pictures
        ],
    }
    for suffix in ("html", "md"):
        text = environment.get_template(f"report_template.{suffix}").render(page)
        (folder / f"report.{suffix}").write_text(text, encoding="utf-8")


def number(value: float | None) -> str:
    """A measurement in few digits, or ``not measured``."""
    if value is None:
        return "not measured"
    if value == int(value) and abs(value) < 1e15 and (abs(value) >= 10 or value == 0):
        return f"{int(value):,}"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 0.001:
        return f"{value:.4f}" if size < 1 else f"{value:.3g}"
    return f"{value:.1e}"


def rate(value: float | None) -> str:
    """A metric or a difference of metrics, with four decimals."""
    return "not measured" if value is None else f"{value:.4f}"


def short(value: float | None) -> str:
    """As ``rate``, without the leading zero: for the ends of intervals."""
    return rate(value).replace("0.", ".", 1)


def interval(value: Interval | None) -> str:
    """A measurement with its interval, or ``not measured``."""
    if value is None or value.value is None:
        return "not measured"
    if value.low is None or value.high is None:
        return rate(value.value)
    return f"{rate(value.value)} ({rate(value.low)} to {rate(value.high)})"


def share(value: float | None) -> str:
    """A share in percent, or ``not measured``."""
    return "not measured" if value is None else f"{value:.1%}"


def limit(group: GroupWorth, settings: LeakSettings) -> str:
    """What a group of inputs may carry, in words."""
    if group.limited:
        return share(settings.max_share)
    if group.name in settings.intended:
        return "none: named as intended"
    return "none: part of the listing" if group.kind == "item" else "none: counted by Refit"


def bound(check: Check) -> str:
    """The bounds of a check in words."""
    bounds = []
    if check.at_least is not None:
        bounds.append(f"at least {number(check.at_least)}")
    elif check.above is not None:
        bounds.append(f"above {number(check.above)}")
    if check.at_most is not None:
        bounds.append(f"at most {number(check.at_most)}")
    return " and ".join(bounds)


def parameter(value: Any) -> str:
    """A value that tuning chose: a string, a number or a list of them."""
    if isinstance(value, list | tuple):
        return ", ".join(parameter(one) for one in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value) if is_number else str(value)


def plain(name: str) -> str:
    """A metric's name in words: ``hit_rate_at_10`` is ``hit rate at 10``."""
    return name.replace("_", " ")
