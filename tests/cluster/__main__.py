"""Run the cluster tests, tier by tier, and report for each tier whether it ran.

``python -m tests.cluster``, or ``make test-cluster``. Arguments that it does not know go to pytest.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.shards import NO_TESTS, Shard, default_parallelism, run_shards, shards_of
from tests.machine import binaries, traefik
from tests.machine.host import UnsupportedHostError, prepare_host
from tests.machine.images import CONTAINERFILES, base_image, refit_image
from tests.machine.kfp import programs
from tests.machine.kfp.images import backend_images
from tests.machine.kubernetes import node_images
from tests.machine.object_store import store_image
from tests.machine.postgres import postgres_image
from tests.machine.seldon import operator_image
from tests.machine.unpacked import unpack

KUBEFLOW, GATEWAY = "kfp", "gateway"
TIERS = {
    "cluster": "tier 1, Kubernetes and Seldon's operator",
    KUBEFLOW: "tier 2, the Kubeflow Pipelines backend and Argo",
    GATEWAY: "tier 3, a Gateway of the Gateway API by Traefik",
}
ARE_BUILT = {KUBEFLOW: programs.are_built, GATEWAY: traefik.is_built}
"""Of tiers whose programs take minutes to build: whether they are in the cache."""
NOT_BUILT = "the cache does not contain its programs; make test-cluster builds them"


def main(arguments: Sequence[str]) -> int:
    """Run the tests; return the exit code."""
    parser = _parser()
    options, pytest_arguments = parser.parse_known_args(arguments)
    if options.parallel < 1:
        parser.error("--parallel must be at least 1")
    tiers = options.tier or list(TIERS)
    return run_tiers(tiers, pytest_arguments, options.parallel, options.only_built)


def run_tiers(
    tiers: Sequence[str], arguments: Sequence[str], parallel: int, only_built: bool
) -> int:
    """Build what the tiers need, run their tests, and report one line per tier at the end.

    Args:
        tiers: Keys of ``TIERS``.
        arguments: Further arguments of pytest.
        parallel: Number of clusters that may run at the same time.
        only_built: Skip tiers 2 and 3 unless the cache contains their programs.

    Returns:
        1 if a tier failed, otherwise 0. A tier that cannot run on this host is no failure.
    """
    skipped = {}
    try:
        for tier in ARE_BUILT if only_built else ():
            if tier in tiers and not ARE_BUILT[tier]():
                skipped[tier] = NOT_BUILT
        selected = [tier for tier in tiers if tier not in skipped]
        shards = shards_of(selected)
        if shards:
            prepare_host(clusters=min(parallel, len(shards)), builds=True)
            build_all(selected)
    except UnsupportedHostError as error:
        skipped = dict.fromkeys(tiers, str(error))
        shards = []
    codes = run_shards(shards, arguments, parallel) if shards else {}
    for tier in tiers:
        outcome = f"DID NOT RUN: {skipped[tier]}" if tier in skipped else _outcome(codes, tier)
        _write(f"{TIERS[tier]}: {outcome}")
    return int(any(code not in (0, NO_TESTS) for code in codes.values()))


def build_all(tiers: Sequence[str]) -> None:
    """Build the programs and images that the tiers need, and unpack the images.

    Raises:
        UnsupportedHostError: Go is missing, or Python cannot be copied.
        CommandError: A build failed.
    """
    binaries.build(binaries.pause())  # the smallest program: reports a missing Go at once
    with ThreadPoolExecutor(1) as background:  # these images wait for the disk while Go compiles
        ours = background.submit(lambda: unpack([base_image(), *map(refit_image, CONTAINERFILES)]))
        binaries.build(binaries.kube())
        images = [*node_images(), operator_image(), store_image(), postgres_image()]
        if KUBEFLOW in tiers:
            images += backend_images()
        if GATEWAY in tiers:
            images.append(traefik.traefik_image())
        ours.result()
    unpack(images)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description="Run the cluster tests. Further arguments go to pytest.",
    )
    parser.add_argument(
        "--tier", action="append", choices=TIERS, help="a tier to run; default: all"
    )
    parser.add_argument(
        "--only-built",
        action="store_true",
        help="skip tiers 2 and 3 unless their programs are built already",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        default=default_parallelism(),
        metavar="N",
        help="number of clusters that run at the same time; default: %(default)s",
    )
    return parser


def _outcome(codes: dict[Shard, int], tier: str) -> str:
    of_tier = {code for shard, code in codes.items() if shard.tier == tier}
    if failed := of_tier - {0, NO_TESTS}:
        return f"FAILED (pytest exited with {', '.join(map(str, sorted(failed)))})"
    return "passed" if 0 in of_tier else "DID NOT RUN: no test was selected"


def _write(text: str) -> None:
    sys.stdout.write(f"{text.rstrip()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
