"""Submit a pipeline to a cluster: as one run, or on a schedule."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.encoding.plan import EncodingPlan
from components.kubeflow import Kubeflow, PipelineRun, RunRequest, Schedule
from components.training.tuning.settings import TuneSettings
from pipelines.arguments import describe_feeds, worker_names
from pipelines.cluster.compile import compile_for
from pipelines.cluster.cron import EXAMPLE as CRON_EXAMPLE
from pipelines.cluster.cron import check_cron
from pipelines.cluster.devices import check_devices
from pipelines.cluster.settings import ClusterSettings
from pipelines.settings import RunSettings
from refit.errors import UsageError

SETTINGS_OF = {
    "continuous_training": (
        "ingestion",
        "features",
        "training",
        "indexing",
        "evaluation",
        "monitoring",
        "deployment",
    ),
    "index_refresh": ("ingestion", "features", "indexing", "deployment"),
    "backtest": ("ingestion", "features", "training", "indexing", "evaluation", "backtest"),
    "tuning": ("ingestion", "features", "training", "tuning"),
    "drift_monitoring": ("monitoring",),
}
"""The parts of the settings that are parameters of each pipeline."""


@dataclass(frozen=True)
class Submission:
    """A pipeline to run, with its settings.

    Attributes:
        pipeline: Its name.
        settings: The run's settings.
        use_cache: Whether steps may reuse earlier outputs.
        reason: Why it is run; kept in the audit trail.
        data_version: Version of the data, for caching. Empty: the run's first step reads them.
        until: End of the last window of a drift monitoring; empty is the last midnight before the
            run.
        windows: Number of windows of a drift monitoring.
        refit: Whether a drift monitoring may start a refit.
        first_model: Whether a continuous training trains the registry's first model.
    """

    pipeline: str
    settings: RunSettings
    use_cache: bool = True
    reason: str = ""
    data_version: str = ""
    until: str = ""
    windows: int = 1
    refit: bool = True
    first_model: bool = False


def submit(
    api: Kubeflow, cluster: ClusterSettings, submission: Submission, name: str = ""
) -> tuple[PipelineRun, bool]:
    """Start a run, unless there is one of this name already.

    Args:
        api: The cluster's API.
        cluster: The cluster.
        submission: What to run.
        name: The run's name; generated if empty.

    Returns:
        The run, and whether this call started it.
    """
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    name = name or f"{submission.pipeline}-{stamp}"
    return api.start_once(name, _request(api, cluster, submission))


def schedule(
    api: Kubeflow, cluster: ClusterSettings, submission: Submission, cron: str, name: str
) -> tuple[Schedule, list[Schedule]]:
    """Run a pipeline on a schedule, which replaces schedules of the same name.

    Args:
        api: The cluster's API.
        cluster: The cluster.
        submission: What to run.
        cron: When, see ``check_cron``; empty takes the cluster's own schedule of the pipeline.
        name: The schedule's name.

    Returns:
        The new schedule, and those that it replaced. A replaced schedule with an active run is
        disabled and stays until it is retired again.

    Raises:
        UsageError: The cron expression is invalid, or there is none.
    """
    cron = check_cron(cron or _own_schedule(cluster, submission.pipeline))
    request = _request(api, cluster, submission)
    older = [found for found in api.list_schedules(request.experiment_id) if found.name == name]
    created = api.create_schedule(name, cron, request)
    for found in older:  # afterwards: a failure in between leaves one too many, never none
        api.retire_schedule(found)
    return created, older


def _own_schedule(cluster: ClusterSettings, pipeline: str) -> str:
    _check_pipeline(pipeline)
    cron: str = getattr(cluster.schedules, pipeline, "")
    if not cron:
        raise UsageError(
            f"schedules.{pipeline} of the cluster file is empty: give --cron; {CRON_EXAMPLE}"
        )
    return cron


def _request(api: Kubeflow, cluster: ClusterSettings, submission: Submission) -> RunRequest:
    arguments = _arguments(cluster, submission)
    if submission.pipeline == "drift_monitoring" and submission.refit:
        for name, pipeline in (
            ("refit_run", "continuous_training"),
            ("refresh_run", "index_refresh"),
        ):
            started = Submission(pipeline, submission.settings)
            request = _uploaded(api, cluster, started, _arguments(cluster, started))
            arguments[name] = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return _uploaded(api, cluster, submission, arguments)


def _uploaded(
    api: Kubeflow, cluster: ClusterSettings, submission: Submission, arguments: dict[str, Any]
) -> RunRequest:
    namespace = cluster.api_namespace
    compiled = compile_for(submission.pipeline, cluster, submission.use_cache)
    with TemporaryDirectory() as folder:
        package = Path(folder) / f"{submission.pipeline}.yaml"
        package.write_text(compiled.text, encoding="utf-8")
        title = submission.pipeline.replace("_", "-")
        pipeline_id, version_id = api.find_version(title, compiled.version, package, namespace)
    return RunRequest(
        endpoint=cluster.step_endpoint,
        experiment_id=api.find_experiment(cluster.experiment, namespace),
        pipeline_id=pipeline_id,
        version_id=version_id,
        service_account=cluster.service_accounts.get(submission.pipeline, ""),
        arguments=arguments,
        token_file=cluster.step_token_file,
    )


def _arguments(cluster: ClusterSettings, submission: Submission) -> dict[str, Any]:
    """The pipeline's parameters; the run itself finds champion and fingerprint."""
    _check_pipeline(submission.pipeline)
    settings = submission.settings
    if settings.webhook and cluster.backend == "2.0":
        raise UsageError(
            "backend 2.0 cannot call a webhook when a run has ended: leave webhook empty, "
            "and use refit status --cluster"
        )
    if submission.pipeline in ("backtest", "tuning") and cluster.backend == "2.0":
        raise UsageError(
            f"backend 2.0 cannot collect what the parallel steps of {submission.pipeline} return: "
            "run it on a newer one"
        )
    check_devices(submission.pipeline, settings, cluster)
    deployment = settings.deployment.model_copy(update={"target": cluster.target})
    settings = settings.model_copy(update={"deployment": deployment})
    arguments: dict[str, Any] = {
        part: getattr(settings, part).to_json() for part in SETTINGS_OF[submission.pipeline]
    }
    arguments |= {"registry": cluster.registry, "champion": "", "webhook": settings.webhook}
    if submission.pipeline == "drift_monitoring":
        return arguments | _monitoring_arguments(cluster, submission)
    arguments["data_fingerprint"] = submission.data_version
    arguments["encoding"] = EncodingPlan(settings=settings.encoding).to_json()
    arguments["vector_store"] = cluster.vectors
    if submission.pipeline == "backtest":
        return arguments | {"checkpoint_folder": cluster.checkpoints}
    if submission.pipeline == "tuning":
        return arguments | {
            "checkpoint_folder": cluster.checkpoints,
            "studies": _studies(cluster, settings.tuning),
            "workers": worker_names(settings.tuning),
        }
    if submission.pipeline == "continuous_training":
        arguments |= {"checkpoint_folder": cluster.checkpoints, "reason": submission.reason}
        arguments["first_model"] = submission.first_model
    return arguments


