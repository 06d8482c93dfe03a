"""Submit: from a pipeline and settings to a run, or a schedule, on a cluster."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.kubeflow import Kubeflow, PipelineRun, RunRequest, Schedule
from pipelines.arguments import to_json
from pipelines.cluster.compile import compile_for
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
    "drift_monitoring": ("monitoring",),
}
"""Which parts of the settings are parameters of which pipeline."""


@dataclass(frozen=True)
class Wish:
    """What a person wants to be run.

    Attributes:
        pipeline: Its name.
        settings: Of the run.
        use_cache: Whether steps may take earlier outputs.
        reason: Why; kept in the audit trail.
        data_version: What to know the data by; empty has the run's first step read them.
        until, windows: Of a drift monitoring; an empty ``until`` is the run's last midnight.
        refit: Whether a drift monitoring may start a refit.
    """

    pipeline: str
    settings: RunSettings
    use_cache: bool = True
    reason: str = ""
    data_version: str = ""
    until: str = ""
    windows: int = 1
    refit: bool = True


def submit(
    api: Kubeflow, cluster: ClusterSettings, wish: Wish, name: str = ""
) -> tuple[PipelineRun, bool]:
    """Start a run, unless one of this name is there already.

    Args:
        api: The cluster's API.
        cluster: The cluster.
        wish: What to run.
        name: The run's name; made up when not given.

    Returns:
        The run, and whether it was started now.
    """
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    name = name or f"{wish.pipeline}-{stamp}"
    return api.start_once(name, _request(api, cluster, wish))


def schedule(
    api: Kubeflow, cluster: ClusterSettings, wish: Wish, cron: str, name: str
) -> tuple[Schedule, list[Schedule]]:
    """Have a pipeline run by the clock; schedules of the same name are replaced.

    Returns:
        The new schedule, and the ones that it replaced. Of these, one with a run that is going on
        stays, stopped, until it is retired again.
    """
    request = _request(api, cluster, wish)
    older = [found for found in api.list_schedules(request.experiment_id) if found.name == name]
    made = api.create_schedule(name, cron, request)
    for found in older:  # afterwards: a failure in between leaves one too many, never none
        api.retire_schedule(found)
    return made, older


def _request(api: Kubeflow, cluster: ClusterSettings, wish: Wish) -> RunRequest:
    arguments = _arguments(cluster, wish)
    if wish.pipeline == "drift_monitoring" and wish.refit:
        refit = Wish("continuous_training", wish.settings)
        request = _uploaded(api, cluster, refit, _arguments(cluster, refit))
        arguments["refit_run"] = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return _uploaded(api, cluster, wish, arguments)


def _uploaded(
    api: Kubeflow, cluster: ClusterSettings, wish: Wish, arguments: dict[str, Any]
) -> RunRequest:
    namespace = cluster.api_namespace
    compiled = compile_for(wish.pipeline, cluster, wish.use_cache)
    with TemporaryDirectory() as folder:
        package = Path(folder) / f"{wish.pipeline}.yaml"
        package.write_text(compiled.text, encoding="utf-8")
        title = wish.pipeline.replace("_", "-")
        pipeline_id, version_id = api.find_version(title, compiled.version, package, namespace)
    return RunRequest(
        endpoint=cluster.step_endpoint,
        experiment_id=api.find_experiment(cluster.experiment, namespace),
        pipeline_id=pipeline_id,
        version_id=version_id,
        service_account=cluster.service_accounts.get(wish.pipeline, ""),
        arguments=arguments,
        token_file=cluster.step_token_file,
    )


def _arguments(cluster: ClusterSettings, wish: Wish) -> dict[str, Any]:
    """The pipeline's parameters; champion and fingerprint are found by the run itself."""
    if wish.pipeline not in SETTINGS_OF:
        raise UsageError(f"no pipeline {wish.pipeline!r}: there are {', '.join(SETTINGS_OF)}")
    settings = wish.settings
    if settings.webhook and cluster.backend == "2.0":
        raise UsageError(
            "backend 2.0 cannot tell a webhook how a run ended: leave webhook empty, "
            "and look with refit status --cluster"
        )
    deployment = settings.deployment.model_copy(update={"target": cluster.target})
    settings = settings.model_copy(update={"deployment": deployment})
    arguments: dict[str, Any] = {
        part: to_json(getattr(settings, part)) for part in SETTINGS_OF[wish.pipeline]
    }
    arguments |= {"registry": cluster.registry, "champion": "", "webhook": settings.webhook}
    if wish.pipeline == "drift_monitoring":
        return arguments | _monitoring_arguments(cluster, wish)
    arguments["data_fingerprint"] = wish.data_version
    if wish.pipeline == "continuous_training":
        arguments |= {"checkpoint_folder": cluster.checkpoints, "reason": wish.reason}
    return arguments


def _monitoring_arguments(cluster: ClusterSettings, wish: Wish) -> dict[str, Any]:
    if not cluster.predictions:
        raise UsageError("the cluster file does not say where the prediction log is: predictions")
    return {
        "log": cluster.predictions,
        "outcomes": cluster.outcomes,
        "items": cluster.items,
        "until": wish.until,
        "windows": wish.windows,
        "store": cluster.alert_store or f"{cluster.monitoring}/alerts.sqlite",
        "pages": f"{cluster.monitoring}/pages",
        "workspace": f"{cluster.monitoring}/evidently",
        "refit_run": "",
    }
