"""Answers in random states with running feeds, against brute force."""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from refit.bundle import Bundle
from refit.ports import free_port
from tests.benchmarks.live.figures import Figure, count
from tests.benchmarks.live.market import AGE
from tests.serving import tiny
from tests.serving.random_states import RandomMarket, WrongAnswerError

PART = "brute force"
STATES = 100
"""Of one market; then another begins."""


def run(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Go through random states; every market that found a wrong answer is one failure."""
    replayed = _make_bundles(folder / "replay", tiny.AS_OF)
    live = _make_bundles(folder / "live", datetime.now(UTC) - AGE)
    port = free_port()
    towers = tiny.start_model_server(port, folder / "model_server.log")
    answers, states, wrong = 0, 0, []
    started = time.monotonic()
    try:
        for number in range(-(-options.states // STATES)):
            is_replay = number % 2 == 0
            market = RandomMarket(
                folder / f"market-{number}",
                replayed if is_replay else live,
                f"127.0.0.1:{port}",
                options.seed + number,
                is_replay,
            )
            n = min(STATES, options.states - number * STATES)
            try:
                answers += market.run(n)
            except WrongAnswerError as error:
                wrong.append(str(error))
            states += n
    finally:
        towers.stop()
    yield count(PART, "markets with an answer that is not the oracle's", states, len(wrong))
    seconds = time.monotonic() - started
    yield Figure(PART, "answers compared", states, f"{answers:,} in {seconds:.0f} s")
    for message in wrong[:3]:
        yield Figure(PART, message, 1, "wrong", met=False)


def _make_bundles(folder: Path, as_of: datetime) -> tuple[Bundle, Bundle]:
    usual = tiny.N_LIVE, tiny.AS_OF
    tiny.N_LIVE, tiny.AS_OF = 200, as_of
    try:
        first, second = (
            tiny.make_bundle(
                folder / f"bundle-{seed}",
                tiny.make_model(folder / f"model-{seed}", seed, repeats=bool(seed)),
                seed,
            )
            for seed in (0, 1)
        )
        return first, second
    finally:
        tiny.N_LIVE, tiny.AS_OF = usual
