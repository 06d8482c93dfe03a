"""What a pipeline function asks of the platform that it is compiled for.

On one machine, with no platform in force, nothing changes: the compiled snapshots know no cluster.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from pipelines.cluster.settings import IDEMPOTENT_STEPS, ClusterSettings

_IN_FORCE: ContextVar[ClusterSettings | None] = ContextVar("platform", default=None)


@contextmanager
def platform(settings: ClusterSettings) -> Iterator[None]:
    """Compile for this cluster, inside the block."""
    token = _IN_FORCE.set(settings)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def end_reported(pipeline: str, webhook: Any) -> AbstractContextManager[Any]:
    """The block whose end ``report_run`` tells, whatever it is.

    Backend 2.0 cannot tell an exit handler how the run ended, and takes a run with one for
    succeeded when a step failed: there the block is bare, and the run's own state says it.
    """
    from kfp import dsl

    from components.reporting.component import report_run

    settings = _IN_FORCE.get()
    if settings is not None and settings.backend == "2.0":
        return nullcontext()
    end = report_run(pipeline=pipeline, webhook=webhook)
    end.set_caching_options(False)
    return dsl.ExitHandler(end, name="report the end, whatever it is")


def start_from(
    ingestion: Any,
    data_fingerprint: Any,
    registry: Any,
    champion: Any,
    needs_champion: bool = False,
) -> Any:
    """The data's fingerprint and the champion that a run starts from.

    On one machine they are known before. A cluster's data and registry are seen by its steps only,
    and a schedule's runs start from what is there at their time: a first step looks.

    Returns:
        Fingerprint and champion.
    """
    if _IN_FORCE.get() is None:
        return data_fingerprint, champion
    from components.ingestion.component import find_start

    start = find_start(
        settings=ingestion,
        fingerprint=data_fingerprint,
        registry=registry,
        champion=champion,
        needs_champion=needs_champion,
    )
    start.set_caching_options(False)
    return start.outputs["fingerprint"], start.outputs["champion"]


def place_steps() -> None:
    """Give every step of the pipeline what the platform in force says."""
    settings = _IN_FORCE.get()
    if settings is None:
        return
    from kfp.dsl.pipeline_context import Pipeline

    for task in Pipeline.get_default_pipeline().tasks.values():
        step = task.component_spec.name.replace("-", "_")
        for place in _PLACINGS:
            place(task, step, settings)


def _place_image(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    task.container_spec.image = settings.image
    if settings.image_pull_policy:
        kubernetes.set_image_pull_policy(task, settings.image_pull_policy)
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))


def _place_environment(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    for name, value in settings.environment.items():
        task.set_env_variable(name, value)
    for source, use in (
        *((secret, kubernetes.use_secret_as_env) for secret in settings.secrets),
        *((config, kubernetes.use_config_map_as_env) for config in settings.config_maps),
    ):
        if not source.steps or step in source.steps:
            use(task, source.name, {key: key for key in source.keys})


def _place_volumes(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    for volume in settings.volumes:
        if not volume.steps or step in volume.steps:
            kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.path)


def _place_on_nodes(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    for label, value in settings.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in settings.tolerations:
        given = {name: value for name, value in toleration.model_dump().items() if value}
        kubernetes.add_toleration(task, **given)


def _place_resources(task: Any, step: str, settings: ClusterSettings) -> None:
    wanted = settings.resources_of(step)
    for value, ask in (
        (wanted.cpu, task.set_cpu_request),
        (wanted.memory, task.set_memory_request),
        (wanted.cpu_limit, task.set_cpu_limit),
        (wanted.memory_limit, task.set_memory_limit),
    ):
        if value:
            ask(value)
    if step == "train_towers" and settings.gpu.count:
        task.set_accelerator_type(settings.gpu.resource)
        task.set_accelerator_limit(settings.gpu.count)


def _place_retries(task: Any, step: str, settings: ClusterSettings) -> None:
    if step in IDEMPOTENT_STEPS and settings.retries.times and settings.backend != "2.0":
        task.set_retry(
            settings.retries.times,
            backoff_duration=f"{settings.retries.wait_seconds}s",
            backoff_factor=2,
        )


_PLACINGS: tuple[Callable[[Any, str, ClusterSettings], None], ...] = (
    _place_image,
    _place_environment,
    _place_volumes,
    _place_on_nodes,
    _place_resources,
    _place_retries,
)
