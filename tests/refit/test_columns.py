import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from refit.columns import FEW_CODES, Labels, Numbers, Range, expand, read_column

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
