import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from refit.columns import (
    FEW_CODES,
    Labels,
    Numbers,
    Range,
    RankedNumbers,
    RowsByCode,
    expand,
    read_column,
)

TEXTS = ["b", None, "a", "", "b", "c"]


def test_texts_match_any_wanted_text_and_a_missing_text_never_matches():
    labels = Labels.of(pa.array(TEXTS))
    assert labels.matches(["b", "nowhere"]).tolist() == [True, False, False, False, True, False]
    assert labels.matches([""]).tolist() == [False, False, False, True, False, False]
    assert not labels.matches([]).any()
    assert labels.take(np.array([5, 1])).matches(["c"]).tolist() == [True, False]


@pytest.mark.parametrize("wanted", [3, FEW_CODES, FEW_CODES + 1, 50])
def test_many_wanted_texts_match_as_few_do(wanted):
    rng = np.random.default_rng(0)
    texts = [None if n == 7 else f"t{n}" for n in rng.integers(60, size=1000)]
    values = [f"t{n}" for n in range(wanted)]
    assert Labels.of(pa.array(texts)).matches(values).tolist() == [t in values for t in texts]


def test_rows_are_found_by_the_text_of_a_query():
    labels = Labels.of(pa.chunked_array([TEXTS[:2], TEXTS[2:]]))
    cells = labels.find(["c", None, "b", "nowhere", "b"])
    found = {(int(q), int(p)) for q, p in zip(cells.query, cells.position, strict=True)}
    assert found == {(0, 5), (2, 0), (2, 4), (4, 0), (4, 4)}
    assert len(Labels.of(pa.array([], pa.string())).find(["b"])) == 0
    assert len(Labels.of(pa.array([None, None], pa.string())).find(["b", None])) == 0


def test_every_number_is_within_bounds_equal_to_itself():
    rng = np.random.default_rng(0)
    prices = np.round(rng.uniform(0, 300, 3000), 2)
    numbers = read_column(pa.array([*prices, None]))
    assert isinstance(numbers, Numbers)
    for row, price in enumerate(prices.tolist()):
        for wanted in (Range(min=price), Range(max=price), Range(min=price, max=price), [price]):
            assert numbers.matches(wanted)[row]
        assert not numbers.matches(Range(max=np.nextafter(price, -1)))[row]
        assert not numbers.matches(Range(min=np.nextafter(price, 400)))[row]
    assert not numbers.matches(Range(min=-1e300))[-1], "a missing number is in no range"
    assert not numbers.matches([0.0])[-1]


def test_whole_numbers_are_numbers():
    assert read_column(pa.array([1, 2, None])).matches([2.0]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "bounds", [{}, {"min": 2.0, "max": 1.0}, {"min": float("nan")}, {"max": float("inf")}]
)
def test_invalid_bounds_are_refused(bounds):
    with pytest.raises(ValidationError):
        Range(**bounds)


def test_ranges_are_expanded():
    number, entry = expand(np.array([5, 2, 9]), np.array([7, 2, 10]))
    assert (number.tolist(), entry.tolist()) == ([0, 0, 2], [5, 6, 9])


def rank(values: np.ndarray, kind: type) -> RankedNumbers:
    distinct = np.unique(values[~np.isnan(values)])
    ranks = np.searchsorted(distinct, values).astype(kind)
    return RankedNumbers(ranks, distinct, RowsByCode.of(ranks, len(distinct)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_ranked_numbers_match_as_the_values_do(kind):
    rng = np.random.default_rng(1)
    values = np.round(rng.normal(0, 20, 2000)).clip(-99, 99)
    values[rng.random(2000) < 0.1] = np.nan
    plain, ranked = Numbers(values), rank(values, kind)
    np.testing.assert_array_equal(ranked.values, values)
    np.testing.assert_array_equal([ranked.value(row) for row in range(99)], values[:99])
    bounds = [None, -1e9, -100.0, -99.0, -0.5, 0.0, 0.5, 3.0, 99.0, 100.0, 1e9]
    ranges = [
        Range(min=low, max=high)
        for low in bounds
        for high in bounds
        if (low, high) != (None, None) and (low is None or high is None or low <= high)
    ]
    lists = [[], [0.5], [3.0], [3, 4.0, 1000.0], list(range(-60, 60))]
    for wanted in (*ranges, *lists):
        np.testing.assert_array_equal(ranked.matches(wanted), plain.matches(wanted))
    assert not rank(np.full(3, np.nan), kind).matches(Range(min=0.0)).any()


def test_sorted_rows_change_nothing_but_the_time():
    rng = np.random.default_rng(2)
    texts = [None if n == 0 else f"t{n}" for n in rng.zipf(1.3, 5000).clip(max=300) - 1]
    plain = Labels.of(pa.array(texts))
    codes = plain.codes.astype(np.int16)
    by_code = RowsByCode.of(codes, len(plain.code_of))
    quick = Labels(codes, plain.code_of, by_code)
    for wanted in (["t1"], ["t299", "t250"], ["nowhere"], [f"t{n}" for n in range(40)]):
        np.testing.assert_array_equal(quick.matches(wanted), plain.matches(wanted))
        alone = [labels.find(wanted[:1]) for labels in (quick, plain)]
        assert set(alone[0].position.tolist()) == set(alone[1].position.tolist())
        together = [labels.find([*wanted, None]) for labels in (quick, plain)]
        for a, b in zip(together[0].position, together[1].position, strict=True):
            assert a == b
