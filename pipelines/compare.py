"""Runs and bundles side by side: metrics, the settings that differ, time per step and rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.home import Home
from pipelines.local import ARGUMENTS_FILE, OUTCOME_FILE, PIPELINE_STEPS, RunOutcome, list_runs
from refit.errors import UsageError
from refit.files import read_json, write_atomically
from refit.registry import Registry
from refit.settings import Settings

METRICS_FILE = "metrics.json"
VERDICT_FILE = "verdict.json"
NO_SETTINGS = {"registry", "checkpoint_folder", "vector_store", "webhook", "reason"}
"""Parameters of a pipeline that shape no result."""
CACHED = "cached"
Cell = float | str | None
Rows = dict[str, tuple[Cell, ...]]
"""By the name of a row, one cell for each run; None where it was not measured or not set."""


class ComparedRun(Settings):
    """What is known of one run or bundle.

    Attributes:
        name: Its id.
        metrics: Measurements by name, and the verdict.
        settings: Its settings by dotted name; empty for a bundle whose run is not on this machine.
        seconds: Time by step; ``cached`` where the step's earlier output was used.
        rows: Rows of each table, and examples of each split.
    """

    name: str
    metrics: dict[str, float | str | None] = {}
    settings: dict[str, Any] = {}
    seconds: dict[str, float | str] = {}
    rows: dict[str, int] = {}


class RunComparison(Settings):
    """Runs side by side.

    Attributes:
        names: The runs, in the order of the cells.
        metrics, seconds, rows: What was measured.
        settings: The settings that are not the same in all of them.
        without_settings: Those of which no settings are known.
    """

    names: tuple[str, ...]
    metrics: Rows
    settings: Rows
    seconds: Rows
    rows: Rows
    without_settings: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Rows]:
        """The tables by title, in their order; those without a row are left out."""
        titles = {
            "Metrics": self.metrics,
            "Settings that differ": self.settings,
            "Seconds by step": self.seconds,
            "Rows": self.rows,
        }
        return {title: rows for title, rows in titles.items() if rows}


def compare_runs(names: Sequence[str], home: Home) -> RunComparison:
    """Put runs side by side.

    Args:
        names: Each the id of a run of this home or the beginning of one, the folder of a run, or
            the id of a bundle.
        home: Where runs and the registry are.

    Raises:
        UsageError: A name is unknown, or stands for several runs.
    """
    runs = [_find(name, home) for name in names]
    known = [run for run in runs if run.settings]
    differing = _side_by_side([run.settings for run in runs])
    for name in list(differing):
        if len({json.dumps(run.settings.get(name), sort_keys=True) for run in known}) < 2:
            del differing[name]
    return RunComparison(
        names=tuple(run.name for run in runs),
        metrics=_side_by_side([run.metrics for run in runs]),
        settings={
            name: tuple(None if cell is None else _plain(cell) for cell in cells)
            for name, cells in sorted(differing.items())
        },
        seconds=_side_by_side([run.seconds for run in runs]),
        rows=_side_by_side([run.rows for run in runs]),
        without_settings=tuple(run.name for run in runs if not run.settings),
    )


def write_comparison(comparison: RunComparison, path: Path) -> None:
    """Write a comparison as one self-contained HTML page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = show_cell
    html = environment.get_template("compare.html").render(comparison=comparison)
    with write_atomically(path) as staging:
        staging.write_text(html, encoding="utf-8")


