"""Run the installation steps of ``make kind`` and ``make minikube`` on a test cluster."""

import os
from collections.abc import Sequence
from pathlib import Path

from tests.machine.commands import run
from tests.machine.kubernetes import Cluster

SCRIPT = Path(__file__).with_name("existing_cluster.sh")
WAIT_SECONDS = 240


def run_steps(cluster: Cluster, steps: Sequence[str], **settings: str) -> None:
    """Run steps of ``kustomize/local/steps.sh`` on a running cluster.

    Args:
        cluster: The cluster.
        steps: Names of the steps.
        settings: Values for the variables at the head of that file.

    Raises:
        CommandError: A step failed; the message describes the pods that are not ready.
    """
    run([SCRIPT, "create_cluster", *steps], environment=environment(cluster) | settings)


def environment(cluster: Cluster) -> dict[str, str]:
    """The variables with which the steps find the cluster and its kubectl."""
    return {
        "PATH": f"{cluster.services.kubectl.parent}:{os.environ['PATH']}",
        "CLUSTER_KUBECONFIG": str(cluster.kubeconfig),
        "REFIT_STATE": str(cluster.node.folder / "var" / "steps"),
        "WAIT_SECONDS": str(WAIT_SECONDS),
    }