def _studies(cluster: ClusterSettings, tuning: TuneSettings) -> str:
    """Where a study is kept that the pods of all workers reach."""
    if tuning.storage:
        return tuning.storage
    if tuning.workers > 1:
        raise UsageError(
            f"{tuning.workers} workers need a database that all reach: give tuning.storage, "
            "postgresql+psycopg://USER@HOST/DATABASE, or take one worker"
        )
    if not cluster.checkpoints:
        raise UsageError(
            "a study would be lost with its pod: give tuning.storage, a PostgreSQL database, or "
            "checkpoints in the cluster file"
        )
    return f"{cluster.checkpoints}/studies"


def _check_pipeline(name: str) -> None:
    if name not in SETTINGS_OF:
        raise UsageError(f"no pipeline {name!r}: there are {', '.join(SETTINGS_OF)}")


def _monitoring_arguments(cluster: ClusterSettings, submission: Submission) -> dict[str, Any]:
    if not cluster.predictions:
        raise UsageError("predictions of the cluster file is empty: give the prediction log's URL")
    return {
        "log": cluster.predictions,
        "outcomes": cluster.outcomes,
        "items": cluster.items,
        "until": submission.until,
        "windows": submission.windows,
        "store": cluster.alert_store or f"{cluster.monitoring}/alerts.sqlite",
        "pages": f"{cluster.monitoring}/pages",
        "workspace": f"{cluster.monitoring}/evidently",
        "refit_run": "",
        "refresh_run": "",
        "feeds": describe_feeds(submission.settings.ingestion).to_json(),
    }
