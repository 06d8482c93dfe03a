"""The data contract as pandera schemas: the one place that says what a good row is.

A row is judged by the schema's own checks, gathered into one pass over the table (see
``cleaning``); pandera itself runs a query per check, which a large table should not pay for.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pandera.ibis as pa
from pandera.config import ValidationDepth, config_context

from components.ingestion.parsing import DTYPES
from refit.contract import Column, EventType

_INVISIBLE = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"
_NOT_BLANK = r"[^\s\p{Z}]"
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

Rule = Callable[[ir.Value], ir.BooleanValue]


def make_events_schema(
    columns: Sequence[Column], as_of: datetime, known_items: ir.Column | None
) -> pa.DataFrameSchema:
    """What a good event is.

    Args:
        columns: The contract's columns and those kept beyond it.
        as_of: What is later lies in the future.
        known_items: Ids of the good items; None when items are derived from events.
    """
    rules = {
        "user_id": _ID_CHECKS,
        "item_id": _ID_CHECKS,
        "event_type": [
            _check("unknown event type", lambda v: v.isin([e.value for e in EventType]))
        ],
        "event_time": _time_checks(as_of),
        "price": [_NOT_NEGATIVE],
    }
    if known_items is not None:
        known = _check("not among the items", lambda v: v.isin(known_items))
        rules["item_id"] = [*_ID_CHECKS, known]
    return _make_schema(columns, rules)


def make_items_schema(
    columns: Sequence[Column], as_of: datetime, currency: str = "", vector_length: int = 0
) -> pa.DataFrameSchema:
    """What a good item is.

    Args:
        columns: The contract's columns and those kept beyond it.
        as_of: What is later lies in the future.
        currency: The one currency of all prices; empty when it is not looked at.
        vector_length: Length of a good image_embedding.
    """
    rules = {
        "item_id": _ID_CHECKS,
        "seller_id": _ID_CHECKS,
        "price": [_NOT_NEGATIVE],
        "listed_at": _time_checks(as_of),
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
    return _make_schema(columns, rules)


def make_users_schema(columns: Sequence[Column]) -> pa.DataFrameSchema:
    """What a good user is."""
    return _make_schema(columns, {"user_id": _ID_CHECKS})


def find_structure_faults(name: str, table: ir.Table, columns: Sequence[Column]) -> list[str]:
    """Hold a table's columns and their types against the contract, without looking at a row."""
    # pandera's ibis engine stumbles over nested and unknown types, so types are compared here.
    faults = [
        f"{name}: column '{column.name}' cannot be read as a {column.kind}: "
        f"it holds {table[column.name].type()}"
        for column in columns
        if column.name in table.columns
        and not _are_alike(table[column.name].type(), DTYPES[column.kind])
    ]
    presence = pa.DataFrameSchema({c.name: pa.Column(required=c.required) for c in columns})
    try:
        with config_context(validation_depth=ValidationDepth.SCHEMA_ONLY):
            presence.validate(table, lazy=True)
    except pa.errors.SchemaErrors as errors:
        faults += [
            f"{name}: column '{fault.failure_cases}' is missing" for fault in errors.schema_errors
        ]
    return faults


def find_violations(table: ir.Table, schema: pa.DataFrameSchema) -> dict[str, ir.BooleanValue]:
    """For each way to break the schema: the rows of a table that do."""
    violations: dict[str, ir.BooleanValue] = {}
    for name, column in schema.columns.items():
        if name not in table.columns:
            continue
        if not column.nullable:
            violations[f"{name}: missing"] = table[name].isnull()
        for check in column.checks:
            violations[f"{name}: {check.error}"] = ~check(table, name).check_output
    return violations


def _make_schema(columns: Sequence[Column], rules: dict[str, list[pa.Check]]) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(
        {
            column.name: pa.Column(
                None if column.kind == "vector" else DTYPES[column.kind],  # pandera knows no lists
                [*rules.get(column.name, []), *([_FINITE] if column.kind == "number" else [])],
                nullable=not column.required,
                required=column.required,
            )
            for column in columns
        }
    )


def _are_alike(dtype: dt.DataType, wanted: dt.DataType) -> bool:
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


def _time_checks(as_of: datetime) -> list[pa.Check]:
    return [
        _check("lies in the future", lambda v: v <= as_of),
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
