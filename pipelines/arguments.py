"""The parameters of each pipeline, from settings."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from components.ingestion.settings import IngestSettings
from components.monitoring.feed_settings import FeedSettings
from pipelines.home import Home
from pipelines.settings import RunSettings
from refit.registry import Registry
from refit.settings import Settings
from refit.tabular.file_format import REJECT


def continuous_training_arguments(
    settings: RunSettings, home: Home, reason: str = "", first_model: bool = False
) -> dict[str, Any]:
    """Parameters of continuous_training, with the data's fingerprint and the current champion.

    Raises:
        UsageError: There is no champion, and it is not the first model, or there is one and it is.
    """
    fingerprint = _fingerprint(settings)
    return {
        "ingestion": to_json(settings.ingestion),
        "features": to_json(settings.features),
        "training": to_json(settings.training),
        "indexing": to_json(settings.indexing),
        "evaluation": to_json(settings.evaluation),
        "monitoring": to_json(settings.monitoring),
        "deployment": to_json(settings.deployment),
        "data_fingerprint": fingerprint,
        "registry": home.registry,
        "champion": Registry(home.registry).starting_champion(first_model),
        "checkpoint_folder": str(home.checkpoints),
        "webhook": settings.webhook,
        "reason": reason,
        "first_model": first_model,
    }


def backtest_arguments(settings: RunSettings, home: Home) -> dict[str, Any]:
    """Parameters of backtest, with the data's fingerprint and the current champion."""
    return {
        "ingestion": to_json(settings.ingestion),
        "features": to_json(settings.features),
        "training": to_json(settings.training),
        "indexing": to_json(settings.indexing),
        "evaluation": to_json(settings.evaluation),
        "backtest": to_json(settings.backtest),
        "data_fingerprint": _fingerprint(settings),
        "registry": home.registry,
        "champion": Registry(home.registry).champion_id(),
        "checkpoint_folder": str(home.checkpoints),
        "webhook": settings.webhook,
    }


def index_refresh_arguments(settings: RunSettings, home: Home) -> dict[str, Any]:
    """Parameters of index_refresh, which keeps the champion's towers and feature spec.

    Raises:
        UsageError: There is no champion yet.
    """
    return {
        "ingestion": to_json(settings.ingestion),
        "features": to_json(settings.features),
        "indexing": to_json(settings.indexing),
        "deployment": to_json(settings.deployment),
        "data_fingerprint": _fingerprint(settings),
        "registry": home.registry,
        "champion": Registry(home.registry).needed_champion_id(),
        "webhook": settings.webhook,
    }


def drift_monitoring_arguments(
    settings: RunSettings,
    home: Home,
    *,
    until: datetime,
    windows: int,
    outcomes: Path | None = None,
    items: Path | None = None,
    refit_command: Sequence[str] = (),
) -> dict[str, Any]:
    """Parameters of drift_monitoring.

    Raises:
        UsageError: There is no champion to monitor.
    """
    return {
        "monitoring": to_json(settings.monitoring),
        "registry": home.registry,
        "champion": Registry(home.registry).needed_champion_id(),
        "log": str(home.predictions),
        "until": until.isoformat(),
        "windows": windows,
        "store": home.alerts,
        "pages": str(home.alert_pages),
        "workspace": str(home.evidently),
        "outcomes": str(outcomes.absolute()) if outcomes else "",
        "items": str(items.absolute()) if items else "",
        "refit_command": list(refit_command),
        "refit_run": "",
        "feeds": to_json(describe_feeds(settings.ingestion)),
        "webhook": settings.webhook,
    }


def describe_feeds(ingestion: IngestSettings) -> FeedSettings:
    """How the files of outcomes and items are written: as those that ingestion reads."""
    return FeedSettings(
        form=ingestion.file_format(REJECT),
        number_columns=ingestion.number_columns,
        max_rejected=ingestion.max_rejected.model_dump(),
        memory_limit=ingestion.memory_limit,
        threads=ingestion.threads,
    )


def to_json(settings: Settings) -> str:
    """Settings as the JSON of one parameter: kfp's dict parameters cannot hold null."""
    return json.dumps(settings.model_dump(mode="json"), sort_keys=True)


def _fingerprint(settings: RunSettings) -> str:
    from components.ingestion.fingerprint import fingerprint_source

    return fingerprint_source(settings.ingestion)
