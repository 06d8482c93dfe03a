"""The test cluster for people.

- ``python -m tests.cluster test`` runs the cluster tests, tier by tier, and says what ran
- ``python -m tests.cluster up`` raises a cluster that stands until ``down``
- ``python -m tests.cluster status`` says what stands
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from refit.errors import RefitError
from tests.cluster import binaries
from tests.cluster.images import CONTAINERFILES, build_image
from tests.cluster.kubernetes import attach, raise_cluster
from tests.cluster.machine import CannotRun, prepare_machine
from tests.cluster.node import Node
from tests.cluster.object_store import install_object_store
from tests.cluster.seldon import install_seldon
from tests.cluster.settings import ROOT, NodeSettings

TIERS = {
    "cluster": "tier 1, Kubernetes and Seldon's operator",
    "kfp": "tier 2, the Kubeflow Pipelines backend and Argo",
}
NO_TESTS = 5
"""How pytest says that it found none."""


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; return the exit code."""
    asked, rest = _parser().parse_known_args(arguments)
    settings = NodeSettings(number=asked.number)
    try:
        if asked.what == "test":
            return test(asked.tier or list(TIERS), rest)
        if rest:
            _parser().error(f"unknown: {' '.join(rest)}")
        {"up": up, "down": down, "status": status}[asked.what](settings)
    except RefitError as error:
        _say(str(error))
        return error.exit_code
    return 0


def test(tiers: Sequence[str], arguments: Sequence[str]) -> int:
    """Run the tests of each tier; the last lines say which ran, which did not, and why.

    Returns:
        1 when a tier failed, 0 when none did; a tier that this machine cannot hold is no failure.
    """
    said, failed = [], False
    try:
        prepare_machine()
        build_all()
    except CannotRun as error:
        said = [f"{TIERS[tier]}: DID NOT RUN: {error}" for tier in tiers]
        tiers = []
    for tier in tiers:
        # Captured this way, what takes minutes can still be told while it happens.
        command = [sys.executable, "-m", "pytest", "--capture=sys", "-m", tier, "tests/cluster"]
        command += arguments
        code = subprocess.run(command, cwd=ROOT).returncode
        outcome = {0: "passed", NO_TESTS: "DID NOT RUN: there are no such tests"}
        said.append(f"{TIERS[tier]}: {outcome.get(code, f'FAILED (pytest ended with {code})')}")
        failed = failed or code not in outcome
    _say("\n".join(said))
    return int(failed)


def build_all() -> None:
    """Build what every tier needs, unless that was done.

    Raises:
        CannotRun: Go or a Python that can be copied is missing.
        CommandFailed: Something does not build.
    """
    binaries.build(binaries.pause())  # the smallest, which tells at once that there is no Go
    with ThreadPoolExecutor(1) as beside:  # images wait for the disk while Go compiles
        images = [beside.submit(build_image, name) for name in CONTAINERFILES]
        for programs in (binaries.kube, binaries.coredns, binaries.seldon):
            binaries.build(programs())
        for image in images:
            image.result()


def up(settings: NodeSettings) -> None:
    """Raise a cluster with Seldon's operator and an object store."""
    cluster = raise_cluster(settings, owner=None)
    install_seldon(cluster)
    store = install_object_store(cluster)
    _say(f"export KUBECONFIG={cluster.kubeconfig}\nkubectl: {cluster.services.kubectl}")
    _say(f"S3: {store.endpoint_here} from here, {store.endpoint} from pods, bucket {store.bucket}")
    _say(f"its end: python -m tests.cluster down --number {settings.number}")


def down(settings: NodeSettings) -> None:
    """End a cluster and leave nothing."""
    Node(settings).end()


def status(settings: NodeSettings) -> None:
    """Say what stands, and what its pods do.

    Raises:
        ServiceUnreachable: Nothing stands.
    """
    cluster = attach(settings)
    _say(f"export KUBECONFIG={cluster.kubeconfig}")
    _say(cluster.kubectl("get", "nodes,pods", "--all-namespaces", "-o", "wide"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description="A real Kubernetes, raised for tests."
    )
    parser.add_argument("what", choices=["test", "up", "down", "status"])
    parser.add_argument("--number", type=int, default=0, help="keeps clusters apart; default 0")
    parser.add_argument("--tier", action="append", choices=TIERS, help="of tests; default: all")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text.rstrip()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
