import numpy as np
import pytest

from monitoring.quality.baseline import JudgedRate
from monitoring.quality.holdout import UNTOLD, Lift, compare_with, explain_fall, find_episode
from monitoring.quality.intervals import PersonSums
from monitoring.quality.settings import QualitySettings

SETTINGS = QualitySettings()


def judged(fall, spread=0.05, own=0.04, threshold=0.02):
    """Of 100 people with an expected rate of .2, one that is lower by a share."""
    now = PersonSums(np.arange(100), np.full(100, 0.2 * (1 - fall)), np.ones(100))
    return JudgedRate(now, 0.2, threshold, spread, own, 10, 1000.0)


def test_the_drop_beyond_the_market_is_relative_to_both():
    lift = compare_with(SETTINGS, "holdout", [judged(0.3)], [judged(0.1)])
    assert (lift.model, lift.market) == (pytest.approx(0.3), pytest.approx(0.1))
    assert lift.drop == pytest.approx(0.2)
    assert lift.threshold == pytest.approx(2.3263479 * np.hypot(0.05, 0.05))
    assert lift.fell


def test_people_who_browse_may_move_differently():
    lift = compare_with(SETTINGS, "organic rate", [judged(0.3)], [judged(0.1)])
    assert lift.threshold == pytest.approx(2.3263479 * np.sqrt(3 * 0.05**2))


def test_more_windows_average_out_what_is_their_own():
    four = compare_with(SETTINGS, "holdout", [judged(0.3)] * 4, [judged(0.1)] * 4)
    # Shared .03, own .04 / sqrt(4) of each side.
    assert four.threshold == pytest.approx(2.3263479 * np.sqrt(2 * (0.03**2 + 0.02**2)))


@pytest.mark.parametrize(
    ("market", "spread", "said"),
    [
        (0.3, 0.05, "the market fell, the model did not"),
        (0.0, 0.05, "the model fell"),
        (0.0, 0.5, "cannot be told yet"),
        (0.05, 0.105, "cannot be told yet"),  # .25 further than the market, .27 are needed
    ],
)
def test_whose_fall_it_is(market, spread, said):
    model = judged(0.3)
    lift = compare_with(SETTINGS, "holdout", [model], [judged(market, spread)])
    decides, why = explain_fall(model, [lift])
    assert said in why
    assert (decides is None) == ("cannot" in said)


def test_a_weaker_denominator_decides_when_the_better_one_cannot():
    weak = Lift("holdout", 0.3, 0.0, 0.9)
    decides, why = explain_fall(judged(0.3), [weak, Lift("organic rate", 0.3, 0.28, 0.1)])
    assert decides.name == "organic rate"
    assert "the organic rate fell by 28%" in why


def test_without_a_denominator_it_is_said():
    assert explain_fall(judged(0.3), []) == (None, UNTOLD)
    assert explain_fall(judged(0.0), []) == (None, "")


def test_an_episode_begins_with_the_fall():
    fell, stayed = judged(0.3), judged(0.0)
    assert find_episode([fell, stayed, stayed, fell, fell], 4) == [3, 4]
    assert find_episode([stayed, fell, stayed, fell], 3) == [1, 2, 3]
    assert find_episode([fell, stayed], 1) == [0, 1]
    assert find_episode([stayed, stayed], 1) == [1]
    assert len(find_episode([fell] * 20, 19)) == 7
