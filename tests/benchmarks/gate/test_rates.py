"""The rates of the gate's decisions, small; ``rates.py`` measures them on real results."""

import numpy as np

from components.evaluation.settings import EvaluationSettings
from tests.benchmarks.gate.rates import JudgedQueries, rate_identical, rate_twins, run_ratchet

SETTINGS = EvaluationSettings(replicates=200, min_users=50, min_queries=200)
RANDOM = np.random.default_rng(5)
FOUND = JudgedQueries(RANDOM.integers(1500, size=3000), (RANDOM.random(3000) < 0.5).astype(float))


def test_an_identical_twin_always_passes():
    assert rate_identical(FOUND, 600, SETTINGS, judgements=60) == {"passed": 60}


def test_a_twin_is_decided_by_the_size_of_the_test():
    small = rate_twins(FOUND, 600, 0.3, SETTINGS, judgements=60)
    assert small["cannot tell"] >= 54, "a small test must not pass equal models by luck"
    assert rate_twins(FOUND, 12_000, 0.3, SETTINGS, judgements=60)["passed"] >= 45


def test_small_losses_do_not_add_up():
    for seed in range(3):
        steps = list(run_ratchet(FOUND, 20_000, 0.1, 0.017, 12, SETTINGS, seed))
        assert steps[-1][1] > 1 - SETTINGS.champion_tolerance - 0.017
        assert any(outcome != "passed" for outcome, _ in steps)
