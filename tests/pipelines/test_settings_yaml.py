"""Each kind of YAML that programs or people read otherwise than it was meant."""

import pytest
import yaml

from pipelines.strict_yaml import is_text, parse_document, parse_value, resolve_plain
from refit.errors import UsageError
from refit.setting_values import EMPTY


def read(text):
    return parse_document(text, "my.yaml").values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("+5", 5),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e5", 100000.0),  # a text to YAML 1.1, which wants a point and a sign
        ("1.5e3", 1500.0),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("2024-05-01", "2024-05-01"),  # a date to YAML 1.1, also where text is meant
        ("2024-05-01T12:30:00+02:00", "2024-05-01T12:30:00+02:00"),
        ("0.1.0", "0.1.0"),
        ("s3://bucket/data#1", "s3://bucket/data#1"),
        ('"yes"', "yes"),
        ("'010'", "010"),
        ('""', ""),
        ("=", "="),
        ("[1, [a, b]]", [1, ["a", "b"]]),
        ("{b: 1, c: {}}", {"b": 1, "c": {}}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ('"two\n  lines"', "two lines"),
        ("two\n  lines", "two lines"),  # as programs write long texts
        ("", EMPTY),
        ("#fff", EMPTY),
    ],
)
def test_values_by_the_core_schema(text, value):
    assert read(f"a: {text}") == {"a": value}


DOUBTS = [
    # switches of YAML 1.1
    *(
        (f"a: {word}", f'a: {word} can be read in two ways; write {value}, or "{word}" in quotes')
        for value, words in (("true", ("yes", "On", "y")), ("false", ("no", "OFF", "N")))
        for word in words
    ),
    ("a: [no, se]", 'a.0: no can be read in two ways; write false, or "no" in quotes for text'),
    # null of other languages
    *((f"a: {word}", "write null for none, or") for word in ("None", "none", "nil", "undefined")),
    # infinities, and what is none
    *((f"a: {word}", "write a finite number, or") for word in (".inf", "-.INF", ".nan", "Inf")),
    ("a: 1e400", "a: 1e400 is too large; write a number below 2^63"),
    (f"a: {'9' * 5000}", "is too large"),
    # numbers that are not decimal, or not to everybody
    ("a: 010", 'a: 010 can be read in two ways; write 10, or "010" in quotes for text'),
    ("a: -007", "write -7, or"),
    ("a: 08", "write 8, or"),
    ("a: 01.50", "write 1.50, or"),
    ("a: 0x1F", "write the number in decimal, or"),
    ("a: 0o17", "write the number in decimal, or"),
    ("a: 0b101", "write the number in decimal, or"),
    ("a: 1_000", "write 1000, or"),
    ("a: 1:30", "write the number that you mean, or"),
    ("a: 12:30:45", "write the number that you mean, or"),
    # typing that cannot be seen
    ("a: “x”", "these quotes are not YAML's"),
    ("a: x\u00a0y", "a: 'x\\xa0y' can be read in two ways; it contains an invisible character"),
    ("a: x\u200b", "it contains an invisible character"),
    # values that go on
    ("a: [b\n  c]", "a.0: 'b c' continues on the next line; put it in quotes, or write the comma"),
    ("a: {b: c\n  d}", "a.b: 'c d' continues on the next line"),
    # names
    ("a: 1\nb: 2\na: 3", "a: is given twice, the first time on line 1; keep one (line 3)"),
    ("a:\n  b: 1\n  b: 2", "a.b: is given twice, the first time on line 2; keep one (line 3)"),
    ("a: {b: 1, b: 2}", "a.b: is given twice; keep one"),
    ("a: 1\n'a': 2", "a: is given twice"),
    ("1: a", '1: this name is not read as text; write "1" in quotes (line 1)'),
    ("a: {true: 1}", 'a.true: this name is not read as text; write "true" in quotes'),
    ("on: a", 'on: this name is not read as text; write "on" in quotes'),
    ("? [a]\n: b", "has a name that is a list or a mapping; names are text"),
    # anchors
    ("a: &x [1, *x]", "a.1: contains itself through its own anchor"),
    ("a: {<<: 3}", "a: << takes a mapping; write <<: *anchor"),
    # what is no YAML, or more than one of it
    ("a:\n\tb: 1", "my.yaml, line 2, column 1: is not YAML for settings: a tab; YAML takes spaces"),
    ("a: size: M", "line 1, column 8: is not YAML for settings: a colon is not allowed here"),
    ("a:\n b: 1\n  c: 2", "line 3, column 4: is not YAML for settings: a colon is not allowed"),
    ("a: @b", "text cannot start with this character; put it in quotes"),
    ("a: [*/null_share]", "text that starts with * refers to an anchor; put it in quotes"),
    ("a: *b", "text that starts with * refers to an anchor; put it in quotes"),
    ("a: 'b", "a quote is not closed"),
    ("a: [b", "a comma or a closing bracket is missing"),
    ("a: [b c\n  d: e]", "a comma or a closing bracket is missing"),
    ("a: 1\nb\nc: 2", "a line without a colon"),
    ("a: 'b' c", "the indentation does not fit the lines before"),
    ("a: !!str 5", "tags are not read; write the value without one"),
    ("a: !!python/name:os.system", "tags are not read"),
    ("a: !!binary aGVsbG8=", "tags are not read"),
    ("--- {a: 1}\n--- {a: 2}", "line 2, column 1: is not YAML for settings: a second document"),
    ("a: \x07", "line 1, column 4: is not YAML: the character '\\x07' is not allowed"),
    ("a: " + "[" * 5000, "my.yaml, line 1, column 1: is not YAML for settings: it is nested too"),
    ("- a", "my.yaml must hold settings by name"),
    ("a", "my.yaml must hold settings by name"),
    ("", "my.yaml must hold settings by name"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), DOUBTS, ids=lambda case: str(case)[:40])
