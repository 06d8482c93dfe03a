"""The engine that applies the rules; what the rules find is tested in tests/serving."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from refit.columns import Cells, Labels, Numbers
from refit.eligibility import (
    RULES,
    STANDARD_RULES,
    MarketSettings,
    Rules,
    read_labels,
    read_numbers,
)
from refit.errors import DataValidationError, RefitError, UsageError

THREE_BY_FOUR = [None] * 4, [None] * 3  # candidates and queries, of which only the number counts


def rule(found, items=(), queries=()):
    """A rule that finds the same whatever it is given, or raises it."""

    def find_ineligible(items, queries):
        if isinstance(found, Exception):
            raise found
        return found

    return SimpleNamespace(
        ITEM_COLUMNS=items, QUERY_COLUMNS=queries, find_ineligible=find_ineligible
    )


def cells(*pairs):
    query, position = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Cells(query, position)


def flags(*rows):
    return np.array([[letter == "x" for letter in row] for row in rows])


def shown(found):
    return ["".join("x" if cell else "." for cell in row) for row in found]


def test_each_rule_counts_what_no_earlier_rule_has_removed():
    rules = Rules(
        {
            "all": rule(flags("x...")),
            "some": rule(cells((0, 0), (0, 1), (0, 1), (2, 3))),
            "one": rule(np.array([False, True, False, False])),
            "none": rule(None),
            "nothing": rule(cells()),
            "each": rule(flags("xxxx", "...x", "....")),
        }
    )
    found = rules.find_eligible(*THREE_BY_FOUR)
    assert shown(found.eligible) == ["....", "..x.", "..x."]
    assert found.removed == {"all": 3, "some": 2, "one": 2, "none": 0, "nothing": 0, "each": 3}


def test_flags_of_a_rule_stay_its_own():
    kept = flags("x...", "....", "....")
    rules = Rules({"a": rule(kept), "b": rule(cells((1, 1)))})
    for _ in range(2):
        assert rules.find_eligible(*THREE_BY_FOUR).removed == {"a": 1, "b": 1}
    assert shown(kept) == ["x...", "....", "...."]


def test_where_no_rule_finds_anything_nothing_is_laid_out():
    assert Rules({"a": rule(None)}).find_eligible(*THREE_BY_FOUR).eligible is None


def test_the_first_rule_that_removes_a_candidate_is_its_reason():
    rules = Rules(
        {
            "first": rule(cells((0, 1), (1, 0))),
            "second": rule(flags("xxxx")),
            "third": rule(None),
        }
    )
    found = rules.find_reasons(*THREE_BY_FOUR, np.array([1, 1, 0]))
    assert found.tolist() == ["first", "second", "second"]
    found = Rules({"a": rule(cells((0, 1)))}).find_reasons(*THREE_BY_FOUR, np.array([1, 1, 0]))
    assert found.tolist() == ["a", "", ""]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (KeyError("age"), "'mine' failed with KeyError: 'age'; correct it"),
        ([True] * 4, "'mine' returned list, which do not fit 3 queries and 4 candidates"),
        (np.zeros(4), "'mine' returned ndarray"),
        (np.zeros((4, 3), bool), r"'mine' returned flags \(4, 3\)"),
        (np.zeros((1, 3, 4), bool), r"'mine' returned flags \(1, 3, 4\)"),
        (cells((0, 4)), "'mine' returned cells"),
        (cells((3, 0)), "'mine' returned cells"),
        (cells((0, -1)), "'mine' returned cells"),
    ],
)
def test_a_rule_that_fails_shows_nothing(found, message):
    rules = Rules({"mine": rule(found)})
    with pytest.raises(RefitError, match=message):
        rules.find_eligible(*THREE_BY_FOUR)


def test_a_fault_of_the_request_stays_one():
    with pytest.raises(UsageError, match=r"^age must be a number$"):
        Rules({"a": rule(UsageError("age must be a number"))}).find_eligible(*THREE_BY_FOUR)


def test_columns_that_are_not_there_are_named_with_the_rule():
    rules = Rules({"a": rule(None), "b": rule(None, items=("brand", "adult"), queries=("age",))})
    assert rules.item_columns == ("brand", "adult")
    assert rules.query_columns == ("age",)
    rules.check_columns("item", {"brand", "adult", "size"})
    with pytest.raises(UsageError, match=r"'b' needs the item column 'adult'.*: brand, size"):
        rules.check_columns("item", {"brand", "size"})
    with pytest.raises(UsageError, match="rule 'b' needs the query column 'age'"):
        rules.check_columns("query", ())


def test_the_standard_rules_are_modules_and_no_other_applies_unless_named():
    assert set(RULES.builtin_names()) >= set(STANDARD_RULES)
    unique, replenishable = MarketSettings(), MarketSettings(stock="replenishable")
    assert Rules.load(unique).names == STANDARD_RULES
    assert Rules.load(replenishable).names == tuple(n for n in STANDARD_RULES if n != "bought")
    own = MarketSettings(rules=("acme.refit.rule", "acme.refit.rule"))
    assert own.all_rules == (*STANDARD_RULES, "acme.refit.rule")


def test_a_rule_reads_a_column_as_the_kind_that_it_expects():
    text, number = Labels.of(pa.array(["SE"])), Numbers.of(pa.array([1.0]))
    items = SimpleNamespace(column={"ships_to": text, "weight": number}.get)
    assert read_labels(items, "ships_to") is text
    assert read_numbers(items, "weight") is number
    with pytest.raises(DataValidationError, match="'weight' holds numbers, not text"):
        read_labels(items, "weight")
    with pytest.raises(DataValidationError, match="'ships_to' holds text, not numbers"):
        read_numbers(items, "ships_to")
