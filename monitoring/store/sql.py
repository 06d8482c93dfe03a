"""The store in a SQLite file or in PostgreSQL."""

from pathlib import Path

from monitoring.store.sql_alerts import SqlAlerts
from monitoring.store.sql_notifications import SqlNotifications
from monitoring.store.sql_orders import SqlOrders
from monitoring.store.sql_quarantines import SqlQuarantines
from monitoring.store.sql_refits import SqlRefits
from monitoring.store.sql_results import SqlResults
from monitoring.store.tables import has_tables, prepare_tables
from refit.database import PATIENCE_SECONDS, Database, parse_place


class SqlStore(SqlResults, SqlAlerts, SqlRefits, SqlQuarantines, SqlOrders, SqlNotifications):
    """The store in a SQLite file, for processes of one machine, or in PostgreSQL, for a cluster's.

    A store of an earlier version becomes one of this version, and loses nothing.

    Args:
        place: A path, ``sqlite:///PATH`` or ``postgresql+psycopg://USER@HOST/DATABASE``, whose
            password is in the environment variable PGPASSWORD.
        patience_seconds: How long to wait for a server, and for other writers.

    Raises:
        UsageError: The place cannot be read, or a later version of Refit wrote the store.
        ServiceUnreachable: The database cannot be used; every method raises it too.
    """

    def __init__(self, place: str | Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        super().__init__(Database(place, patience_seconds=patience_seconds))
        with self._database.writing() as db:
            prepare_tables(db)


def open_store(place: str | Path, patience_seconds: float = PATIENCE_SECONDS) -> SqlStore | None:
    """The store at a place; None, and nothing is created, where no monitor has run yet.

    Raises:
        UsageError: As ``SqlStore``.
        ServiceUnreachable: As ``SqlStore``.
    """
    url = parse_place(place)
    if url.drivername == "sqlite" and not Path(url.database or "").exists():
        return None
    database = Database(place, read_only=True, patience_seconds=patience_seconds)
    with database.reading() as db:
        if not has_tables(db):
            return None
    return SqlStore(place, patience_seconds)
