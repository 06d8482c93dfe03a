"""Start and delete a test cluster by hand.

- ``python -m tests.machine up`` starts a cluster that runs until ``down``
- ``python -m tests.machine status`` shows its nodes and pods
- ``python -m tests.machine down`` deletes it
"""

import argparse
import sys
from collections.abc import Sequence

from refit.errors import RefitError
from tests.machine.kubernetes import attach, start_cluster
from tests.machine.node import Node
from tests.machine.object_store import install_object_store
from tests.machine.seldon import install_seldon
from tests.machine.settings import NodeSettings


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.machine", description="A real Kubernetes cluster for tests."
    )
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument(
        "--number", type=int, default=0, help="number of the cluster on this host; default: 0"
    )
    options = parser.parse_args(arguments)
    command = {"up": up, "down": down, "status": status}[options.command]
    try:
        command(NodeSettings(number=options.number))
    except RefitError as error:
        _write(str(error))
        return error.exit_code
    return 0


def up(settings: NodeSettings) -> None:
    """Start a cluster with Seldon's operator and an object store."""
    cluster = start_cluster(settings, owner=None)
    install_seldon(cluster)
    store = install_object_store(cluster)
    _write(f"export KUBECONFIG={cluster.kubeconfig}\nkubectl: {cluster.services.kubectl}")
    _write(
        f"S3 endpoint: {store.host_endpoint} for this host, {store.endpoint} for pods; "
        f"bucket {store.bucket}"
    )
    _write(f"delete it with: python -m tests.machine down --number {settings.number}")


def down(settings: NodeSettings) -> None:
    """Delete a cluster."""
    Node(settings).delete()


def status(settings: NodeSettings) -> None:
    """Show a cluster's nodes and pods.

    Raises:
        ServiceUnreachable: The cluster is not running.
    """
    cluster = attach(settings)
    _write(f"export KUBECONFIG={cluster.kubeconfig}")
    _write(cluster.kubectl("get", "nodes,pods", "--all-namespaces", "-o", "wide"))


def _write(text: str) -> None:
    sys.stdout.write(f"{text.rstrip()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
