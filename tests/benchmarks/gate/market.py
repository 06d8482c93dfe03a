"""A simulated shop as three tables, and one judgement of a model on them, step by step."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from components.evaluation.evaluate import evaluate
from components.evaluation.results import Results
from components.features.build import build_features
from components.indexing.build import build_index
from components.ingestion.ingest import ingest
from components.training.train import train
from pipelines.settings import RunSettings
from refit.errors import RefitError
from refit.files import read_json
from simulation.history import write_history

TABLES = ("events", "items", "users")
SIMULATED = {"days": 34, "n_shoppers": 1500, "listings_per_day": 150.0, "visits_per_day": 1100.0}
SETTINGS: dict[str, Any] = {
    "scale": "small",
    "ingestion": {"source": "files", "validation_days": 3, "test_days": 4},
    "features": {
        "spec": {
            "item_categorical": ["brand", "category_1", "category_2", "size", "condition"],
            "item_text": ["title"],
            "context_categorical": ["surface", "wanted_category", "wanted_size"],
            "user_categorical": ["department", "size"],
            "popularity_half_lives_days": [3, 14],
            "popularity_by": ["wanted_category"],
            "event_weights": {"like": 0.4, "cart": 0.7, "offer": 0.8, "purchase": 1.0},
            "target_events": ["cart", "offer", "purchase"],
        }
    },
    "training": {
        "learning_rate": 0.006,
        "max_epochs": 2,
        "choose_epochs": False,
        "recall_at": 10,
        "id_embedding": "never",
    },
    "evaluation": {
        "metric": "hit_rate_at_10",
        "guard_metric": "hit_rate_at_50",
        "min_queries": 400,
        "baselines": {
            "include": ["popularity", "popularity_in_context", "cooccurrence"],
            "half_lives_days": [3, 7, 30],
        },
        # The shop is small: there are some forty queries of new users.
        "slice_floors": [{"slice": "known users"}],
        # What a visitor searches for is known before the answer.
        "leaks": {"intended": ["events.wanted_category", "events.wanted_size"]},
    },
}
"""An honest config for the shop's files."""


@dataclass(frozen=True)
class Judgement:
    """How far a model got.

    Attributes:
        step: The step that ended it; ``gate`` where a verdict was reached.
        passed: Whether the gate passed it.
        reasons: Why it was refused.
        metric: The model's primary metric on the test queries; None before the evaluation.
        compared: The methods that were compared with the model.
        seconds: What all steps took.
    """

    step: str
    passed: bool
    reasons: tuple[str, ...]
    metric: float | None
    compared: tuple[str, ...]
    seconds: float


def write_market(folder: Path, seed: int = 7) -> None:
    """Write the tables of the honest shop, as Parquet."""
    write_history({**SIMULATED, "seed": seed}, folder)


def open_market(folder: Path) -> duckdb.DuckDBPyConnection:
    """Open the tables, so that an attack can change them."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = false")
    for name in TABLES:
        con.execute(f"CREATE TABLE {name} AS FROM '{folder / name}.parquet'")
    return con


def save_market(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the tables as they are now."""
    folder.mkdir(parents=True, exist_ok=True)
    for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
        con.execute(f"COPY {name} TO '{folder / name}.parquet'")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes on top, section by section."""
    merged = dict(base)
    for name, value in changes.items():
        inside = merged.get(name)
        both = isinstance(inside, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(inside, value) if both else value
    return merged


def judge(data: Path, changes: Mapping[str, Any], out: Path) -> Judgement:
    """Run every step from the tables to the verdict, and say which one ended it.

    Args:
        data: The folder of the tables.
        changes: What the attack sets in the config.
        out: Folder for the steps' outputs.
    """
    return _run_steps(data, changes, out, out)


def judge_again(parts: Path, changes: Mapping[str, Any], out: Path) -> Judgement:
    """Judge a model that was trained before with other settings of the evaluation.

    Args:
        parts: Folder of the outputs of ``judge``. A bundle in ``champion`` is the champion.
        changes: What the attack sets in the config.
        out: Folder for the evaluation.
    """
    return _run_steps(None, changes, parts, out)


def copy_parts(parts: Path, folder: Path) -> None:
    """Copy the outputs of ``judge`` that an attack may change, and link the others."""
    folder.mkdir(parents=True)
    for name in ("dataset", "features"):
        (folder / name).symlink_to(parts / name)
    for name in ("model", "index"):
        shutil.copytree(parts / name, folder / name)


def read_settings(changes: Mapping[str, Any]) -> RunSettings:
    """The honest settings with changes on top.

    Raises:
        UsageError: They do not fit.
    """
    return RunSettings.parse(merge(SETTINGS, changes))


def _run_steps(data: Path | None, changes: Mapping[str, Any], parts: Path, out: Path) -> Judgement:
    started, step, champion = time.monotonic(), "settings", parts / "champion"

    def ended(reasons: tuple[str, ...], found: Results | None = None) -> Judgement:
        passed = step == "gate" and not reasons
        metric, compared = None, ()
        if found:
            model, *others = found.methods
            metric = model.metrics[settings.evaluation.metric].value
            compared = tuple(method.name for method in others if method.metrics)
        return Judgement(step, passed, reasons, metric, compared, time.monotonic() - started)

    try:
        where = {"ingestion": {"path": str(data or parts)}}
        settings = read_settings(merge(where, changes))
        if data:
            step = "ingest"
            ingest(settings.ingestion, parts / "dataset")
            step = "features"
            build_features(settings.features, parts / "dataset", parts / "features")
            step = "train"
            train(settings.training, parts / "features", parts / "model")
            step = "index"
            build_index(settings.indexing, parts / "features", parts / "model", parts / "index")
        step = "evaluate"
        verdict = evaluate(
            settings.evaluation,
            parts / "features",
            parts / "model",
            parts / "index",
            out / "evaluation",
            champion=champion if champion.exists() else None,
        )
        step = "gate"
        return ended(verdict.reasons, Results.parse(read_json(out / "evaluation/metrics.json")))
    except RefitError as error:
        return ended((str(error),))
