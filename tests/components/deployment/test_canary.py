import math
import random

import pytest

from components.deployment.canary import (
    PredictorMetrics,
    Proportion,
    compare_canary,
    confidence_sequence,
)
from components.deployment.settings import RolloutSettings

SETTINGS = RolloutSettings(
    min_requests=100, min_users=50, click_tolerance=None, purchase_tolerance=None
)
INVALID = (math.nan, math.inf, -math.inf, -1.0, None)


def metrics(
    n: float | None, errors=0, fallbacks=0, slow=0, misses=0, restarts=0, users=1000
) -> PredictorMetrics:
    return PredictorMetrics(
        bundle_id="b",
        pods=1,
        restarts=restarts,
        errors=Proportion(bad=errors, total=n),
        fallbacks=Proportion(bad=fallbacks, total=n),
        slow=Proportion(bad=slow, total=n),
        no_click=Proportion(bad=misses, total=n),
        no_purchase=Proportion(bad=misses, total=n),
        users=users,
    )


def compare(
    baseline: PredictorMetrics, canary: PredictorMetrics, expired=False, days=1.0, **changes
) -> str:
    settings = SETTINGS.model_copy(update=changes)
    return compare_canary(settings, baseline, canary, expired, days).action


def test_a_sequence_without_bad_answers_has_a_closed_form():
    """B(1/2, 3/2) / B(1/2, 1/2) = 1/2, so that after one good answer 1 - p > error / 2 holds."""
    low, high = confidence_sequence(Proportion(bad=0, total=1), 0.05)
    assert low == 0
    assert high == pytest.approx(1 - 0.05 / 2, abs=1e-9)


def test_a_sequence_for_two_of_four_equals_a_manual_calculation():
    """B(5/2, 5/2) / B(1/2, 1/2) = 3/128; p(1 - p) > sqrt(3/128 * 0.2) is a quadratic."""
    root = math.sqrt(1 - 4 * math.sqrt(3 / 128 * 0.2))
    low, high = confidence_sequence(Proportion(bad=2, total=4), 0.2)
    assert (low, high) == pytest.approx(((1 - root) / 2, (1 + root) / 2), abs=1e-9)


def test_a_sequence_before_the_first_answer_is_the_whole_interval():
    assert confidence_sequence(Proportion(bad=0, total=0), 0.01) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 7, 1000, 10**7, 10**12])
@pytest.mark.parametrize("part", [0.0, 1e-6, 0.3, 1.0])
def test_a_sequence_is_an_interval_around_the_observed_proportion(n, part):
    for bad in {round(n * part), min(n, 1), n - 1, n}:
        low, high = confidence_sequence(Proportion(bad=bad, total=n), 1e-3)
        assert 0 <= low <= bad / n <= high <= 1
        assert low < high


def test_testing_after_every_answer_does_not_exceed_the_stated_error():
    """A fixed-sample 80% interval would exclude the true value on most of these paths."""
    rng, truth, error = random.Random(1), 0.2, 0.2
    missed = 0
    for _ in range(300):
        bad = 0
        for n in range(1, 301):
            bad += rng.random() < truth
            low, high = confidence_sequence(Proportion(bad=bad, total=n), error)
            if not low <= truth <= high:
                missed += 1
                break
    assert missed / 300 <= error


def test_equal_predictors_are_promoted_after_enough_requests():
    assert compare(metrics(90), metrics(10)) == "hold"
    assert compare(metrics(9000), metrics(500)) == "hold"
    assert compare(metrics(9000), metrics(2000)) == "promote"


def test_too_few_requests_of_either_predictor_hold():
    wide = {"error_increase": 0.9, "fallback_increase": 0.9, "slow_increase": 0.9}
    assert compare(metrics(100), metrics(100), **wide) == "promote"
    assert compare(metrics(99), metrics(100), **wide) == "hold"
    assert compare(metrics(100), metrics(99), **wide) == "hold"


@pytest.mark.parametrize("measure", ["errors", "fallbacks", "slow"])
def test_a_clearly_worse_canary_is_rolled_back_at_once(measure):
    assert compare(metrics(500), metrics(20, **{measure: 20})) == "roll_back"
    # Here the baseline is worse.
    assert compare(metrics(2000, **{measure: 1000}), metrics(2000)) == "promote"


def test_a_slightly_worse_canary_is_held_until_the_evidence_suffices():
    assert compare(metrics(10_000, errors=100), metrics(1000, errors=20)) == "hold"
    assert compare(metrics(90_000, errors=900), metrics(10_000, errors=300)) == "roll_back"
    assert compare(metrics(900_000, errors=9000), metrics(100_000, errors=1100)) == "promote"


def test_restarts_roll_back():
    assert compare(metrics(9000), metrics(5000, restarts=3)) == "promote"
    assert compare(metrics(9000), metrics(5000, restarts=4)) == "roll_back"


def test_the_deadline_rolls_back_a_canary_without_sufficient_evidence():
    assert compare(metrics(9000), metrics(10), expired=True) == "roll_back"
    assert compare(metrics(None), metrics(None), expired=True) == "roll_back"
    assert compare(metrics(9000), metrics(5000), expired=True) == "promote"


