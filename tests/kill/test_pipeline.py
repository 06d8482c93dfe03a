"""kill -9 at random moments of continuous_training, then the same run again until it is done."""

import random
import shutil
from collections.abc import Callable

import pytest

from pipelines.home import Home
from pipelines.local import OUTCOME_FILE
from refit.registry import Registry
from tests.kill.killing import SEED, Tell, Victim, look_for_torn_files

KILLS = 8
TURNS = (("clock", "clock", "clock", "promotion"), ("clock", "clock", "deploy", "promotion"))
"""How each run is killed, until it is left in peace; the next starts from an empty cache."""
WITHIN = {"clock": 22.0, "deploy": 0.4, "promotion": 0.4}
"""Seconds within which the kill falls, counted from the run's start, its deploy step's start, or
its promotion on: a second promotion would come from there."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_no_kill_of_the_pipeline_leaves_torn_files(
    home: Home, run: Callable[[str], Victim], tell: Tell
):
    rng, registry = random.Random(SEED), Registry(home.registry)
    kills = turn = 0
    while kills < KILLS:
        run_id = f"turn-{turn}"
        shutil.rmtree(home.artifacts / ".cache", ignore_errors=True)
        for moment in TURNS[turn % len(TURNS)]:
            victim = run(run_id)
            wait_for(moment, victim, registry, run_id)
            if not victim.runs_for(rng.uniform(0, WITHIN[moment])):
                tell(f"{run_id}: was over before its kill")
                break
            seconds = victim.seconds
            victim.kill()
            kills += 1
            said = steps(victim)[-1:] or ["nothing"]
            tell(f"{run_id}: kill {kills} after {seconds:.1f} s ({moment}), said last: {said[0]}")
            look_for_torn_files(home)
        last = run(run_id)
        assert last.ends() == 0, last.said
        tell(f"{run_id}: the next run took {last.seconds:.1f} s: {' '.join(steps(last))}")
        look_for_torn_files(home)
        history = registry.history()
        assert promotions(registry, run_id) == 1
        assert (home.runs / run_id / OUTCOME_FILE).exists()
        again = run(run_id)
        assert again.ends() == 0, again.said
        assert steps(again) == []
        assert registry.history() == history
        turn += 1


def wait_for(moment: str, run: Victim, registry: Registry, run_id: str) -> None:
    """Wait until a run is where the moment is counted from."""
    if moment == "deploy":
        assert run.runs_until(lambda: "[deploy] started" in run.said), run.said
    elif moment == "promotion":
        assert run.runs_until(lambda: promotions(registry, run_id)), run.said


def promotions(registry: Registry, reason: str) -> int:
    return sum(change.reason == reason for change in registry.history())


def steps(victim: Victim) -> list[str]:
    """What the command said of its steps, as ``[step] done``."""
    words = [line.split(" ", 1)[-1] for line in victim.said.splitlines()]
    return [" ".join(word.split()[:2]) for word in words if word.startswith("[")]
