"""Compile and start trial pipelines; read a run's state, pods, logs and artifacts."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pipelines.cluster.compile import keep_what_2_0_knows
from tests.machine.commands import wait_for
from tests.machine.kfp.backend import BUCKET, NAMESPACE, Backend
from tests.machine.kubernetes import Cluster

FINISHED = ("SUCCEEDED", "FAILED", "CANCELED")
NODE = "workflows.argoproj.io/node-name"
"""The annotation that contains the name of a pod's step."""


def compile_trial(pipeline: Any, package: Path) -> Path:
    """Compile a pipeline for this backend release, as Refit's own pipelines are compiled."""
    from kfp.compiler import Compiler

    Compiler().compile(pipeline, str(package))
    documents = list(yaml.safe_load_all(package.read_text()))
    keep_what_2_0_knows(documents)
    package.write_text(yaml.safe_dump_all(documents))
    return package


def start_trial(backend: Backend, pipeline: Any, package: Path, **arguments: Any) -> "PipelineRun":
    """Compile a pipeline and start a run."""
    started = backend.client().create_run_from_pipeline_package(
        str(compile_trial(pipeline, package)), arguments=arguments
    )
    return PipelineRun(backend, started.run_id)


class PipelineRun:
    """A run of the backend.

    Attributes:
        id: The run's id.
    """

    def __init__(self, backend: Backend, run_id: str) -> None:
        self.backend = backend
        self.id = run_id

    @property
    def state(self) -> str:
        """The run's state as reported by the API, such as SUCCEEDED."""
        return str(self.backend.client().get_run(self.id).state)

    def wait(self, seconds: float = 400) -> "PipelineRun":
        """Wait until the run is finished, in whatever state."""
        wait_for(f"the end of run {self.id}", lambda: self.state in FINISHED, seconds, pause=2)
        return self

    def pods(self) -> list[dict[str, Any]]:
        """The pods that ran the pipeline's own steps, without driver pods."""
        found = pods_of_runs(self.backend.cluster, f"pipeline/runid={self.id}")
        return [pod for pod in found if _is_step(pod)]

    def logs(self) -> str:
        """The steps' logs."""
        logs = partial(self.backend.cluster.kubectl, "logs", "-n", NAMESPACE, "-c", "main")
        return "\n".join(logs(pod["metadata"]["name"]) for pod in self.pods())

    def objects(self) -> dict[str, str]:
        """The run's artifacts in the object store: keys below the run's folder, and text."""
        from s3fs import S3FileSystem

        store = S3FileSystem(
            key="minio", secret="minio123", client_kwargs={"endpoint_url": self.backend.objects}
        )
        store.invalidate_cache()
        found = store.glob(f"{BUCKET}/v2/artifacts/**/{self.id}/**")
        files = [key for key in found if store.isfile(key)]
        read = {key: store.cat_file(key).decode(errors="replace") for key in files}
        return {key.split(f"{self.id}/")[1]: text for key, text in read.items()}


def pods_of_runs(cluster: Cluster, selector: str) -> list[dict[str, Any]]:
    """The pods of runs that a label selector matches."""
    output = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json")
    return list(json.loads(output)["items"])


def ran_step(pod: dict[str, Any], step: str) -> bool:
    """Whether a pod ran the step of this name; a cached step has no such pod."""
    name = str(pod["metadata"]["annotations"][NODE])
    return name.endswith(f".{step.replace('_', '-')}.executor")


def _is_step(pod: dict[str, Any]) -> bool:
    return "launcher-v2" in str(pod["spec"].get("initContainers", ""))
