"""The parameters of each pipeline, from settings."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from components.encoding.plan import plan_run
from components.ingestion.purpose import learn_from, serve_from
from components.ingestion.settings import IngestSettings
from components.monitoring.feed_settings import FeedSettings
from components.training.tuning.settings import TuneSettings
from pipelines.home import Home
from pipelines.settings import RunSettings
from refit.registry import Registry
from refit.tabular.file_format import REJECT


def continuous_training_arguments(
    settings: RunSettings, home: Home, reason: str = "", first_model: bool = False
) -> dict[str, Any]:
    """Parameters of continuous_training, with the data's fingerprint and the current champion.

    What is in quarantine now is left out.

    Raises:
        UsageError: There is no champion, and it is not the first model, or there is one and it is.
    """
    ingestion = learn_from(settings.ingestion, Registry(home.registry).quarantines())
    fingerprint = _fingerprint(ingestion)
    champion = Registry(home.registry).starting_champion(first_model)
    return {
        "ingestion": ingestion.to_json(),
        "features": settings.features.to_json(),
        "training": settings.training.to_json(),
        "indexing": settings.indexing.to_json(),
        "evaluation": settings.evaluation.to_json(),
        "monitoring": settings.monitoring.to_json(),
        "deployment": settings.deployment.to_json(),
        "data_fingerprint": fingerprint,
        "registry": home.registry,
        "champion": champion,
        "checkpoint_folder": str(home.checkpoints),
        "webhook": settings.webhook,
        "reason": reason,
        "first_model": first_model,
        **_encoding(settings, home, champion),
    }


def backtest_arguments(settings: RunSettings, home: Home) -> dict[str, Any]:
    """Parameters of backtest, with the data's fingerprint and the current champion.

    What is in quarantine now is left out.
    """
    ingestion = learn_from(settings.ingestion, Registry(home.registry).quarantines())
    champion = Registry(home.registry).champion_id()
    return {
        "ingestion": ingestion.to_json(),
        "features": settings.features.to_json(),
        "training": settings.training.to_json(),
        "indexing": settings.indexing.to_json(),
        "evaluation": settings.evaluation.to_json(),
        "backtest": settings.backtest.to_json(),
        "data_fingerprint": _fingerprint(ingestion),
        "registry": home.registry,
        "champion": champion,
        "checkpoint_folder": str(home.checkpoints),
        "webhook": settings.webhook,
        **_encoding(settings, home, champion),
    }


def tuning_arguments(settings: RunSettings, home: Home) -> dict[str, Any]:
    """Parameters of tuning, with the data's fingerprint; one worker.

    What is in quarantine now is left out.
    """
    ingestion = learn_from(settings.ingestion, Registry(home.registry).quarantines())
    return {
        "ingestion": ingestion.to_json(),
        "features": settings.features.to_json(),
        "training": settings.training.to_json(),
        "tuning": settings.tuning.to_json(),
        "data_fingerprint": _fingerprint(ingestion),
        "registry": home.registry,
        "studies": settings.tuning.storage or str(home.studies),
        "workers": worker_names(settings.tuning)[:1],
        "checkpoint_folder": str(home.checkpoints),
        "webhook": settings.webhook,
        **_encoding(settings, home, champion=""),
    }


def worker_names(settings: TuneSettings) -> list[str]:
    """The names of a study's workers."""
    return [str(number) for number in range(settings.workers)]


def index_refresh_arguments(settings: RunSettings, home: Home) -> dict[str, Any]:
    """Parameters of index_refresh, which keeps the champion's towers and feature spec.

    It trains nothing, and reads what is in quarantine too.

    Raises:
        UsageError: There is no champion yet.
    """
    ingestion = serve_from(settings.ingestion)
    champion = Registry(home.registry).needed_champion_id()
    return {
        "ingestion": ingestion.to_json(),
        "features": settings.features.to_json(),
        "indexing": settings.indexing.to_json(),
        "deployment": settings.deployment.to_json(),
        "data_fingerprint": _fingerprint(ingestion),
        "registry": home.registry,
        "champion": champion,
        "webhook": settings.webhook,
        **_encoding(settings, home, champion, keeps_towers=True),
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
        "monitoring": settings.monitoring.to_json(),
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
        "refresh_run": "",
        "feeds": describe_feeds(settings.ingestion).to_json(),
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


def _encoding(
    settings: RunSettings, home: Home, champion: str, keeps_towers: bool = False
) -> dict[str, str]:
    plan = plan_run(settings.encoding, home.registry, champion, keeps_towers)
    return {"encoding": plan.to_json(), "vector_store": str(home.vectors)}


def _fingerprint(ingestion: IngestSettings) -> str:
    from components.ingestion.fingerprint import fingerprint_source

    return fingerprint_source(ingestion)
