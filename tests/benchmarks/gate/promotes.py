"""Promotions at the same moment: of those that expect the same champion exactly one may win.

Two processes share a registry. In each try both see the same champion, wait for each other, and
promote different bundles, each expecting that champion.
"""

import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from refit.bundle import assemble_bundle
from refit.errors import GateRefused
from refit.registry import Registry
from tests.factories import name_subject
from tests.postgres import NEWEST, running_postgres
from tests.s3 import BUCKET, in_environment, running_s3

WAIT_SECONDS = 120.0
TRIES_PER_REGISTRY = 250
"""A registry is replaced by a fresh one after so many tries: each one makes its history longer."""


@dataclass(frozen=True)
class Race:
    """The result of all tries.

    Attributes:
        tries: Number of tries.
        one_winner: Tries in which exactly one promotion succeeded and became champion.
        gaps: Registries whose history does not hold each change once, in order.
    """

    tries: int
    one_winner: int
    gaps: int

    @property
    def is_perfect(self) -> bool:
        """Whether every try had one winner, and no change was lost."""
        return self.one_winner == self.tries and not self.gaps


def race_promotes(url: str, tries: int, database: str = "") -> Race:
    """Let two processes promote at the same moment.

    Args:
        url: Parent of the registries that are made for it.
        tries: Number of tries.
        database: PostgreSQL database that the registries name; "" for none.
    """
    won = gaps = done = 0
    while done < tries:
        rounds = min(TRIES_PER_REGISTRY, tries - done)
        one_winner, is_whole = _race(f"{url}/{done}", rounds, database)
        won, gaps, done = won + one_winner, gaps + (not is_whole), done + rounds
    return Race(tries, won, gaps)


def race_everywhere(tries: int) -> dict[str, Race]:
    """The races on a folder, on an S3 store, and on an S3 store with a PostgreSQL database."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(in_environment(stack.enter_context(running_s3())))
        server = stack.enter_context(running_postgres(NEWEST))
        stack.enter_context(_password(server.password))
        places = {
            "folder": (folder, tries),
            "S3": (f"s3://{BUCKET}/race", tries),
            "PostgreSQL": (f"s3://{BUCKET}/row", tries, server.empty()),
        }
        # Most of a promotion is waiting, for a lock or for a store.
        with ThreadPoolExecutor(len(places)) as threads:
            races = {name: threads.submit(race_promotes, *place) for name, place in places.items()}
        return {name: race.result() for name, race in races.items()}


def make_bundles(registry: Registry, folder: Path, number: int) -> list[str]:
    """Add small bundles that passed their gate, with different indexes; returns their ids."""
    verdict = {"passed": True, "reasons": [], "measurements": {}, "checks": []}
    ids = []
    for i in range(number):
        files = {
            "model/query_tower/1/saved_model.pb": "query",
            "model/item_tower/1/saved_model.pb": "item",
            "model/features.json": "{}",
            "model/model.json": '{"embedding_version": "t1"}',
            "index/index.json": '{"embedding_version": "t1", "as_of": "2025-03-01T00:00:00Z"}',
            "index/vectors": str(i),
            "reference/thresholds.json": '{"embedding_version": "t1"}',
            "evaluation/verdict.json": json.dumps(verdict),
        }
        parts = folder / f"parts-{i}"
        for name, text in files.items():
            (parts / name).parent.mkdir(parents=True, exist_ok=True)
            (parts / name).write_text(text)
        name_subject(parts)
        names = ("model", "index", "evaluation", "reference")
        bundle = assemble_bundle(**{n: parts / n for n in names}, out_root=folder / "bundles")
        ids.append(registry.add(bundle))
    return ids


def _race(url: str, rounds: int, database: str) -> tuple[int, bool]:
    """Tries with one winner on one registry, and whether its history is whole."""
    context = multiprocessing.get_context("spawn")
    barrier, outcomes = context.Barrier(2), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        registry = Registry(url, cache=cache)
        ids = make_bundles(registry, Path(folder), 3)
        if database:
            registry.coordinate(database)
        registry.promote(ids[0], "race", "the first", expected="")
        runners = [
            context.Process(target=_run, args=(url, cache, ids, n, rounds, barrier, outcomes))
            for n in range(2)
        ]
        for runner in runners:
            runner.start()
        won = [outcomes.get(timeout=WAIT_SECONDS + rounds) for _ in runners]
        for runner in runners:
            runner.join()
        history = registry.history()
        numbers = [promotion.number for promotion in history]
        is_whole = numbers == list(range(1, rounds + 2)) and registry.champion() == history[-1]
    return sum(a + b == 1 for a, b in zip(*won, strict=True)), is_whole


def _run(
    url: str,
    cache: Path,
    ids: Sequence[str],
    which: int,
    rounds: int,
    barrier: Barrier,
    outcomes: Any,
) -> None:
    """One of the two processes: in each try it promotes one of the bundles that do not serve."""
    registry = Registry(url, cache=cache)
    won = []
    for i in range(rounds):
        champion = registry.champion_id()
        bundle_id = [each for each in ids if each != champion][which]
        barrier.wait(WAIT_SECONDS)
        try:
            registry.promote(bundle_id, f"racer {which}", f"try {i}", True, expected=champion)
            won.append(True)
        except GateRefused:
            won.append(False)
        barrier.wait(WAIT_SECONDS)
    outcomes.put(won)


def _password(password: str) -> Any:
    from unittest.mock import patch

    return patch.dict("os.environ", PGPASSWORD=password)


if __name__ == "__main__":
    import sys
    import time

    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    started = time.monotonic()
    for place, race in race_everywhere(number).items():
        sys.stdout.write(f"{place}: {race}\n")
    sys.stdout.write(f"{time.monotonic() - started:.0f} s\n")
