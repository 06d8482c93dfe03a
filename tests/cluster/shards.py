"""Run the cluster tests in shards, each with its own cluster: most of their time is waiting."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.machine.commands import LOG_PREFIX
from tests.machine.settings import CLUSTER_NUMBER, ROOT

MACHINE, REFIT = "tests/machine", "tests/cluster"
LOOP = f"{REFIT}/test_loop.py"
SHARD_GB = 6
"""Memory that a shard may need: a cluster, recommenders, a training."""
MAX_PARALLEL = 3
"""Three shards keep two processors busy; on four processors a fourth delays the longest shard."""
NO_TESTS = 5
"""pytest's exit code if no test was collected."""


@dataclass(frozen=True)
class Shard:
    """Tests that run one after the other on one cluster.

    Attributes:
        name: Prefix of the shard's output lines, if there are several shards.
        tier: The marker that selects its tests.
        arguments: Paths and options for pytest.
    """

    name: str
    tier: str
    arguments: tuple[str, ...]


SHARDS = (  # the longest first
    Shard("loop", "kfp", (LOOP,)),
    Shard("commands", "kfp", (REFIT, f"--ignore={LOOP}")),
    Shard("cluster", "cluster", (MACHINE, REFIT)),
    Shard("backend", "kfp", (MACHINE,)),
    Shard("gateway", "gateway", (REFIT,)),
)


def shards_of(tiers: Sequence[str]) -> list[Shard]:
    """The shards of some tiers."""
    return [shard for shard in SHARDS if shard.tier in tiers]


def run_shards(
    shards: Sequence[Shard], arguments: Sequence[str], parallel: int
) -> dict[Shard, int]:
    """Run the tests of these shards.

    Args:
        shards: Some of ``SHARDS``.
        arguments: Further arguments of pytest.
        parallel: Number of shards that run at the same time.

    Returns:
        pytest's exit code by shard; ``NO_TESTS`` if the arguments deselected all tests.
    """
    with ThreadPoolExecutor(parallel) as pool:
        futures = {
            shard: pool.submit(
                _run, shard, number, arguments, f"{shard.name:8}| " if len(shards) > 1 else ""
            )
            for number, shard in enumerate(shards)
        }
        return {shard: future.result() for shard, future in futures.items()}


def default_parallelism() -> int:
    """As many shards as fit into this host's memory, up to ``MAX_PARALLEL``."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return max(1, min(MAX_PARALLEL, int(memory // SHARD_GB)))


def _run(shard: Shard, number: int, arguments: Sequence[str], prefix: str) -> int:
    # With this way of capturing, progress lines appear while a test is running.
    options = ("-vv", "--capture=sys", "-m", shard.tier)
    command = [sys.executable, "-m", "pytest", *options, *shard.arguments]
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
        # pytest's line of the running test is not complete yet.
        separated = line.replace(f" {LOG_PREFIX}", f"\n{prefix}{LOG_PREFIX}")
        sys.stdout.write(f"{prefix}{separated}")
        sys.stdout.flush()
    return process.wait()
