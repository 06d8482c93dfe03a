"""What a setting takes, and what an error says: by kind of value, in every class of settings."""

from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, PositiveFloat

from refit.errors import UsageError
from refit.setting_values import EMPTY, Place
from refit.settings import Settings


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Tower(Settings):
    size: int = Field(default=64, ge=1)
    rate: PositiveFloat = 0.003


class Sample(Settings):
    count: int = 10
    rate: float = 0.5
    limit: float | None = None
    name: str = "x"
    zone: str | None = None
    wanted: bool = False
    kind: Literal["auto", "flat", "ivf"] = "auto"
    release: Literal["2.17", "2.0"] = "2.17"
    colour: Colour = Colour.RED
    at: datetime | None = None
    day: date = date(2024, 5, 1)
    folder: Path = Path()
    columns: tuple[str, ...] = ()
    lives: tuple[float, ...] = (7.0,)
    edges: tuple[float, float] = (0.0, 1.0)
    weights: dict[str, float] = {"purchase": 1.0}
    options: dict[str, Any] = {}
    tower: Tower = Tower()
    towers: tuple[Tower, ...] = ()
    by_name: dict[str, Tower] = {}
    mixed: int | str = 0


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ({"count": 3}, 3),
        ({"rate": 3}, 3.0),
        ({"limit": None}, None),
        ({"zone": None}, None),
        ({"wanted": True}, True),
        ({"kind": "flat"}, "flat"),
        ({"colour": "blue"}, Colour.BLUE),
        ({"at": "2024-05-01"}, datetime(2024, 5, 1)),
        ({"at": "2024-05-01T12:30:00Z"}, datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        ({"at": datetime(2024, 5, 1)}, datetime(2024, 5, 1)),
        ({"day": "2024-05-02"}, date(2024, 5, 2)),
        ({"folder": "data"}, Path("data")),
        ({"folder": Path("data")}, Path("data")),
        ({"columns": ["a", "b"]}, ("a", "b")),
        ({"columns": ("a",)}, ("a",)),
        ({"lives": [7, 0.5]}, (7.0, 0.5)),
        ({"weights": {"view": 1}}, {"view": 1.0}),
        ({"options": {"any": [1, True, None]}}, {"any": [1, True, None]}),
        ({"tower": {"size": 8}}, Tower(size=8)),
        ({"tower": Tower(size=8)}, Tower(size=8)),
        ({"tower": EMPTY}, Tower()),
        ({"towers": [{"size": 8}, EMPTY]}, (Tower(size=8), Tower())),
        ({"by_name": {"a": {"size": 8}}}, {"a": Tower(size=8)}),
        ({"mixed": "a"}, "a"),
    ],
)
def test_values_that_fit(values, read):
    (name,) = values
    assert getattr(Sample.parse(values), name) == read


KINDS = [
    # a switch or a number for the other, or for a text
    ({"count": True}, "count: expected a whole number, read true; write a number such as 10"),
    ({"rate": False}, "rate: expected a number, read false; write a number such as 0.5"),
    ({"wanted": 1}, "wanted: expected true or false, read the number 1; write true"),
    ({"wanted": "no"}, 'wanted: expected true or false, read the text "no"; write false'),
    ({"wanted": "maybe"}, "write true or false"),
    ({"name": True}, 'name: expected text, read true; write "true" in quotes'),
    ({"name": 38}, 'name: expected text, read the number 38; write "38" in quotes'),
    ({"columns": ["a", 38]}, 'columns.1: expected text, read the number 38; write "38" in quotes'),
    ({"folder": 7}, "folder: expected a path, read the number 7"),
    ({"release": 2.17}, "expected '2.17' or '2.0', read the number 2.17; write \"2.17\" in quotes"),
    ({"mixed": True}, "mixed: expected a whole number or text, read true"),
    # texts for numbers
    ({"count": "5"}, 'count: expected a whole number, read the text "5"; write 5'),
    ({"count": "1_000"}, "write 1000"),
    ({"count": "50,000"}, "write 50000"),
    ({"rate": "0,05"}, "write 0.05"),
    ({"rate": "5 %"}, "write 5"),
    ({"count": "1e3"}, "write 1000"),
    ({"count": "many"}, "write a number such as 10"),
    ({"count": "inf"}, "write a number such as 10"),
    ({"limit": "None"}, "write null for none"),
    # fractions, infinities, numbers too large
    ({"count": 1.0}, "count: expected a whole number, read the number 1.0; write 1"),
    ({"count": 2.5}, "write a whole number such as 2"),
    ({"count": 2**63}, "count: read 9223372036854775808, which is too large"),
    ({"count": float("inf")}, "write a whole number such as 10"),
    ({"rate": float("inf")}, "rate: read inf; write a finite number such as 0.5"),
    ({"limit": float("nan")}, "read nan; write a finite number such as 0.5, or null for none"),
    ({"lives": [7, float("-inf")]}, "lives.1: read -inf; write a finite number"),
    ({"weights": {"view": float("inf")}}, "weights.view: read inf"),
    ({"tower": {"rate": float("inf")}}, "tower.rate: read inf; write a finite number such as 0.0"),
    # nothing and null
    ({"count": None}, "count: expected a whole number, read null; write a number such as 10, or"),
    ({"name": None}, 'name: expected text, read null; write "" for none, or leave the line out'),
    ({"columns": None}, "columns: expected a list, read null; write [] for none, or leave"),
    ({"weights": None}, "expected values by name, read null; write {} for none, or leave"),
    ({"tower": None}, "tower: expected settings by name, read null; leave the line out"),
    ({"wanted": EMPTY}, "wanted: expected true or false, read nothing; write a value, or leave"),
    ({"limit": EMPTY}, "limit: expected a number, read nothing; write null for none, or a value"),
    ({"columns": [EMPTY]}, "columns.0: expected text, read nothing"),
    ({"options": {"a": [{"b": EMPTY}]}}, "options.a.0.b: expected a value, read nothing"),
    # dates
    ({"at": 20240501}, "at: expected a date or a time, read the number 20240501; write it as 2"),
    ({"at": "20240501"}, 'at: expected a date or a time, read "20240501"; write it as 2024-05-01'),
    ({"at": "1704067200"}, "write it as 2024-05-01 or 2024-05-01T12:30:00+02:00"),
    ({"at": "1/5/2024"}, "write it as 2024-05-01"),
    ({"at": "2024-02-30"}, "at: must be a valid datetime"),
    ({"day": True}, "day: expected a date, read true"),
    ({"day": "1714521600"}, "write it as 2024-05-01"),
    # lists, mappings and sections
    ({"columns": "title"}, 'columns: expected a list, read the text "title"; write [title]'),
    ({"columns": {"a": 1}}, "columns: expected a list, read a mapping"),
    ({"lives": 7}, "lives: expected a list, read the number 7; write [7]"),
    ({"edges": [1]}, "edges.1: is missing"),
    ({"weights": ["a"]}, "weights: expected values by name, read a list"),
    ({"weights": {1: 0.5}}, 'weights: the name 1 is not text; write "1" in quotes'),
    ({"name": ["a"]}, "name: expected text, read a list; put the text in quotes"),
    ({"name": {"size": "M"}}, "name: expected text, read a mapping; put the text in quotes"),
    ({"tower": "size:8"}, 'expected settings by name, read the text "size:8"; put a space after'),
    ({"tower": [1]}, "tower: expected settings by name, read a list"),
    ({"towers": [{"size": True}]}, "towers.0.size: expected a whole number, read true"),
    ({"by_name": {"a": {"size": "x"}}}, "by_name.a.size: expected a whole number"),
    # choices
    ({"kind": "Flat"}, "'auto', 'flat' or 'ivf', read the text \"Flat\"; did you mean flat?"),
    ({"kind": "hnsw"}, "expected 'auto', 'flat' or 'ivf'"),
    ({"colour": 3}, "colour: expected 'red' or 'blue', read the number 3"),
    # names and bounds
    ({"cuont": 3}, "cuont: unknown name; did you mean 'count'?"),
    ({"tower": {"sise": 3}}, "tower.sise: unknown name; did you mean 'size'?"),
    ({"towers": [{"sise": 3}]}, "towers.0.sise: unknown name; did you mean 'size'?"),
    ({"by_name": {"a": {"sise": 3}}}, "by_name.a.sise: unknown name; did you mean 'size'?"),
    ({"tower": {"size": 0}}, "tower.size: must be greater than or equal to 1, read 0"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "words"), KINDS, ids=lambda case: str(case)[:60])
