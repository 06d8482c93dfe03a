"""Cluster tests side by side, a cluster for each shard: most of their time is waiting."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.cluster.commands import TOLD
from tests.cluster.settings import CLUSTER_NUMBER, ROOT

BACKEND, LOOP = "tests/cluster/kfp", "tests/cluster/test_loop.py"
LANE_GB = 6
"""Memory that a shard may need: a cluster, recommenders, a training."""
AT_ONCE = 3
"""On two processors three keep both at work; on four a fourth delays the longest."""
NO_TESTS = 5
"""How pytest says that it found none."""


@dataclass(frozen=True)
class Lane:
    """Tests that run one after the other.

    Attributes:
        name: leads each line of theirs, where there are others.
        tier: the marker that they have.
        words: for pytest: where they are.
    """

    name: str
    tier: str
    words: tuple[str, ...]


LANES = (  # the longest first
    Lane("loop", "kfp", (LOOP,)),
    Lane("commands", "kfp", ("tests/cluster", f"--ignore={LOOP}", f"--ignore={BACKEND}")),
    Lane("cluster", "cluster", ("tests/cluster",)),
    Lane("backend", "kfp", (BACKEND,)),
)


def lanes_of(tiers: Sequence[str]) -> list[Lane]:
    """The shards of some tiers."""
    return [shard for shard in LANES if shard.tier in tiers]


def run_lanes(shards: Sequence[Lane], arguments: Sequence[str], at_once: int) -> dict[Lane, int]:
    """Run the tests of these shards.

    Args:
        shards: some of ``LANES``.
        arguments: more of pytest's.
        at_once: how many shards run side by side.

    Returns:
        How pytest ended, by shard; ``NO_TESTS`` where the arguments left none.
    """
    with ThreadPoolExecutor(at_once) as side_by_side:
        asked = [
            side_by_side.submit(
                _run, shard, number, arguments, f"{shard.name:8}| " if len(shards) > 1 else ""
            )
            for number, shard in enumerate(shards)
        ]
        return {shard: ended.result() for shard, ended in zip(shards, asked, strict=True)}


def lanes_at_once() -> int:
    """As many shards as this machine's memory can carry, up to ``AT_ONCE``."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return max(1, min(AT_ONCE, int(memory // LANE_GB)))


def _run(shard: Lane, number: int, arguments: Sequence[str], lead: str) -> int:
    # Captured this way, what takes minutes can still be told while it happens.
    options = ("-vv", "--capture=sys", "-m", shard.tier)
    command = [sys.executable, "-m", "pytest", *options, *shard.words]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, CLUSTER_NUMBER: str(number), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout
    for line in process.stdout:
        told = line.replace(f" {TOLD}", f"\n{lead}{TOLD}")  # while a test's line waits for its end
        sys.stdout.write(f"{lead}{told}")
        sys.stdout.flush()
    return process.wait()
