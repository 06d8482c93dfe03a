"""What the parts of the SQL store share: its database, leases, and one way to read rows."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, update

from monitoring.store.records import ClaimLost
from refit.database import Database


class SqlPart:
    """A part of the store.

    Args:
        database: Where all parts are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def _bodies(self, query: Select[str]) -> Sequence[str]:
        with self._database.reading() as db:
            return db.scalars(query).all()


def lease(seconds: float) -> float:
    """The end of a lease that begins now, in seconds since 1970."""
    return time.time() + seconds


def change_own(
    db: Connection, table: Table, mine: ColumnElement[bool], what: str, **values: Any
) -> None:
    """Write to a row that is still the caller's.

    Raises:
        ClaimLost: It has another owner, or is over.
    """
    if db.execute(update(table).where(mine).values(values)).rowcount != 1:
        raise ClaimLost(f"{what} has another owner, or was stopped")
