"""The steps that ``make kind`` and ``make minikube`` do, on a test cluster."""

import os
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.kubernetes import Cluster

SCRIPT = Path(__file__).with_name("standing.sh")
WAIT_SECONDS = 240


def do_steps(cluster: Cluster, steps: Sequence[str], **settings: str) -> None:
    """Do steps of ``kustomize/local/steps.sh`` on a cluster that stands.

    Args:
        cluster: On which.
        steps: Their names.
        settings: Variables at the head of that file.

    Raises:
        CommandFailed: One did not succeed; pods that are in the way are in the message.
    """
    run([SCRIPT, "create_cluster", *steps], environment=environment(cluster) | settings)


def environment(cluster: Cluster) -> dict[str, str]:
    """What the steps need to find the cluster, and its own kubectl."""
    return {
        "PATH": f"{cluster.services.kubectl.parent}:{os.environ['PATH']}",
        "STANDING_KUBECONFIG": str(cluster.kubeconfig),
        "REFIT_STATE": str(cluster.node.folder / "var" / "steps"),
        "WAIT_SECONDS": str(WAIT_SECONDS),
    }
