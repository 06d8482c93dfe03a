"""What a pipeline function adds for the cluster that it is compiled for.

Outside ``platform()`` it adds nothing: the compiled files for one machine know no cluster.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pipelines.cluster.settings import IDEMPOTENT_STEPS, ClusterSettings

CUTS_AT_ONCE = 2
"""Trainings of a backtest that a cluster runs at a time."""
_PLATFORM: ContextVar[ClusterSettings | None] = ContextVar("platform", default=None)


@contextmanager
def platform(settings: ClusterSettings) -> Iterator[None]:
    """Inside the block, pipelines are compiled for this cluster."""
    token = _PLATFORM.set(settings)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def report_end(pipeline: str, webhook: Any) -> AbstractContextManager[Any]:
    """A block of steps after which ``report_run`` runs, whether they succeed or fail.

    Not on backend 2.0: it does not pass a run's state to an exit handler, and a run with one counts
    as succeeded there even if a step failed.
    """
    from kfp import dsl

    from components.reporting.component import report_run

    settings = _PLATFORM.get()
    if settings is not None and settings.backend == "2.0":
        return nullcontext()
    end = report_run(pipeline=pipeline, webhook=webhook)
    end.set_caching_options(False)
    return dsl.ExitHandler(end, name="report how the run ended")


@dataclass(frozen=True)
class Start:
    """What a run starts from: values, or outputs of a first step.

    Attributes:
        ingestion: Ingestion settings, which leave out what is in quarantine.
        encoding: The encoding plan.
        fingerprint: Fingerprint of the data.
        champion: Id of the champion.
    """

    ingestion: Any
    encoding: Any
    fingerprint: Any
    champion: Any


def resolve_start(
    ingestion: Any,
    encoding: Any,
    data_fingerprint: Any,
    registry: Any,
    champion: Any,
    needs_champion: bool = False,
    first_model: Any = False,
    deploys: bool = True,
) -> Start:
    """What a run starts from.

    On one machine they are parameters of the run. On a cluster only steps can read the data and the
    registry, and each run of a schedule needs the latest: there a first step finds them.
    """
    if _PLATFORM.get() is None:
        return Start(ingestion, encoding, data_fingerprint, champion)
    from components.encoding.component import plan_encoding
    from components.ingestion.component import find_start

    start = find_start(
        settings=ingestion,
        fingerprint=data_fingerprint,
        registry=registry,
        champion=champion,
        needs_champion=needs_champion,
        first_model=first_model,
        deploys=deploys,
    )
    start.set_caching_options(False)
    plan = plan_encoding(
        settings=encoding,
        registry=registry,
        champion=start.outputs["champion"],
        keeps_towers=needs_champion,
    )
    plan.set_caching_options(False)
    outputs = start.outputs
    return Start(outputs["ingestion"], plan.output, outputs["fingerprint"], outputs["champion"])


def at_once() -> int:
    """How many cuts of a backtest are fitted at a time: one on one machine."""
    return 1 if _PLATFORM.get() is None else CUTS_AT_ONCE


def configure_steps() -> None:
    """Apply the platform's settings to every step of the pipeline."""
    settings = _PLATFORM.get()
    if settings is None:
        return
    from kfp.dsl.pipeline_context import Pipeline

    for task in Pipeline.get_default_pipeline().tasks.values():
        step = task.component_spec.name.replace("-", "_")
        for configure in _CONFIGURE:
            configure(task, step, settings)


def _set_image(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    task.container_spec.image = settings.image_of(step)
    if settings.image_pull_policy:
        kubernetes.set_image_pull_policy(task, settings.image_pull_policy)
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))


def _set_environment(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    for name, value in settings.environment.items():
        task.set_env_variable(name, value)
    for source, use in (
        *((secret, kubernetes.use_secret_as_env) for secret in settings.secrets),
        *((config, kubernetes.use_config_map_as_env) for config in settings.config_maps),
    ):
        if not source.steps or step in source.steps:
            use(task, source.name, {key: key for key in source.keys})


def _set_volumes(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    for volume in settings.volumes:
        if not volume.steps or step in volume.steps:
            kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.path)


def _set_nodes(task: Any, step: str, settings: ClusterSettings) -> None:
    from kfp import kubernetes

    for label, value in settings.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in settings.tolerations:
        given = {name: value for name, value in toleration.model_dump().items() if value}
        kubernetes.add_toleration(task, **given)


def _set_resources(task: Any, step: str, settings: ClusterSettings) -> None:
    resources = settings.resources_of(step)
    for value, set_value in (
        (resources.cpu, task.set_cpu_request),
        (resources.memory, task.set_memory_request),
        (resources.cpu_limit, task.set_cpu_limit),
        (resources.memory_limit, task.set_memory_limit),
    ):
        if value:
            set_value(value)
    if settings.gives_gpu(step):
        task.set_accelerator_type(settings.gpu.resource)
        task.set_accelerator_limit(settings.gpu.count)


def _set_retries(task: Any, step: str, settings: ClusterSettings) -> None:
    if step in IDEMPOTENT_STEPS and settings.retries.times and settings.backend != "2.0":
        task.set_retry(
            settings.retries.times,
            backoff_duration=f"{settings.retries.wait_seconds}s",
            backoff_factor=2,
        )


_CONFIGURE: tuple[Callable[[Any, str, ClusterSettings], None], ...] = (
    _set_image,
    _set_environment,
    _set_volumes,
    _set_nodes,
    _set_resources,
    _set_retries,
)
