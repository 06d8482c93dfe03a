"""Compare how the ids of events are spelled with those of items and users."""

from dataclasses import dataclass

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

_EXAMPLES = 3


@dataclass(frozen=True)
class IdMatch:
    """How many ids of the events are among those of another table.

    Attributes:
        ids: Different ids of the events.
        known: Those that are in the other table.
        similar: Those that are not, but would be in another spelling.
        here: Examples of ids that are not in the other table.
        there: Examples of its ids, those of another spelling first.
    """

    ids: int
    known: int
    similar: int
    here: tuple[str, ...]
    there: tuple[str, ...]


def match_ids(events: ir.Column, others: ir.Column) -> IdMatch:
    """Compare the ids of events with those of items or users."""
    here = events.name("id").as_table().distinct()
    there = others.name("id").as_table().distinct()
    unknown = here.anti_join(there, "id").mutate(plain=plain_id(ibis._.id))
    spelled = there.mutate(plain=plain_id(ibis._.id)).group_by("plain").agg(other=ibis._.id.min())
    similar = unknown.join(spelled, "plain").select("id", "other")
    pairs = similar.order_by("id").limit(_EXAMPLES).to_pyarrow().to_pylist()
    ids = int(here.count().to_pyarrow().as_py())
    first = [
        tuple(table.order_by("id").limit(_EXAMPLES).to_pyarrow()["id"].to_pylist())
        for table in (unknown, there)
    ]
    return IdMatch(
        ids=ids,
        known=ids - int(unknown.count().to_pyarrow().as_py()),
        similar=int(similar.count().to_pyarrow().as_py()),
        here=tuple(pair["id"] for pair in pairs) or first[0],
        there=tuple(pair["other"] for pair in pairs) or first[1],
    )


def describe_ids(match: IdMatch, table: str) -> str:
    """Examples of ids that do not match, from both sides."""
    here, there = (", ".join(map(repr, ids)) for ids in (match.here, match.there))
    return f"the events have {here}, the {table} {there}"


@ibis.udf.scalar.builtin(name="nfc_normalize")
def _compose(text: dt.string) -> dt.string:
    """DuckDB's function: letters and their accents as one character."""


def plain_id(text: ir.StringValue) -> ir.StringValue:
    """An id without what tools change: case, spaces, leading zeros, a fraction of zero, accents."""
    plain = _compose(text).re_replace(r"^[\s\p{Z}]+|[\s\p{Z}]+$", "")
    plain = plain.lower().re_replace(r"\.0+$", "")
    return plain.re_replace(r"^0+(.)", r"\1")
