"""Check that the ids of events are spelled as those of items and users."""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from components.ingestion.settings import IngestSettings
from refit.errors import DataValidationError
from refit.tabular.advice import write_advice

SPELLED_DIFFERENTLY = 0.01
"""From this share of ids on that only agree in another spelling, the spelling is a fault."""
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

    @property
    def share(self) -> float:
        """The share of the events' ids that are in the other table."""
        return self.known / self.ids if self.ids else 1.0


def match_ids(events: ir.Column, others: ir.Column) -> IdMatch:
    """Compare the ids of events with those of items or users."""
    here = events.name("id").as_table().distinct()
    there = others.name("id").as_table().distinct()
    unknown = here.anti_join(there, "id").mutate(plain=_plain(ibis._.id))
    spelled = there.mutate(plain=_plain(ibis._.id)).group_by("plain").agg(other=ibis._.id.min())
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


def check_known_users(events: ir.Table, users: ir.Table, settings: IngestSettings) -> None:
    """Check that the users of the events are among the users.

    Raises:
        DataValidationError: Fewer are than the settings allow, or ids are spelled differently.
    """
    if not settings.min_known_users:
        return
    match = match_ids(events.user_id, users.user_id)
    count = f"{match.known} of the {match.ids} users with events"
    found = f"{count} are among the users ({match.share:.1%})"
    advice = write_advice(["min_known_users: 0  # if the ids are right, else spell them alike"])
    if match.similar > SPELLED_DIFFERENTLY * match.ids:
        raise DataValidationError(
            f"users: {found}, and {match.similar} more only in another spelling: "
            f"{describe_ids(match, 'users')}{advice}"
        )
    if match.share < settings.min_known_users:
        raise DataValidationError(
            f"users: {found}, fewer than the {settings.min_known_users:.1%} of min_known_users: "
            f"{describe_ids(match, 'users')}{advice}"
        )


def describe_ids(match: IdMatch, table: str) -> str:
    """Examples of ids that do not match, from both sides."""
    here, there = (", ".join(map(repr, ids)) for ids in (match.here, match.there))
    return f"the events have {here}, the {table} {there}"


def _plain(text: ir.StringValue) -> ir.StringValue:
    """An id without what tools change: case, spaces, leading zeros and a fraction of zero."""
    plain = text.strip().lower().re_replace(r"\.0+$", "")
    return plain.re_replace(r"^0+(.)", r"\1")