def show_cell(cell: Cell) -> str:
    """A cell as text; a dash where there is nothing."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if cell == int(cell) and abs(cell) < 1e15:
        return f"{int(cell):,}"
    return f"{cell:.4f}" if abs(cell) < 10 else f"{cell:,.1f}"


def _find(name: str, home: Home) -> ComparedRun:
    folder = Path(name)
    if (folder / ARGUMENTS_FILE).is_file():
        return _read_run(folder.resolve())
    if (home.runs / name / ARGUMENTS_FILE).is_file():
        return _read_run(home.runs / name)
    started = [path.parent for path in home.runs.glob(f"*/{ARGUMENTS_FILE}")]
    alike = sorted(path for path in started if path.name.startswith(name))
    if len(alike) == 1:
        return _read_run(alike[0])
    if len(alike) > 1:
        raise UsageError(f"{name!r} is not one run: {', '.join(path.name for path in alike)}")
    registry = Registry(home.registry)
    if name in registry.list():
        return _read_bundle(name, registry, home)
    latest = ", ".join(outcome.run_id for outcome in list_runs(home)[:5]) or "none"
    raise UsageError(
        f"no run or bundle {name!r}: refit runs list and refit bundles list show them; "
        f"the latest runs: {latest}"
    )


def _read_run(folder: Path) -> ComparedRun:
    if not (folder / OUTCOME_FILE).is_file():
        raise UsageError(f"run {folder.name} has not ended; it can be compared once it has")
    outcome = RunOutcome.parse(read_json(folder / OUTCOME_FILE))
    evaluation = outcome.metadata("gate").get("evaluation")
    measured = _read_evaluation(Path(evaluation)) if evaluation else ({}, {})
    if judged := outcome.metadata("judge"):
        measured = _read_backtest(judged)
    took = {record.step: record.seconds for record in outcome.steps if record.step != "report"}
    last = max((i for i, step in enumerate(_steps(outcome)) if step in took), default=-1)
    seconds: dict[str, float | str] = {
        step: took.get(step, CACHED) for step in _steps(outcome)[: last + 1]
    }
    counts = outcome.metadata("ingest").get("counts", {})
    return ComparedRun(
        name=folder.name,
        metrics=measured[0],
        settings=_read_settings(read_json(folder / ARGUMENTS_FILE)),
        seconds={**seconds, "all": outcome.seconds},
        rows={**{table: count["kept"] for table, count in counts.items()}, **measured[1]},
    )


def _read_bundle(name: str, registry: Registry, home: Home) -> ComparedRun:
    """A bundle: the run that made it, if it is on this machine, else what it holds itself."""
    for outcome in list_runs(home):
        if outcome.metadata("deploy").get("bundle_id") == name:
            run = _read_run(outcome.folder)
            break
    else:
        run = ComparedRun(name=name)
    metrics, rows = _read_evaluation(registry.get(name).evaluation)
    return run.model_copy(update={"name": name, "metrics": metrics, "rows": {**run.rows, **rows}})


def _steps(outcome: RunOutcome) -> tuple[str, ...]:
    return PIPELINE_STEPS.get(outcome.pipeline, ())


def _read_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a pipeline as settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in NO_SETTINGS:
            continue
        inside = _parse_object(value)
        if name == "encoding" and inside is not None:
            inside = inside.get("settings", {})  # a plan has the champion's beside them
        found |= _flatten(inside, f"{name}.") if inside is not None else {name: value}
    return found


def _parse_object(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, str) or not value.startswith("{"):
        return None
    try:
        parsed = json.loads(value)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _flatten(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _read_evaluation(
    folder: Path,
) -> tuple[dict[str, float | str | None], dict[str, int]]:
    """Measurements and number of examples of an evaluation folder, also of an older Refit's."""
    if not (folder / METRICS_FILE).is_file():
        return {}, {}
    results = read_json(folder / METRICS_FILE)
    verdict = read_json(folder / VERDICT_FILE)
    methods = results.get("methods", [])
    model: dict[str, Any] = next((m for m in methods if m.get("kind") == "model"), {})
    metrics: dict[str, float | str | None] = {
        "verdict": "passed" if verdict.get("passed") else "refused",
        "look at the test window": (results.get("looks") or {}).get("number"),
        "test window from": str(results.get("protocol", {}).get("from", ""))[:10],
        "test window until": str(results.get("protocol", {}).get("until", ""))[:10],
    }
    metrics |= {name: value.get("value") for name, value in model.get("metrics", {}).items()}
    main = results.get("protocol", {}).get("metric", "")
    for method in methods:
        if method.get("gain") and main in method["gain"]:
            gain = method["gain"][main]
            metrics[f"gain over {method['name']}, {main}"] = gain.get("value")
            metrics[f"gain over {method['name']}, low end of 95%"] = gain.get("low")
    metrics |= model.get("exposure", {})
    metrics |= model.get("beyond", {}).get("values", {})
    metrics["index recall@100"] = results.get("index", {}).get("recall")
    rows = {f"{split} examples": n for split, n in results["protocol"].get("examples", {}).items()}
    rows |= {"test queries": results["n_queries"], "test users": results["n_users"]}
    return metrics, {**rows, "items": results["protocol"].get("items", 0)}


def _read_backtest(
    judged: Mapping[str, Any],
) -> tuple[dict[str, float | str | None], dict[str, int]]:
    """Measurements and test queries of a backtest, by cut."""
    metrics: dict[str, float | str | None] = {
        "verdict": "passed" if judged.get("passed") else "refused"
    }
    rows: dict[str, int] = {}
    for cut in read_json(Path(judged["backtest"]) / "backtest.json")["cuts"]:
        metrics[f"value at {cut['cut']}"] = cut["value"]
        metrics[f"gain over the best baseline at {cut['cut']}"] = cut["best_baseline"]["value"]
        rows[f"test queries at {cut['cut']}"] = cut["n_queries"]
    return metrics, rows


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: tuple(column.get(name) for column in columns) for name in names}


def _plain(value: Any) -> float | str:
    """A setting's value as one cell."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return value if isinstance(value, int | float | str) else json.dumps(value)
