"""The test cluster for people.

- ``python -m tests.cluster test`` runs the cluster tests, tier by tier, and says what ran
- ``python -m tests.cluster up`` raises a cluster that stands until ``down``
- ``python -m tests.cluster status`` says what stands
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from refit.errors import RefitError
from tests.cluster import binaries
from tests.cluster.images import CONTAINERFILES, base_image, refit_image
from tests.cluster.kfp.images import backend_images
from tests.cluster.kubernetes import attach, node_images, raise_cluster
from tests.cluster.machine import CannotRun, prepare_machine
from tests.cluster.node import Node
from tests.cluster.object_store import install_object_store, store_image
from tests.cluster.postgres import postgres_image
from tests.cluster.seldon import install_seldon, operator_image
from tests.cluster.settings import NodeSettings
from tests.cluster.shards import NO_TESTS, lanes_at_once, lanes_of, run_lanes
from tests.cluster.unpacked import unpack

TIERS = {
    "cluster": "tier 1, Kubernetes and Seldon's operator",
    "kfp": "tier 2, the Kubeflow Pipelines backend and Argo",
}


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; return the exit code."""
    asked, rest = _parser().parse_known_args(arguments)
    if asked.at_once < 1:
        _parser().error("--at-once: at least one cluster has to stand")
    settings = NodeSettings(number=asked.number)
    try:
        if asked.what == "test":
            return test(asked.tier or list(TIERS), rest, asked.at_once)
        if rest:
            _parser().error(f"unknown: {' '.join(rest)}")
        {"up": up, "down": down, "status": status}[asked.what](settings)
    except RefitError as error:
        _say(str(error))
        return error.exit_code
    return 0


def test(tiers: Sequence[str], arguments: Sequence[str], at_once: int) -> int:
    """Run the tests of each tier; the last lines say which ran, which did not, and why.

    Args:
        tiers: of ``TIERS``.
        arguments: more of pytest's.
        at_once: how many clusters may stand side by side.

    Returns:
        1 when a tier failed, 0 when none did; a tier that this machine cannot hold is no failure.
    """
    shards = lanes_of(tiers)
    try:
        prepare_machine(clusters=min(at_once, len(shards)), builds=True)
        build_all(tiers)
    except CannotRun as error:
        _say("\n".join(f"{TIERS[tier]}: DID NOT RUN: {error}" for tier in tiers))
        return 0
    ended = run_lanes(shards, arguments, at_once)
    for tier in tiers:
        codes = {code for shard, code in ended.items() if shard.tier == tier}
        _say(f"{TIERS[tier]}: {_outcome(codes)}")
    return int(any(code not in (0, NO_TESTS) for code in ended.values()))


def build_all(tiers: Sequence[str]) -> None:
    """Build what the tiers need, and unpack it for the clusters to come, unless that was done.

    Raises:
        CannotRun: Go or a Python that can be copied is missing.
        CommandFailed: Something does not build.
    """
    binaries.build(binaries.pause())  # the smallest, which tells at once that there is no Go
    with ThreadPoolExecutor(1) as beside:  # Refit's images wait for the disk while Go compiles
        ours = beside.submit(lambda: unpack([base_image(), *map(refit_image, CONTAINERFILES)]))
        binaries.build(binaries.kube())
        images = [*node_images(), operator_image(), store_image(), postgres_image()]
        if "kfp" in tiers:
            images += backend_images()
        ours.result()
    unpack(images)


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
    parser.add_argument(
        "--at-once",
        type=int,
        default=lanes_at_once(),
        metavar="N",
        help="clusters that stand side by side; default: %(default)s",
    )
    return parser


def _outcome(codes: set[int]) -> str:
    failed = codes - {0, NO_TESTS}
    if failed:
        return f"FAILED (pytest ended with {', '.join(map(str, sorted(failed)))})"
    return "passed" if 0 in codes else "DID NOT RUN: there are no such tests"


def _say(text: str) -> None:
    sys.stdout.write(f"{text.rstrip()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
