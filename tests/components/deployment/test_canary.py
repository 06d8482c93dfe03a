import math
import random

import pytest

from components.deployment.canary import Arm, Proportion, compare_canary, confidence_sequence
from components.deployment.settings import RolloutSettings

SETTINGS = RolloutSettings(min_requests=100, quality_drop=None)
ODD = (math.nan, math.inf, -math.inf, -1.0, None)


def arm(n: float | None, errors=0, fallbacks=0, slow=0, misses=0, restarts=0) -> Arm:
    return Arm(
        bundle_id="b",
        pods=1,
        restarts=restarts,
        errors=Proportion(bad=errors, of=n),
        fallbacks=Proportion(bad=fallbacks, of=n),
        slow=Proportion(bad=slow, of=n),
        misses=Proportion(bad=misses, of=n),
    )


def judged(main: Arm, canary: Arm, expired=False, **changes) -> str:
    settings = SETTINGS.model_copy(update=changes)
    return compare_canary(settings, main, canary, expired).action


def test_a_sequence_over_nothing_bad_is_known_in_closed_form():
    """B(1/2, 3/2) / B(1/2, 1/2) = 1/2, so that after one good answer 1 - p > error / 2 holds."""
    low, high = confidence_sequence(Proportion(bad=0, of=1), 0.05)
    assert low == 0
    assert high == pytest.approx(1 - 0.05 / 2, abs=1e-9)


def test_a_sequence_holds_two_of_four_as_computed_by_hand():
    """B(5/2, 5/2) / B(1/2, 1/2) = 3/128; p(1 - p) > sqrt(3/128 * 0.2) is a quadratic."""
    root = math.sqrt(1 - 4 * math.sqrt(3 / 128 * 0.2))
    low, high = confidence_sequence(Proportion(bad=2, of=4), 0.2)
    assert (low, high) == pytest.approx(((1 - root) / 2, (1 + root) / 2), abs=1e-9)


def test_a_sequence_before_the_first_answer_knows_nothing():
    assert confidence_sequence(Proportion(bad=0, of=0), 0.01) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 7, 1000, 10**7, 10**12])
@pytest.mark.parametrize("part", [0.0, 1e-6, 0.3, 1.0])
def test_a_sequence_is_an_interval_around_what_was_seen(n, part):
    for bad in {round(n * part), min(n, 1), n - 1, n}:
        low, high = confidence_sequence(Proportion(bad=bad, of=n), 1e-3)
        assert 0 <= low <= bad / n <= high <= 1
        assert low < high


def test_looking_at_every_answer_is_wrong_no_more_often_than_stated():
    """A fixed 80% interval would miss most of these paths at some time."""
    rng, truth, error = random.Random(1), 0.2, 0.2
    missed = 0
    for _ in range(300):
        bad = 0
        for n in range(1, 301):
            bad += rng.random() < truth
            low, high = confidence_sequence(Proportion(bad=bad, of=n), error)
            if not low <= truth <= high:
                missed += 1
                break
    assert missed / 300 <= error


def test_two_equal_arms_are_promoted_once_enough_was_seen():
    assert judged(arm(90), arm(10)) == "hold"
    assert judged(arm(9000), arm(500)) == "hold"
    assert judged(arm(9000), arm(2000)) == "promote"


def test_thin_evidence_holds_on_either_side():
    wide = {"error_increase": 0.9, "fallback_increase": 0.9, "slow_increase": 0.9}
    assert judged(arm(100), arm(100), **wide) == "promote"
    assert judged(arm(99), arm(100), **wide) == "hold"
    assert judged(arm(100), arm(99), **wide) == "hold"


@pytest.mark.parametrize("measure", ["errors", "fallbacks", "slow"])
def test_clear_harm_rolls_back_at_once(measure):
    assert judged(arm(500), arm(20, **{measure: 20})) == "roll_back"
    # The other way round the canary is the better one.
    assert judged(arm(2000, **{measure: 1000}), arm(2000)) == "promote"


def test_a_little_harm_is_held_until_it_is_known_which():
    assert judged(arm(10_000, errors=100), arm(1000, errors=20)) == "hold"
    assert judged(arm(90_000, errors=900), arm(10_000, errors=300)) == "roll_back"
    assert judged(arm(900_000, errors=9000), arm(100_000, errors=1100)) == "promote"


def test_restarts_roll_back():
    assert judged(arm(9000), arm(5000, restarts=3)) == "promote"
    assert judged(arm(9000), arm(5000, restarts=4)) == "roll_back"


def test_the_deadline_rolls_back_what_is_not_proved():
    assert judged(arm(9000), arm(10), expired=True) == "roll_back"
    assert judged(arm(None), arm(None), expired=True) == "roll_back"
    assert judged(arm(9000), arm(5000), expired=True) == "promote"


def test_quality_is_compared_as_a_part_of_the_main_arms():
    """Of 5% that lead to something, a quarter is 1.25 points."""
    main = arm(900_000, misses=855_000)
    kept, halved = arm(100_000, misses=95_500), arm(100_000, misses=97_500)
    assert judged(main, kept, quality_drop=0.25) == "promote"
    assert judged(main, halved, quality_drop=0.25) == "roll_back"
    assert judged(main, halved) == "promote"


def test_quality_that_is_not_known_holds():
    canary = arm(5000).model_copy(update={"misses": Proportion()})
    assert judged(arm(9000), canary, quality_drop=0.25) == "hold"
    assert judged(arm(9000, misses=9000), arm(9000, misses=9000), quality_drop=0.25) == "hold"


def test_the_reasons_name_measure_arm_and_what_is_missing():
    main = arm(9000).model_copy(update={"slow": Proportion()})
    reasons = " ".join(compare_canary(SETTINGS, main, arm(5000), False).reasons)
    assert "slow answers" in reasons
    assert "main arm it is missing" in reasons
    harm = compare_canary(SETTINGS, arm(5000), arm(100, errors=100), False)
    assert "increase of errors is at least" in harm.reasons[0]
    assert not harm.verdict.passed


@pytest.mark.parametrize("seed", range(4))
def test_nothing_missing_odd_or_thin_is_ever_promoted(seed):
    """Random arms, of which one share is spoilt: whatever the rest says, it is no promotion."""
    rng = random.Random(seed)
    settings = SETTINGS.model_copy(update={"quality_drop": 0.5})
    fields = ("errors", "fallbacks", "slow", "misses")
    for _ in range(150):
        arms = [arm(rng.randrange(100, 10**6)) for _ in range(2)]
        good = compare_canary(settings, arms[0], arms[1], False)
        side, name = rng.randrange(2), rng.choice(fields)
        share = getattr(arms[side], name)
        spoilt = rng.choice(
            [
                Proportion(bad=rng.choice(ODD), of=share.of),
                Proportion(bad=share.bad, of=rng.choice(ODD)),
                Proportion(bad=rng.randrange(1, 99), of=rng.randrange(1, 99)),
                Proportion(bad=share.of + 1, of=share.of),
            ]
        )
        arms[side] = arms[side].model_copy(update={name: spoilt})
        for expired in (False, True):
            spoilt_judgement = compare_canary(settings, arms[0], arms[1], expired)
            assert spoilt_judgement.action != "promote"
            assert not spoilt_judgement.verdict.passed
            spoilt_judgement.verdict.model_dump_json()
        assert good.verdict.passed == (good.action == "promote")
