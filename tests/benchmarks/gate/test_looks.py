"""Repeated tries on one window, small; ``looks.py`` measures more of them."""

from tests.benchmarks.gate.looks import simulate_tries


def test_a_model_that_is_better_passes_and_luck_does_not_with_a_ledger():
    better = simulate_tries(windows=3, tries=2, gain=0.1, seed=1)
    assert (better.once, better.corrected) == (1.0, 1.0)
    lucky = simulate_tries(windows=15, tries=10)
    assert lucky.corrected < lucky.uncorrected
    assert lucky.corrected <= 0.2