def test_quality_is_relative_to_the_baseline():
    """If 5% of the baseline's answers have an outcome, a quarter is 1.25 points."""
    baseline = metrics(900_000, misses=855_000)
    similar, halved = metrics(100_000, misses=95_500), metrics(100_000, misses=97_500)
    assert compare(baseline, similar, click_tolerance=0.25) == "promote"
    assert compare(baseline, halved, click_tolerance=0.25) == "roll_back"
    assert compare(baseline, halved) == "promote"


def test_clicks_and_purchases_are_compared_apart():
    """Better clicks do not pay for lost purchases, and the other way round."""
    fine, lost = (100_000.0, 95_000.0), (100_000.0, 99_000.0)
    tolerances = {"click_tolerance": 0.25, "purchase_tolerance": 0.25}
    baseline = metrics(900_000, misses=855_000)
    for clicks, purchases, action in (
        (fine, fine, "promote"),
        (fine, lost, "roll_back"),
        (lost, fine, "roll_back"),
    ):
        canary = metrics(100_000).model_copy(
            update={
                "no_click": Proportion(bad=clicks[1], total=clicks[0]),
                "no_purchase": Proportion(bad=purchases[1], total=purchases[0]),
            }
        )
        assert compare(baseline, canary, **tolerances) == action
    assert compare(baseline, canary, click_tolerance=None, purchase_tolerance=0.25) == "promote"


def test_a_comparison_lasts_whole_days():
    assert compare(metrics(9000), metrics(5000), days=1.99, min_days=2) == "hold"
    assert compare(metrics(9000), metrics(5000), days=2.0, min_days=2) == "promote"
    # A fault is no reason to wait.
    worse = metrics(5000, errors=5000)
    assert compare(metrics(9000), worse, days=0.0, min_days=2) == "roll_back"


def test_the_quality_of_few_people_holds():
    baseline = metrics(900_000, misses=855_000)
    for misses in (95_000, 97_500):
        few = metrics(100_000, misses=misses, users=49)
        assert compare(baseline, few, click_tolerance=0.25) == "hold"
        unknown = few.model_copy(update={"users": None})
        assert compare(baseline, unknown, click_tolerance=0.25) == "hold"


def test_a_deadline_before_the_comparison_may_end_is_an_error():
    with pytest.raises(ValueError, match="min_days"):
        RolloutSettings(min_days=2, deadline_hours=48)


def test_only_a_canary_that_is_shown_to_be_worse_is_called_worse():
    worse = compare_canary(SETTINGS, metrics(5000), metrics(100, errors=100), False, 1.0)
    late = compare_canary(SETTINGS, metrics(5000), metrics(10), True, 1.0)
    assert (worse.action, worse.is_worse) == ("roll_back", True)
    assert (late.action, late.is_worse) == ("roll_back", False)


def test_unknown_quality_holds():
    canary = metrics(5000).model_copy(update={"no_click": Proportion()})
    assert compare(metrics(9000), canary, click_tolerance=0.25) == "hold"
    only_misses = metrics(9000, misses=9000)
    assert compare(only_misses, only_misses, click_tolerance=0.25) == "hold"


def test_reasons_name_the_measure_the_predictor_and_the_problem():
    baseline = metrics(9000).model_copy(update={"slow": Proportion()})
    reasons = " ".join(compare_canary(SETTINGS, baseline, metrics(5000), False, 1.0).reasons)
    assert "slow answers" in reasons
    assert "the value of the baseline is missing" in reasons
    worse = compare_canary(SETTINGS, metrics(5000), metrics(100, errors=100), False, 1.0)
    assert "increase in errors is at least" in worse.reasons[0]
    assert not worse.verdict.passed


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_invalid_or_insufficient_proportion_never_promotes(seed):
    """Random metrics with one invalid proportion are not promoted, whatever the others are."""
    rng = random.Random(seed)
    tolerances = {"click_tolerance": 0.5, "purchase_tolerance": 0.5}
    settings = SETTINGS.model_copy(update=tolerances)
    fields = ("errors", "fallbacks", "slow", "no_click", "no_purchase")
    for _ in range(150):
        pair = [metrics(rng.randrange(100, 10**6)) for _ in range(2)]
        valid = compare_canary(settings, pair[0], pair[1], False, 1.0)
        side, name = rng.randrange(2), rng.choice(fields)
        proportion = getattr(pair[side], name)
        invalid = rng.choice(
            [
                Proportion(bad=rng.choice(INVALID), total=proportion.total),
                Proportion(bad=proportion.bad, total=rng.choice(INVALID)),
                Proportion(bad=rng.randrange(1, 99), total=rng.randrange(1, 99)),
                Proportion(bad=proportion.total + 1, total=proportion.total),
            ]
        )
        pair[side] = pair[side].model_copy(update={name: invalid})
        for expired in (False, True):
            comparison = compare_canary(settings, pair[0], pair[1], expired, 1.0)
            assert comparison.action != "promote"
            assert not comparison.verdict.passed
            comparison.verdict.model_dump_json()
        assert valid.verdict.passed == (valid.action == "promote")
