"""A column whose values are of another type."""

from collections.abc import Iterator

import pyarrow as pa

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.feed import Feed
from monitoring.frame import is_number, is_vector

UNIT = "1 where the type is another"
RUNBOOK = Advice(
    "A column of numbers is text now, or text is numbers: separators or quotes have changed.",
    "Compare a line of the export with one of before. Settings of `ingestion.form` say how numbers "
    "are written; nothing of this column is read until they fit.",
)
TABLES = ("items", "events")


def find(feed: Feed) -> Iterator[Sign]:
    """For each column, whether it still holds what it held."""
    for field in feed.known.schema:
        if field.name in feed.schema.names:
            before, now = field.type, feed.schema.field(field.name).type
            if "other" in (_name(before), _name(now)):
                continue
            detail = f"{field.name} holds {_name(now)}, before {_name(before)}"
            yield Sign(field.name, float(_name(now) != _name(before)), 0.0, detail)


def _name(kind: pa.DataType) -> str:
    cells = pa.array([], kind)
    if is_vector(cells):
        return "vectors"
    if is_number(cells):
        return "numbers"
    if pa.types.is_temporal(kind):
        return "times"
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return "text" if is_text or pa.types.is_dictionary(kind) else "other"
