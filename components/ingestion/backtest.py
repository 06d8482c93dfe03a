"""The cuts of a backtest: the same settings with an earlier end."""

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.ingestion.copies import download_source
from components.ingestion.selection import select_columns
from components.ingestion.settings import IngestSettings
from components.ingestion.source import load_source
from components.ingestion.tables import find_end
from refit.backtest import BacktestSettings, PlannedFit
from refit.errors import UsageError
from refit.registry import Registry
from refit.tables import open_tables


def plan_fits(
    settings: BacktestSettings,
    ingestion: IngestSettings,
    training: Mapping[str, Any],
    registry: str,
    champion: str = "",
) -> tuple[PlannedFit, ...]:
    """Plan every fit of a backtest, the latest cut first.

    The latest cut has the config's own settings, so that its steps come from the cache after a run
    of them. Earlier ones have an earlier ``end``, and their splits are moved with it; ``start``
    stays. The champion is compared only where its training ended before the test window.

    Args:
        settings: Number of cuts and seeds, and how far apart the cuts are.
        ingestion: The config's ingestion.
        training: Its training, as plain values with a ``seed``.
        registry: Folder or URL of the registry.
        champion: Id of the champion's bundle; empty if there is none.

    Raises:
        UsageError: A cut would begin before ``start``.
    """
    end = find_data_end(ingestion)
    test = end - ingestion.test_start if ingestion.test_start else None
    length = test or timedelta(days=ingestion.test_days or 0)
    step = timedelta(days=settings.step_days) if settings.step_days else length
    trained_until = Registry(registry).get(champion).manifest.trained_until if champion else None
    fits = []
    for number in range(settings.cuts):
        moved = _move(ingestion, end, step * number) if number else ingestion
        state = "none"
        if champion:
            fresh = trained_until is not None and trained_until <= end - step * number - length
            state = "compared" if fresh else "seen"
        for seed in range(settings.seeds):
            values = {**training, "seed": int(training.get("seed", 0)) + seed}
            fits.append(
                PlannedFit(
                    cut=(end - step * number).isoformat(),
                    seed=str(values["seed"]),
                    ingestion=moved.to_json(),
                    training=json.dumps(values, sort_keys=True),
                    champion=champion if state == "compared" else "",
                    champion_state=state,
                )
            )
    return tuple(fits)


def find_data_end(settings: IngestSettings) -> datetime:
    """The end of the window that these settings read.

    Raises:
        UsageError: The source cannot be loaded, or its files do not exist.
        DataValidationError: A file cannot be read.
    """
    if settings.end:
        return settings.end
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        local = download_source(settings, scratch / "downloads")
        source = load_source(local)
        limits = (local.memory_limit, local.threads)
        with open_tables("ingestion", f"source {local.source!r}", *limits, scratch) as con:
            form = local.file_format(source.NAIVE_TIMES)
            tables = select_columns(source.read(con, local, scratch), local, form)
            as_of = local.as_of or datetime.now(UTC)
            return find_end(local, tables.events, form, as_of)


def _move(settings: IngestSettings, end: datetime, back: timedelta) -> IngestSettings:
    """The settings of an earlier cut."""
    changes: dict[str, Any] = {"end": end - back}
    for name in ("validation_start", "test_start"):
        if time := getattr(settings, name):
            changes[name] = time - back
    begins = changes.get("validation_start") or end - back - timedelta(
        days=(settings.validation_days or 0) + (settings.test_days or 0)
    )
    if settings.start and begins <= settings.start:
        raise UsageError(
            f"the cut that ends on {end - back:%Y-%m-%d} has no training before its validation, "
            "because ingestion.start is later: take fewer backtest.cuts, or an earlier start"
        )
    return settings.model_copy(update=changes)