def test_values_that_do_not_fit(values, words):
    with pytest.raises(UsageError) as refused:
        Sample.parse(values)
    text = str(refused.value)
    assert words in text
    assert text.startswith("Sample: ")
    assert "\n" not in text


def test_every_fault_is_listed_once():
    with pytest.raises(UsageError) as refused:
        Sample.parse({"count": True, "rat": 1, "tower": {"size": 0, "rate": "fast"}})
    head, *lines = str(refused.value).splitlines()
    assert head == "Sample has 4 faults:"
    assert [line.partition(":")[0] for line in lines] == [
        "  count",
        "  tower.rate",
        "  tower.size",
        "  rat",
    ]


def test_a_fault_reports_where_and_what_was_written():
    places = {("release",): Place("line 3", "2.170"), ("tower",): Place("line 4")}
    with pytest.raises(UsageError) as refused:
        Sample.parse({"release": 2.17, "tower": {"size": None}}, places, "my.yaml")
    assert str(refused.value).splitlines() == [
        "my.yaml has 2 faults:",
        "  release: expected '2.17' or '2.0', read the number 2.170; "
        'write "2.17" in quotes (line 3)',
        "  tower.size: expected a whole number, read null; "
        "write a number such as 64, or leave the line out (line 4)",
    ]


def test_a_quoted_number_is_shown_without_quotes():
    with pytest.raises(UsageError, match="write 5 without quotes"):
        Sample.parse({"count": "5"}, {("count",): Place("line 1", "5", quoted=True)})


def test_long_values_are_truncated():
    with pytest.raises(UsageError) as refused:
        Sample.parse({"count": "x" * 1000})
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Sample must be JSON: "),
        ("[1]", "Sample must be a JSON object, not '[1]'"),
        ('{"count": 1, "count": 2}', "'count' is given twice in one object"),
        ('{"tower": {"size": 1, "size": 2}}', "'size' is given twice in one object"),
        ('{"rate": Infinity}', "rate: read inf"),
        ('{"rate": 1e999}', "rate: read inf"),
        ('{"rate": NaN}', "rate: read nan"),
        ('{"count": true}', "count: expected a whole number"),
        ('{"count": "1"}', "count: expected a whole number"),
    ],
)
def test_json_is_parsed_as_strictly(text, words):
    with pytest.raises(UsageError) as refused:
        Sample.parse_json(text)
    assert words in str(refused.value)


def test_dumped_settings_can_be_parsed_again():
    sample = Sample.parse(
        {"at": "2024-05-01T12:30:00Z", "limit": 3, "colour": "blue", "towers": [{"size": 8}]}
    )
    assert Sample.parse_json(sample.model_dump_json()) == sample
    assert Sample.parse(sample.model_dump()) == sample


def test_values_from_code_are_converted_by_pydantic():
    """What code builds is checked by types, not by what a user may have meant."""
    assert Sample(columns=["a"], rate=1).columns == ("a",)
