import math

import numpy as np
import pytest

from monitoring.quality.intervals import (
    PersonSums,
    covariance_of_rates,
    ratio_interval,
    wilson_interval,
)

# Three people: 1 of 2 answers, 0 of 1, 1 of 1.
SUMS = PersonSums.of(np.array([7, 3, 7, 5]), np.array([1.0, 0, 0, 1]))


def test_rows_are_added_up_by_person():
    assert SUMS.people.tolist() == [3, 5, 7]
    assert SUMS.hits.tolist() == [0, 1, 1]
    assert SUMS.answers.tolist() == [1, 1, 2]
    assert SUMS.rate == 0.5
    assert SUMS.effective_people == pytest.approx(16 / 6)


def test_the_influence_is_what_leaving_a_person_out_changes():
    # Without person 3: 2 of 3; without 5: 1 of 3; without 7: 1 of 2.
    assert SUMS.influence == pytest.approx([0.5 - 2 / 3, 0.5 - 1 / 3, 0.0])
    assert SUMS.variance == pytest.approx(2 / 36)


def test_a_wilson_interval_equals_the_published_one():
    # 10 of 100 at 95%: 0.0552 to 0.1744 (Newcombe, 1998).
    assert wilson_interval(0.1, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)


def test_answers_of_one_person_count_as_few():
    random = np.random.default_rng(0)
    spread = PersonSums.of(np.arange(400), np.repeat([1.0, 0.0], 200))
    heavy = PersonSums.of(np.repeat(np.arange(40), 10), np.repeat([1.0, 0.0], 200))
    low, high = spread.interval()
    assert (low, high) == pytest.approx(wilson_interval(0.5, 400), abs=0.001)
    assert heavy.interval()[1] - heavy.interval()[0] > 2.5 * (high - low)
    nobody = PersonSums.of(random.integers(0, 20, 400), np.zeros(400))
    assert nobody.interval()[0] == 0
    assert nobody.interval()[1] > 0.1


def test_revenue_has_a_symmetric_interval():
    paid = PersonSums.of(np.arange(4), np.array([0.0, 0.0, 10.0, 30.0]))
    low, high = paid.interval(share=False)
    assert (low + high) / 2 > paid.rate or low == 0
    assert high - paid.rate == pytest.approx(3.182446 * math.sqrt(paid.variance))


def test_people_who_come_again_make_days_alike():
    same = covariance_of_rates([SUMS, SUMS])
    assert same == pytest.approx(np.full((2, 2), 2 / 36))
    other = PersonSums(SUMS.people + 100, SUMS.hits, SUMS.answers)
    assert covariance_of_rates([SUMS, other])[0, 1] == 0


def test_a_ratio_s_interval_multiplies():
    one = PersonSums.of(np.arange(100), np.repeat([1.0, 0.0], 50))
    low, high = ratio_interval(one, PersonSums(one.people + 100, one.hits, one.answers))
    assert low * high == pytest.approx(1)
    assert low < 1 < high
