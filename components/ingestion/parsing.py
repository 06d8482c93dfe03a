"""Cast raw columns to the kinds of the contract; a value that cannot be read becomes null."""

from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from components.ingestion.settings import REJECT
from refit.contract import Column, ColumnKind

RAW = "_raw"
"""A struct column with the raw row, which is written where a row is rejected."""

DTYPES: Mapping[ColumnKind, dt.DataType] = {
    "string": dt.string,
    "number": dt.float64,
    "time": dt.Timestamp(timezone="UTC"),
    "vector": dt.Array(dt.float32),
}
_WITH_OFFSET = r"\d\d:\d\d.*(Z|z| UTC|[+-]\d\d(:?\d\d)?)$"
_READ_AS = {"number": "a number", "time": "a time", "vector": "a vector"}


@ibis.udf.scalar.builtin(name="timezone")
def _in_zone(
    zone: dt.string,
    local_time: dt.Timestamp(scale=6),  # type: ignore[valid-type]
) -> dt.Timestamp(timezone="UTC"):  # type: ignore[valid-type]
    """DuckDB's function: the time at which clocks in ``zone`` show ``local_time``."""


def parse(raw: ir.Table, columns: Sequence[Column], naive_times: str) -> ir.Table:
    """Cast the columns of ``columns`` that the table has, and keep the raw row in ``RAW``.

    A column of a type that cannot be cast is left as it is; the schema checks report it.

    Args:
        raw: The source's table.
        columns: The contract's columns and those kept beyond it.
        naive_times: The IANA name of the zone of times without one, or ``reject``.
    """
    readers: dict[ColumnKind, Callable[[ir.Value], ir.Value]] = {
        "string": _read_string,
        "number": _read_number,
        "time": lambda value: _read_time(value, naive_times),
        "vector": _read_vector,
    }
    typed = {}
    for column in columns:
        if column.name in raw.columns:
            value = raw[column.name]
            # A Parquet column that holds only nulls has no type.
            is_typed = not (value.type().is_null() or value.type().is_unknown())
            read = readers[column.kind] if is_typed else methodcaller("cast", DTYPES[column.kind])
            typed[column.name] = read(value)
    return raw.select(**typed, **{RAW: ibis.struct({name: raw[name] for name in raw.columns})})


def find_unreadable(
    parsed: ir.Table, columns: Sequence[Column], naive_times: str
) -> dict[str, ir.BooleanValue]:
    """For each way in which a value can be unreadable, the rows of a parsed table with such one."""
    violations: dict[str, ir.BooleanValue] = {}
    for column in columns:
        if column.name not in parsed.columns:
            continue
        raw = parsed[RAW][column.name]
        unreadable = parsed[column.name].isnull() & raw.notnull()
        if column.kind == "time" and naive_times == REJECT:
            naive = _as_naive(raw).notnull()
            violations[f"{column.name}: has no time zone"] = naive
            unreadable &= ~naive
        if column.kind != "string" and raw.type().is_string():
            is_given = raw.strip() != ""
            violations[f"{column.name}: cannot be read as {_READ_AS[column.kind]}"] = (
                unreadable & is_given
            )
    return violations


def _read_string(value: ir.Value) -> ir.Value:
    kind = value.type()
    return value.cast(dt.string) if kind.is_integer() or kind.is_boolean() else value


def _read_number(value: ir.Value) -> ir.Value:
    kind = value.type()
    if kind.is_string():
        value = value.strip().try_cast(dt.float64)
    elif kind.is_float32():
        # The number that was meant: 19.99, not the 19.989999771118164 that is nearest to it.
        value = value.cast(dt.string).cast(dt.float64)
    elif kind.is_numeric() or kind.is_boolean():
        value = value.cast(dt.float64)
    else:
        return value
    return ibis.ifelse(value.isnan(), None, value)


def _read_time(value: ir.Value, naive_times: str) -> ir.Value:
    kind = value.type()
    if kind.is_timestamp() and kind.timezone:
        return value.cast(DTYPES["time"])
    if not (kind.is_timestamp() or kind.is_date() or kind.is_string()):
        return value
    aware = ibis.null(DTYPES["time"])
    if kind.is_string():
        text = value.strip()
        aware = ibis.ifelse(text.re_search(_WITH_OFFSET), text, None).try_cast(DTYPES["time"])
    if naive_times == REJECT:
        return aware
    return ibis.coalesce(aware, _in_zone(naive_times, _as_naive(value)))


def _as_naive(value: ir.Value) -> ir.Value:
    """The local time of a value without a zone; null for any other value."""
    kind = value.type()
    if kind.is_string():
        text = value.strip()
        return ibis.ifelse(text.re_search(_WITH_OFFSET), None, text).try_cast("timestamp(6)")
    if kind.is_date() or (kind.is_timestamp() and not kind.timezone):
        return value.cast("timestamp(6)")
    return ibis.null("timestamp(6)")


def _read_vector(value: ir.Value) -> ir.Value:
    kind = value.type()
    if kind.is_string():
        return value.try_cast(DTYPES["vector"])
    is_vector = kind.is_array() and kind.value_type.is_numeric()
    return value.cast(DTYPES["vector"]) if is_vector else value
