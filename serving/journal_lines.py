"""The lines of a prediction log's journal: one answer as JSON each.

They are read by Arrow, which leaves other threads alone meanwhile: as Python objects, a thousand
answers of a hundred items would stop every answer for a fifth of a second.
"""

import io
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json
from pydantic_core import to_json

from refit.prediction import PREDICTION_SCHEMA

TIME = "time"
AS_WRITTEN = pa.schema(
    [field if field.name != TIME else pa.field(TIME, pa.string()) for field in PREDICTION_SCHEMA]
)


def write_lines(predictions: Iterable[Any]) -> bytes:
    """A line for each prediction."""
    return b"".join(to_json(vars(one)) + b"\n" for one in predictions)


def read_days(content: bytes) -> dict[str, pa.Table]:
    """The answers in a journal, by their day in UTC, each table with ``PREDICTION_SCHEMA``.

    A kill may truncate the last line; that answer counts as lost.
    """
    lines = [line for line in content.split(b"\n") if line.endswith(b"}")]
    try:
        table = _parse(lines)
    except pa.ArrowInvalid:
        table = _parse([line for line in lines if _is_json(line)])
    days = pc.strftime(table[TIME], "%Y-%m-%d")
    return {day: table.filter(pc.equal(days, day)) for day in pc.unique(days).to_pylist()}


def _parse(lines: list[bytes]) -> pa.Table:
    if not lines:
        return PREDICTION_SCHEMA.empty_table()
    content = b"\n".join(lines) + b"\n"
    table = arrow_json.read_json(
        io.BytesIO(content),
        arrow_json.ReadOptions(use_threads=False, block_size=len(content)),
        arrow_json.ParseOptions(explicit_schema=AS_WRITTEN, unexpected_field_behavior="ignore"),
    )
    columns = {name: table[name] for name in PREDICTION_SCHEMA.names}
    columns[TIME] = columns[TIME].cast(PREDICTION_SCHEMA.field(TIME).type)
    return pa.table(columns, schema=PREDICTION_SCHEMA)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
