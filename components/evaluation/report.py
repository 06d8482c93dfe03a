"""The report as one HTML page and as Markdown: the data's health, the verdict, the rest."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.examples import Example
from components.evaluation.leak_settings import LeakSettings
from components.evaluation.power import chance_of_equal, detectable
from components.evaluation.results import CHAMPION, GroupWorth, Interval, Method, Results
from components.evaluation.settings import EvaluationSettings
from refit.features import FeaturesManifest
from refit.files import write_json
from refit.health import HealthCheck
from refit.verdict import Check, Verdict

TEMPLATES = Path(__file__).parent
HEALTH_FILE = "health.json"
"""What the report says of the data's health, for the command line."""
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
    features: FeaturesManifest,
) -> None:
    """Write report.html, a page without external resources, report.md and health.json."""
    environment = make_environment()
    best = results.best_baseline(settings.metric)
    health = collect_health(features)
    page: dict[str, Any] = {
        "settings": settings,
        "results": results,
        "verdict": verdict,
        "best": best,
        "model": results.methods[0],
        "metrics": settings.metric_names,
        "summary": summarise(settings, results, verdict),
        "tests": describe_tests(settings, results),
        "compared": [m.name for m in results.of_kind("champion")],
        "examples": examples,
        "dataset": features.dataset,
        "health": health,
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
    write_json(folder / HEALTH_FILE, [check.model_dump(mode="json") for check in health])


def collect_health(features: FeaturesManifest) -> tuple[HealthCheck, ...]:
    """The lines of the data's health page, and what the features step assumed."""
    return (*(features.dataset.health if features.dataset else ()), *features.health)


def make_environment() -> Any:
    """The environment of the report's templates, with the filters that show measurements."""
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
        "percent": percent,
        "interval": interval,
        "bound": bound,
        "share": share,
        "limit": limit,
        "plain": plain,
        "parameter": parameter,
    }
    return environment


def summarise(settings: EvaluationSettings, results: Results, verdict: Verdict) -> str:
    """The verdict in plain words."""
    if results.kind == "baseline":
        return _summarise_baseline(verdict)
    if verdict.outcome == "passed":
        than = "better than every baseline"
        champions = results.of_kind("champion")
        if champions:
            names = " and ".join(_the(method) for method in champions)
            than += f", and not worse than {names} by more than {settings.champion_tolerance:.2g}"
            than += " of its value"
        return f"The model is shown to be {than}; every other check passed."
    if verdict.outcome == "cannot tell":
        return (
            "Nothing speaks against the model, but the test is too small to tell. "
            "It is not promoted."
        )
    decided = [check for check in verdict.checks if check.failure and not check.cannot_tell]
    checks = f"{len(decided)} check{'s' * (len(decided) != 1)}"
    return f"The model fails {checks} for reasons that more data would not change."


def _summarise_baseline(verdict: Verdict) -> str:
    what = (
        "This is no model: popularity in the context, to be served as itself until a model passes."
    )
    if verdict.passed:
        return f"{what} It was not asked to beat the baselines; every other check passed."
    return f"{what} It is not served."


@dataclass(frozen=True)
class PairedTest:
    """What the comparison with one method can tell, on the primary metric.

    Attributes:
        reference: The method's value on the compared queries.
        detectable: The smallest gain that is found with ``settings.power``.
        margin: The tolerated loss; 0 where the model must be better.
        equal: The chance that an equal model passes; None where it must be better.
        seen: Queries that the method was trained or tuned on, and that are not compared.
    """

    name: str
    queries: int
    reference: float | None
    detectable: float | None
    margin: float
    equal: float | None
    seen: int


def describe_tests(settings: EvaluationSettings, results: Results) -> list[PairedTest]:
    """The power of the comparisons with the best baseline and with the champions."""
    best = results.best_baseline(settings.metric)
    tests = []
    for method in (*([best] if best else []), *results.of_kind("champion")):
        n = results.n_queries if method.n_compared is None else method.n_compared
        reference = (method.compared or method.metrics).get(settings.metric, Interval()).value
        gain = method.gain.get(settings.metric, Interval())
        is_champion = method.kind == "champion"
        margin = settings.champion_tolerance * (reference or 0.0) if is_champion else 0.0
        tests.append(
            PairedTest(
                name=method.name,
                queries=n,
                reference=reference,
                detectable=detectable(gain, settings.power),
                margin=margin,
                equal=chance_of_equal(gain, margin) if is_champion else None,
                seen=results.n_queries - n,
            )
        )
    return tests


def _the(method: Method) -> str:
    return f"the {method.name}" if method.name == CHAMPION else method.name


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


def percent(value: float | None) -> str:
    """A share in percent."""
    return "not measured" if value is None else f"{value:.1%}"


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
    if group.kind not in ("item", "user"):
        return "none: counted by Refit"
    is_listing = group.name.removeprefix("items.") in settings.listing_columns
    return "none: part of the listing" if is_listing else "none: in versions, as of the moment"


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
