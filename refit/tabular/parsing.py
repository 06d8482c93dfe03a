"""Cast raw columns to the kinds of the contract; a value that cannot be read becomes null."""

import re
from collections.abc import Callable, Mapping, Sequence
from zoneinfo import available_timezones

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from refit.contract import Column, ColumnKind
from refit.progress import log_message
from refit.tabular.file_format import REJECT, DateOrder, FileFormat, TimeUnit

RAW = "_raw"
"""A struct column with the raw row, which is written where a row is rejected."""

DTYPES: Mapping[ColumnKind, dt.DataType] = {
    "string": dt.string,
    "number": dt.float64,
    "time": dt.Timestamp(timezone="UTC"),
    "vector": dt.Array(dt.float32),
}
READ_AS = {"number": "a number", "time": "a time", "vector": "a vector"}
NO_ZONE = "has no time zone"
NULL_SPELLING = "spelled like null"
NULL_SPELLINGS = (
    *("null", "nan", "none", "nil", "na", "n/a", "<na>", "nat", "undefined"),
    *("\\n", "(null)", "[null]", "<null>", "#n/a"),
)
"""Texts, in lower case, that tools write for a missing value."""

_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity))$"
_NAN = r"^(?i)[+-]?nan$"
_SPACED_LIST = r"^\[\s*[\d.eE+-]+(\s+[\d.eE+-]+)+\s*\]$"
_NO_ELEMENT = r"^\[\s*\]$"
_MEANS_NULL: Mapping[ColumnKind, str] = {"number": _NAN, "vector": _NO_ELEMENT}
_SPACES = r"[\s\x{a0}\x{202f}\x{2009}]"
_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?"
_DATE: Mapping[DateOrder, tuple[str, str]] = {
    "ymd": (r"^(\d{4})[./](\d{1,2})[./](\d{1,2})([Tt ]|$)", r"\1-\2-\3\4"),
    "dmy": (r"^(\d{1,2})[-./](\d{1,2})[-./](\d{4})([Tt ]|$)", r"\3-\2-\1\4"),
    "mdy": (r"^(\d{1,2})[-./](\d{1,2})[-./](\d{4})([Tt ]|$)", r"\3-\1-\2\4"),
}
"""Dates that are not ISO 8601, and how to write them so."""
_TWELVE_HOURS = (
    rf"^({_DAY})[T ]+(0?[1-9]|1[0-2])((?::\d{{2}}){{1,2}}(?:\.\d+)?)\s*([AaPp])\.?[Mm]\.?(.*)$"
)
_LOCAL_AND_ZONE = rf"^({_DAY}(?:[Tt ]{_CLOCK})?)\s*(.*)$"
_ISO = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d(:?\d\d)?)$"
"""The usual form of a time with a zone; other forms take several times as long to read."""
_OFFSET = r"^([+-]\d{2}(?::?\d{2}){0,2})(?:\[[\w/+-]+\])?$"
_UTC = r"^(Z|z|UTC|GMT|(Z|z)?\[(UTC|GMT|Z|Etc/UTC)\])$"
_ZONE_NAME = r"^\[?([A-Za-z]\w*/[\w/+-]+)\]?$"
_DIGITS = r"^-?\d+(\.\d+)?$"
_PER_SECOND: Mapping[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_LARGEST_SECOND = 253_402_300_799
"""The end of the year 9999."""
_WHOLE = 2**53
_MOST_ZONES = 10_000


@ibis.udf.scalar.builtin(name="timezone")
def _in_zone(
    zone: dt.string,
    local_time: dt.Timestamp(scale=6),  # type: ignore[valid-type]
) -> dt.Timestamp(timezone="UTC"):  # type: ignore[valid-type]
    """DuckDB's function: the time at which clocks in ``zone`` show ``local_time``.

    A local time that clocks show twice is the later one, one that they skip is read as if they
    had not been put forward yet.
    """


@ibis.udf.scalar.builtin(name="make_timestamp")
def _from_micros(micros: dt.int64) -> dt.Timestamp(scale=6):  # type: ignore[valid-type]
    """DuckDB's function: the time of a number of microseconds since 1970."""


@ibis.udf.scalar.builtin(name="divide")
def _divide(value: dt.int64, by: dt.int64) -> dt.int64:
    """DuckDB's function: whole numbers divided without a detour through fractions."""


@ibis.udf.scalar.builtin(name="decode")
def _decode(value: dt.binary) -> dt.string:
    """DuckDB's function: bytes as UTF-8 text."""


def parse(raw: ir.Table, columns: Sequence[Column], form: FileFormat) -> ir.Table:
    """Cast the columns of ``columns`` that the table has, and keep the raw row in ``RAW``.

    A column of a type that cannot be cast is left as it is; ``find_type_errors`` reports it. An
    id that is stored as a fraction is read as a whole number if the whole column is one.

    Args:
        raw: The table as read from its files.
        columns: The contract's columns and those kept beyond it.
        form: How values are written.
    """
    whole = _find_whole_columns(raw, [column.name for column in columns if column.kind == "string"])
    readers: dict[ColumnKind, Callable[[ir.Value], ir.Value]] = {
        "number": lambda value: read_number(value, form),
        "time": lambda value: _read_time(value, form),
        "vector": _read_vector,
    }
    typed = {}
    for column in columns:
        if column.name not in raw.columns:
            continue
        value = _without_nulls(raw[column.name], form)
        if column.kind == "string":
            is_id = column.name.endswith("_id")
            value = _read_string(value, is_whole=column.name in whole, is_id=is_id)
            if column.name == "event_type" and form.event_types:
                value = value.cases(*form.event_types.items(), else_=value)
        elif value.type().is_null() or value.type().is_unknown():
            value = value.cast(DTYPES[column.kind])  # a Parquet column that holds only nulls
        else:
            value = readers[column.kind](value)
        typed[column.name] = value
    return raw.select(**typed, **{RAW: ibis.struct({name: raw[name] for name in raw.columns})})


def find_unreadable(
    parsed: ir.Table, columns: Sequence[Column], form: FileFormat
) -> dict[str, ir.BooleanValue]:
    """For each way in which a value can be unreadable, the rows of a parsed table with such one."""
    violations: dict[str, ir.BooleanValue] = {}
    for column in columns:
        if column.name not in parsed.columns:
            continue
        raw = _without_nulls(parsed[RAW][column.name], form)
        unreadable = parsed[column.name].isnull() & raw.notnull()
        if column.kind == "time" and form.naive_times == REJECT:
            naive = _as_naive(raw, form).notnull()
            violations[f"{column.name}: {NO_ZONE}"] = naive
            unreadable &= ~naive
        text = parsed[column.name]
        is_id = column.name.endswith("_id") and text.type().is_string()
        if is_id and form.null_values is None:
            violations[f"{column.name}: {NULL_SPELLING}"] = is_spelled_like_null(text)
        if column.kind != "string" and _may_be_unreadable(raw.type(), column.kind):
            is_given = raw.strip() != "" if raw.type().is_string() else ibis.literal(True)
            if raw.type().is_string() and column.kind in _MEANS_NULL:
                is_given &= ~raw.strip().re_search(_MEANS_NULL[column.kind])
            violations[f"{column.name}: cannot be read as {READ_AS[column.kind]}"] = (
                unreadable & is_given
            )
    return violations


def is_spelled_like_null(text: ir.StringValue) -> ir.BooleanValue:
    """Whether a text is one of ``NULL_SPELLINGS``, in upper or lower case."""
    return text.strip().lower().isin(NULL_SPELLINGS)


def _may_be_unreadable(kind: dt.DataType, wanted: ColumnKind) -> bool:
    return bool(kind.is_string() or (wanted == "time" and kind.is_numeric()))


def _without_nulls(value: ir.Value, form: FileFormat) -> ir.Value:
    """A value without the texts that mean null, and without NaN."""
    kind = value.type()
    if kind.is_string() and form.null_values:
        is_null = value.strip().isin([text.strip() for text in form.null_values])
        return ibis.ifelse(is_null, None, value)
    if kind.is_floating():
        return ibis.ifelse(value.isnan(), None, value)
    return value


def _find_whole_columns(raw: ir.Table, names: Sequence[str]) -> set[str]:
    """Columns of fractions that hold only whole numbers, such as ids beside nulls in pandas."""
    fractions = [
        name
        for name in names
        if name in raw.columns and (raw[name].type().is_floating() or raw[name].type().is_decimal())
    ]
    if not fractions:
        return set()
    checks = {}
    for name in fractions:
        number = raw[name].cast(dt.float64)
        is_whole = (number % 1 == 0) & (number.abs() < _WHOLE)
        checks[name] = (is_whole | number.isnan()).fill_null(True).all()
    (found,) = raw.agg(**checks).to_pyarrow().to_pylist()
    whole = {name for name, is_whole in found.items() if is_whole is not False}
    for name in sorted(whole):
        log_message(f"{name} is stored as {raw[name].type()}: 12.0 is read as 12")
    return whole


def _read_string(value: ir.Value, is_whole: bool, is_id: bool) -> ir.Value:
    kind = value.type()
    if kind.is_null() or kind.is_unknown():
        return value.cast(dt.string)
    if kind.is_binary():
        return _decode(value)
    if is_whole:
        return value.cast(dt.int64).cast(dt.string)
    if (kind.is_floating() or kind.is_decimal()) and is_id:
        return value
    is_simple = kind.is_numeric() or kind.is_boolean() or kind.is_uuid() or kind.is_date()
    return value.cast(dt.string) if is_simple else value


def read_number(value: ir.Value, form: FileFormat) -> ir.Value:
    """A value as a number; null for a text that is none."""
    kind = value.type()
    if kind.is_string():
        text = _plain_number(value.strip(), form)
        return ibis.ifelse(text.re_search(_NUMBER), text, None).try_cast(dt.float64)
    if kind.is_float32():
        # The number that was meant: 19.99, not the 19.989999771118164 that is nearest to it.
        return value.cast(dt.string).cast(dt.float64)
    return value.cast(dt.float64) if kind.is_numeric() or kind.is_boolean() else value


def _plain_number(text: ir.StringValue, form: FileFormat) -> ir.StringValue:
    """A number as programs write it; a text that is none in this form stays none."""
    if form.currency_signs:
        signs = "|".join(re.escape(sign.strip()) for sign in form.currency_signs)
        text = text.re_replace(rf"^([+-]?){_SPACES}*(?:{signs}){_SPACES}*", r"\1")
        text = text.re_replace(rf"{_SPACES}*(?:{signs})$", "")
    if form.thousands:
        between = {" ": _SPACES, "'": "['\u2019]"}.get(form.thousands, re.escape(form.thousands))
        decimal = re.escape(form.decimal)
        grouped = rf"^[+-]?\d{{1,3}}(?:{between}\d{{2,3}})*{between}\d{{3}}(?:{decimal}\d*)?$"
        text = ibis.ifelse(text.re_search(grouped), text.re_replace(between, ""), text)
    if form.decimal == ",":
        text = ibis.ifelse(text.contains("."), None, text.replace(",", "."))
    return text


def _read_time(value: ir.Value, form: FileFormat) -> ir.Value:
    kind = value.type()
    if kind.is_numeric() and form.time_unit:
        return _read_epoch(value, form.time_unit)
    if kind.is_timestamp() and kind.timezone:
        return value.cast(DTYPES["time"])
    if not (kind.is_timestamp() or kind.is_date() or kind.is_string()):
        return value
    aware = _read_aware(value, form) if kind.is_string() else ibis.null(DTYPES["time"])
    if form.naive_times == REJECT:
        return aware
    return ibis.coalesce(aware, _in_zone(form.naive_times, _as_naive(value, form)))


def _read_aware(value: ir.StringValue, form: FileFormat) -> ir.Value:
    """The time of a text with an offset from UTC, the name of a zone, or a unit."""
    text = value.strip()
    usual = ibis.ifelse(text.re_search(_ISO), text, None).try_cast(DTYPES["time"])
    text = _as_iso(_unusual(text), form)
    local, zone = _local_time(text), text.re_extract(_LOCAL_AND_ZONE, 2)
    has_clock = local.contains(":")
    offset = ibis.cases(
        (zone.re_search(_UTC), "+00:00"),
        (zone.re_search(_OFFSET), zone.re_extract(_OFFSET, 1)),
        else_=ibis.null(dt.string),
    )
    found = ibis.ifelse(has_clock, local + offset, None).try_cast(DTYPES["time"])
    name = zone.re_extract(_ZONE_NAME, 1)
    if known := _find_zones(text):
        # DuckDB evaluates a function for rows that a condition leaves out, too.
        is_named = name.isin(known) & has_clock
        shown = ibis.ifelse(is_named, local, None).try_cast("timestamp(6)")
        found = ibis.coalesce(found, _in_zone(ibis.ifelse(is_named, name, "UTC"), shown))
    if form.time_unit:
        number = ibis.ifelse(text.re_search(_DIGITS), text, None)
        seconds = _read_epoch(number.try_cast(dt.int64), form.time_unit)
        fraction = _read_epoch(number.try_cast(dt.float64), form.time_unit)
        found = ibis.coalesce(found, ibis.ifelse(text.contains("."), fraction, seconds))
    return ibis.coalesce(usual, found)  # of a row that the first reads, nothing else is computed


def _unusual(text: ir.StringValue) -> ir.StringValue:
    """Null where a text has the usual form, which costs nothing further then."""
    return ibis.ifelse(text.re_search(_ISO), None, text)


def _as_iso(text: ir.StringValue, form: FileFormat) -> ir.StringValue:
    """A text with its date in the order of ISO 8601 and a clock of 24 hours."""
    text = text.re_replace(*_DATE[form.date_order])
    hour = text.re_extract(_TWELVE_HOURS, 2).try_cast(dt.int64) % 12
    hour += ibis.ifelse(text.re_extract(_TWELVE_HOURS, 4).lower() == "p", 12, 0)
    clock = " " + hour.cast(dt.string).lpad(2, "0") + text.re_extract(_TWELVE_HOURS, 3)
    day, rest = text.re_extract(_TWELVE_HOURS, 1), text.re_extract(_TWELVE_HOURS, 5)
    return ibis.ifelse(text.re_search(_TWELVE_HOURS), day + clock + rest, text)


def _local_time(text: ir.StringValue) -> ir.StringValue:
    """The day and the clock's time of a text, to the microsecond; empty for another text."""
    local = text.re_extract(_LOCAL_AND_ZONE, 1)
    return local.replace(",", ".").re_replace(r"(\.\d{6})\d+$", r"\1")


def _as_naive(value: ir.Value, form: FileFormat) -> ir.Value:
    """The local time of a value without a zone; null for any other value."""
    kind = value.type()
    if kind.is_string():
        text = _as_iso(_unusual(value.strip()), form)
        is_naive = text.re_extract(_LOCAL_AND_ZONE, 2) == ""
        local = ibis.ifelse(is_naive, _local_time(text), None)
        return local.try_cast("timestamp(6)")
    if kind.is_date() or (kind.is_timestamp() and not kind.timezone):
        return value.cast("timestamp(6)")
    return ibis.null("timestamp(6)")


def _read_epoch(value: ir.NumericValue, unit: TimeUnit) -> ir.Value:
    """The time of a number of units since 1970; null beyond the years that a calendar has."""
    per_second = int(_PER_SECOND[unit])
    largest = min(_LARGEST_SECOND * per_second, 2**63 - 1)
    inside = ibis.ifelse(value.between(-largest, largest), value, None)
    if value.type().is_integer():
        micros = inside.cast(dt.int64)
        if unit == "ns":
            micros = _divide(micros, 1000)
        else:
            micros *= 10**6 // per_second
    else:
        micros = (inside.cast(dt.float64) * (1e6 / per_second)).round()
    return _in_zone("UTC", _from_micros(micros.cast(dt.int64)))


def _read_vector(value: ir.Value) -> ir.Value:
    kind = value.type()
    if kind.is_string():
        # numpy writes no commas; what cannot be read becomes null within a list.
        spaced = value.strip().re_search(_SPACED_LIST)
        commas = value.strip().re_replace(r"^\[\s*|\s*\]$", "").re_replace(r"\s+", ",")
        value = ibis.ifelse(spaced, "[" + commas + "]", value).try_cast(DTYPES["vector"])
        value = ibis.ifelse(value.filter(lambda each: each.isnull()).length() > 0, None, value)
    elif kind.is_array() and kind.value_type.is_numeric():
        value = value.cast(DTYPES["vector"])
    else:
        return value
    return ibis.ifelse(value.length() == 0, None, value)


def _find_zones(text: ir.StringValue) -> list[str]:
    """The IANA names of an area and a place in a column of times; few columns hold any.

    An abbreviation such as ``EST`` has several meanings, and is none of them.
    """
    texts = text.name("text").as_table()
    names = texts.filter(texts.text.contains("/")).select(
        name=ibis._.text.re_extract(_LOCAL_AND_ZONE, 2).re_extract(_ZONE_NAME, 1)
    )
    found = names.distinct().limit(_MOST_ZONES).to_pyarrow()["name"].to_pylist()
    known = available_timezones()
    return sorted(zone for zone in found if zone in known)
