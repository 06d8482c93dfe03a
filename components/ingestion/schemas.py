"""The data contract as pandera schemas: the one place that defines a valid row.

``cleaning`` evaluates the checks of a schema in one pass over the table; pandera alone would run
one query for each check, which is slow on a large table.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pandera.ibis as pa
from pandera.config import ValidationDepth, config_context

from refit.contract import VALID_FROM, Column, EventType
from refit.tabular.advice import TOO_EARLY, UNKNOWN_TYPE
from refit.tabular.parsing import DTYPES, RAW

_INVISIBLE = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"
_NOT_BLANK = r"[^\s\p{Z}]"
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_EVENT = datetime(1990, 1, 1, tzinfo=UTC)
"""Earlier events are times in a wrong unit, or what a program writes for none."""

UNKNOWN_ITEM = "not among the items"
MISSING = "missing"
"""Reasons that follow from others, see ``cleaning.find_causes``."""
TWICE = "the item has several rows of this time with different values"

Rule = Callable[[ir.Value], ir.BooleanValue]


def build_events_schema(
    columns: Sequence[Column], as_of: datetime, known_items: ir.Column | None
) -> pa.DataFrameSchema:
    """Build the schema of a valid event.

    Args:
        columns: The contract's columns and those kept beyond it.
        as_of: Later times are in the future.
        known_items: Ids of the valid items; None when items are derived from events.
    """
    rules = {
        "user_id": _ID_CHECKS,
        "item_id": _ID_CHECKS,
        "event_type": [_check(UNKNOWN_TYPE, lambda v: v.isin([e.value for e in EventType]))],
        "event_time": [
            _check("is in the future", lambda v: v <= as_of),
            _check(TOO_EARLY, lambda v: v >= _EARLIEST_EVENT),
        ],
        "price": [_NOT_NEGATIVE],
    }
    if known_items is not None:
        known = _check(UNKNOWN_ITEM, lambda v: v.isin(known_items))
        rules["item_id"] = [*_ID_CHECKS, known]
    return _build_schema(columns, rules)


def build_items_schema(
    columns: Sequence[Column], as_of: datetime, currency: str = "", vector_length: int = 0
) -> pa.DataFrameSchema:
    """Build the schema of a valid item.

    Args:
        columns: The contract's columns and those kept beyond it.
        as_of: Later times are in the future.
        currency: The currency of all prices; empty when it is not checked.
        vector_length: Length of a valid image_embedding.
    """
    rules = {
        "item_id": _ID_CHECKS,
        "seller_id": _ID_CHECKS,
        "price": [_NOT_NEGATIVE],
        "listed_at": _time_checks(as_of),
        VALID_FROM: [*_time_checks(as_of), pa.Check(_is_one_version, error=TWICE)],
        "delisted_at": [pa.Check(_is_after_listing, error="before listed_at")],
        "image_embedding": [
            _check(
                f"not {vector_length} finite numbers",
                lambda v: (
                    (v.length() == vector_length) & (v.filter(_is_finite).length() == vector_length)
                ),
            )
        ],
    }
    if currency:
        rules["currency"] = [_check(f"not {currency}", lambda v: v == currency)]
    return _build_schema(columns, rules, never_null=(VALID_FROM,))


def build_users_schema(columns: Sequence[Column], as_of: datetime) -> pa.DataFrameSchema:
    """Build the schema of a valid user; times later than ``as_of`` are in the future."""
    rules = {"user_id": _ID_CHECKS, VALID_FROM: _time_checks(as_of)}
    return _build_schema(columns, rules)


def find_column_errors(name: str, table: ir.Table, columns: Sequence[Column]) -> list[str]:
    """Compare a table's columns and their types with the contract; no row is read."""
    # pandera's ibis engine fails on nested and unknown types, so types are compared here.
    errors = [
        f"{name}: column '{column.name}' cannot be read as a {column.kind}: "
        f"it holds {table[column.name].type()}"
        for column in columns
        if column.name in table.columns
        and not _have_same_type(table[column.name].type(), DTYPES[column.kind])
    ]
    presence = pa.DataFrameSchema({c.name: pa.Column(required=c.required) for c in columns})
    try:
        with config_context(validation_depth=ValidationDepth.SCHEMA_ONLY):
            presence.validate(table, lazy=True)
    except pa.errors.SchemaErrors as found:
        errors += [
            f"{name}: column '{error.failure_cases}' is missing" for error in found.schema_errors
        ]
    return errors


def find_violations(table: ir.Table, schema: pa.DataFrameSchema) -> dict[str, ir.BooleanValue]:
    """For each check of the schema, the rows of a table that fail it."""
    violations: dict[str, ir.BooleanValue] = {}
    for name, column in schema.columns.items():
        if name not in table.columns:
            continue
        if not column.nullable:
            violations[f"{name}: {MISSING}"] = table[name].isnull()
        for check in column.checks:
            violations[f"{name}: {check.error}"] = ~check(table, name).check_output
    return violations


def _build_schema(
    columns: Sequence[Column], rules: dict[str, list[pa.Check]], never_null: Sequence[str] = ()
) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(
        {
            column.name: pa.Column(
                None if column.kind == "vector" else DTYPES[column.kind],  # pandera knows no lists
                [*rules.get(column.name, []), *([_FINITE] if column.kind == "number" else [])],
                nullable=not column.required and column.name not in never_null,
                required=column.required,
            )
            for column in columns
        }
    )


def _have_same_type(dtype: dt.DataType, wanted: dt.DataType) -> bool:
    if wanted.is_timestamp():
        return bool(dtype.is_timestamp() and dtype.timezone == wanted.timezone)
    return bool(dtype.copy(nullable=True) == wanted)


def _check(error: str, rule: Rule) -> pa.Check:
    return pa.Check(lambda data: rule(data.table[data.key]), error=error)


def _is_after_listing(data: pa.IbisData) -> ir.BooleanValue:
    table = data.table
    if "listed_at" not in table.columns:
        return table.delisted_at.notnull()
    return table.delisted_at >= table.listed_at


def _is_one_version(data: pa.IbisData) -> ir.BooleanValue:
    """Whether all rows of an item with the same ``valid_from`` are the same."""
    table = data.table
    of_time = ibis.window(group_by=["item_id", VALID_FROM])
    values = ibis.struct({name: table[name] for name in table.columns if name != RAW}).hash()
    is_one = values.min().over(of_time) == values.max().over(of_time)
    return is_one | table[VALID_FROM].isnull()


def _time_checks(as_of: datetime) -> list[pa.Check]:
    return [
        _check("is in the future", lambda v: v <= as_of),
        _check("before 1970", lambda v: v >= _EARLIEST),
    ]


def _is_finite(value: ir.Value) -> ir.BooleanValue:
    return value.notnull() & ~value.isnan() & ~value.isinf()


_ID_CHECKS = [
    _check("empty", lambda v: v.re_search(_NOT_BLANK)),
    _check("holds control or invisible characters", lambda v: ~v.re_search(_INVISIBLE)),
]
_NOT_NEGATIVE = _check("negative", lambda v: v >= 0)
_FINITE = _check("not finite", lambda v: ~v.isinf())
