"""Read a step's log: from the Kubeflow Pipelines API if it serves logs, else from the pod."""

from typing import Any

from components.deployment.cluster import kubeconfig_path
from components.kubeflow import Kubeflow
from pipelines.cluster.settings import ClusterSettings
from refit.errors import ServiceUnreachable

RUN_LABEL = "pipeline/runid"
NODE_NAME = "workflows.argoproj.io/node-name"
CONTAINER = "main"


def read_step_log(
    api: Kubeflow, cluster: ClusterSettings, run_id: str, step: str, pods: tuple[str, ...]
) -> str:
    """Read the log of a step; of a step that was repeated, the log of its last attempt.

    Args:
        api: The cluster's API.
        cluster: The cluster.
        run_id: The run.
        step: The step's name.
        pods: Names of its pods, as far as the API reports them.

    Raises:
        ServiceUnreachable: Neither API has it.
    """
    for pod in reversed(pods):
        if (text := api.read_log(run_id, pod)) is not None:
            return text
    try:
        return _read_from_pod(cluster, run_id, step)
    except Exception as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise ServiceUnreachable(
            f"the log of step {step} is not available: {api.address} provides none, nor does the "
            f"Kubernetes API ({why[0]}); its pod may be gone"
        ) from None


def _read_from_pod(cluster: ClusterSettings, run_id: str, step: str) -> str:
    from kubernetes import client, config

    context = cluster.kube_context or None
    core = client.CoreV1Api(config.new_client_from_config(kubeconfig_path(), context=context))
    found = core.list_namespaced_pod(
        cluster.runs_in, label_selector=f"{RUN_LABEL}={run_id}", _request_timeout=10
    ).items
    own = [pod for pod in found if _belongs_to(pod, step)]
    if not own:
        raise LookupError(f"it has no pod in namespace {cluster.runs_in}")
    newest = max(own, key=lambda pod: pod.metadata.creation_timestamp)
    answer = core.read_namespaced_pod_log(
        newest.metadata.name,
        cluster.runs_in,
        container=CONTAINER,
        _preload_content=False,  # the client would decode bytes to their Python representation
        _request_timeout=30,
    )
    return bytes(answer.data).decode("utf-8", "replace")


def _belongs_to(pod: Any, step: str) -> bool:
    """Whether a pod belongs to a step: its executor, or its driver if there is no other."""
    node = (pod.metadata.annotations or {}).get(NODE_NAME, "")
    return f".{step.replace('_', '-')}." in f"{node}."