def test_what_can_be_read_in_two_ways_is_an_error(text, words):
    with pytest.raises(UsageError) as refused:
        read(text)
    message = str(refused.value)
    assert words in message
    assert message.startswith("my.yaml")
    assert "\n" not in message


def test_every_doubt_is_listed_with_its_line():
    with pytest.raises(UsageError) as refused:
        read("a: yes\nb: {c: 010}\nd: 5")
    head, *lines = str(refused.value).splitlines()
    assert head == "my.yaml has 2 faults:"
    assert lines[0].endswith("(line 1)")
    assert lines[1].startswith("  b.c: 010")
    assert lines[1].endswith("(line 2)")


def test_anchors_and_merges():
    text = (
        "base: &base {a: 1, b: 2}\none: {<<: *base, b: 3}\nmany: {<<: [{a: 5}, *base]}\nsame: *base"
    )
    assert read(text) == {
        "base": {"a": 1, "b": 2},
        "one": {"a": 1, "b": 3},
        "many": {"a": 5, "b": 2},
        "same": {"a": 1, "b": 2},
    }


def test_places_are_lines_and_what_was_written():
    places = parse_document("a:\n  b: [x, 2.170]\n  c:\n", "my.yaml").places
    assert (places["a", "b", 1].where, places["a", "b", 1].written) == ("line 2", "2.170")
    assert places["a", "c"].where == "line 3"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("null", None),
        ('""', ""),
        ("[a, b]", ["a", "b"]),
        ("{a: 1}", {"a": 1}),
        ("http://localhost/x=y#z", "http://localhost/x=y#z"),
    ],
)
def test_values_of_the_command_line(text, value):
    assert parse_value(text, ("a", "b"), "--set")[0] == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "",
            "sign; write a value, null for none, or a.b='\"\"' for empty text",
        ),
        ("  ", "there is no value after the equals sign"),
        ("# x", "there is no value after the equals sign"),
        ("x #1", "'#1' is not read as a part of the value; put it in quotes: --set 'a.b=\"x #1\"'"),
        ("|", "'|' is not read as a part of the value"),
        ("yes", 'a.b: yes can be read in two ways; write true, or "yes"'),
        ("{a: 1, a: 2}", "a.b.a: is given twice; keep one"),
        ("[", "--set a.b: '[': is not YAML"),
        ("*x", "refers to an anchor"),
    ],
)
def test_what_the_command_line_would_read_otherwise(text, words):
    with pytest.raises(UsageError) as refused:
        parse_value(text, ("a", "b"), "--set")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["a", "data/x.csv", "category_1", "1GB", "yes", "no", "5", "", "a b", "x: y", "1:30", "~"],
)
def test_texts_that_need_no_quotes_are_read_as_themselves_by_every_reader(text):
    if is_text(text):
        assert resolve_plain(text) == text
        assert yaml.safe_load(f"a: [{text}]") == {"a": [text]}
        assert read(f"a: [{text}]") == {"a": [text]}
    else:
        assert text not in ("a", "data/x.csv", "category_1")
