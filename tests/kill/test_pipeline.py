"""kill -9 at random moments of continuous_training, then the same run again until it is done."""

import random
import shutil
from collections.abc import Callable

import pytest

from pipelines.home import Home
from pipelines.local import OUTCOME_FILE
from refit.registry import Registry
from tests.kill.killing import SEED, RefitProcess, Report, check_for_torn_files

KILLS = 8
TURNS = (("clock", "clock", "clock", "promotion"), ("clock", "clock", "deploy", "promotion"))
"""How each run is killed, before it may finish; the next one starts from an empty cache."""
WITHIN = {"clock": 22.0, "deploy": 0.4, "promotion": 0.4}
"""Seconds within which the kill falls, counted from the run's start, its deploy step's start, or
its promotion on: a second promotion would come from there."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_no_kill_of_the_pipeline_leaves_torn_files(
    home: Home, run: Callable[[str], RefitProcess], report: Report
):
    rng, registry = random.Random(SEED), Registry(home.registry)
    kills = turn = 0
    while kills < KILLS:
        run_id = f"turn-{turn}"
        shutil.rmtree(home.artifacts / ".cache", ignore_errors=True)
        for moment in TURNS[turn % len(TURNS)]:
            command = run(run_id)
            wait_for(moment, command, registry, run_id)
            if not command.runs_for(rng.uniform(0, WITHIN[moment])):
                report(f"{run_id}: was over before its kill")
                break
            seconds = command.seconds
            command.kill()
            kills += 1
            last_step = steps(command)[-1:] or ["nothing"]
            report(f"{run_id}: kill {kills} after {seconds:.1f} s ({moment}), last: {last_step[0]}")
            check_for_torn_files(home)
        last = run(run_id)
        assert last.ends() == 0, last.output
        report(f"{run_id}: the next run took {last.seconds:.1f} s: {' '.join(steps(last))}")
        check_for_torn_files(home)
        history = registry.history()
        assert promotions(registry, run_id) == 1
        assert (home.runs / run_id / OUTCOME_FILE).exists()
        again = run(run_id)
        assert again.ends() == 0, again.output
        assert steps(again) == []
        assert registry.history() == history
        turn += 1


def wait_for(moment: str, run: RefitProcess, registry: Registry, run_id: str) -> None:
    """Wait until a run is where the moment is counted from."""
    if moment == "deploy":
        assert run.runs_until(lambda: "[deploy] started" in run.output), run.output
    elif moment == "promotion":
        assert run.runs_until(lambda: promotions(registry, run_id)), run.output


def promotions(registry: Registry, reason: str) -> int:
    return sum(change.reason == reason for change in registry.history())


def steps(command: RefitProcess) -> list[str]:
    """The lines about steps in the output, as ``[step] done``."""
    words = [line.split(" ", 1)[-1] for line in command.output.splitlines()]
    return [" ".join(word.split()[:2]) for word in words if word.startswith("[")]
