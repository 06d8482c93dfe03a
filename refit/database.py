"""A database that several processes share: a SQLite file, or PostgreSQL.

A path or a URL names it and holds no password: PostgreSQL's own library reads that from the
environment variable PGPASSWORD, so that it is in no setting, log line or pipeline.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, Table, create_engine, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError

from refit.errors import ServiceUnreachable, UsageError
from refit.remote import is_url

PLACES = "a path, sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE"
POSTGRESQL = ("postgresql", "postgresql+psycopg")
WRITERS_LOCK = int.from_bytes(b"refit")
PATIENCE_SECONDS = 30.0
ALERT_STORE = "the alert store"


def parse_place(place: str | Path, what: str = ALERT_STORE) -> URL:
    """Parse the place of a database.

    Args:
        place: A path, ``sqlite:///PATH`` or ``postgresql+psycopg://USER@HOST/DATABASE``.
        what: What the database is, for errors.

    Raises:
        UsageError: It is none of these, or holds a password; the message does not repeat it.
    """
    if not is_url(str(place)):
        return URL.create("sqlite", database=str(Path(place).absolute()))
    try:
        url = make_url(str(place))
    except (ArgumentError, ValueError):
        raise UsageError(f"the URL of {what} cannot be read: give {PLACES}") from None
    if url.drivername == "sqlite" and url.database and not (url.host or url.query):
        return url.set(database=str(Path(url.database).absolute()))
    # A password that contains a slash is parsed as part of the database, which then contains "@".
    if url.password or "@" in (url.database or "") or any("password" in key for key in url.query):
        raise UsageError(
            f"the URL of {what} is shown in logs and pipelines and must hold no password: leave it "
            "out, and put it into the environment variable PGPASSWORD"
        )
    if url.drivername not in POSTGRESQL:
        raise UsageError(f"{what} cannot be a {url.drivername} database: give {PLACES}")
    return url


class Database:
    """One database and its transactions; every transaction opens its own connection.

    Args:
        place: See ``parse_place``.
        read_only: Never create a SQLite file, nor write to it.
        patience_seconds: How long to wait for a server, and for other writers.
        what: What the database is, for errors.

    Raises:
        UsageError: The place cannot be read.
    """

    def __init__(
        self,
        place: str | Path,
        read_only: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
        what: str = ALERT_STORE,
    ) -> None:
        self._place, self._what, url = place, what, parse_place(place, what)
        if url.drivername == "sqlite":
            self._kind = _open_sqlite(url, read_only, patience_seconds)
        else:
            self._kind = _open_postgresql(url, patience_seconds)

    def insert(self, table: Table) -> Any:
        """An INSERT with ``on_conflict_do_update``."""
        return self._kind.insert(table)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read-only transaction that sees the same state throughout.

        Raises:
            ServiceUnreachable: The database cannot be used; the message says what to do.
        """
        with self._transaction(self._kind.reading) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction without other writers: what it reads does not change until it ends.

        Raises:
            ServiceUnreachable: The database cannot be used, or another writer took too long.
        """
        with self._transaction(self._kind.writing) as connection:
            yield connection

    @contextmanager
    def _transaction(self, opening: Sequence[str]) -> Iterator[Connection]:
        try:
            with self._kind.engine.begin() as connection:
                for statement in opening:
                    connection.exec_driver_sql(statement)
                yield connection
        except DBAPIError as error:
            why, _, _ = str(error.orig).partition("\nLINE ")  # our own SQL follows
            raise ServiceUnreachable(
                f"{self._what} {self._place} cannot be used: {' '.join(why.split())}; "
                f"{self._kind.advice}"
            ) from None


@dataclass(frozen=True)
class _Kind:
    """What differs between the two databases.

    Attributes:
        engine: Opens connections.
        insert: Its INSERT.
        reading, writing: The statements that begin such a transaction.
        advice: What to check when it cannot be used.
    """

    engine: Engine
    insert: Callable[[Table], Any]
    reading: tuple[str, ...]
    writing: tuple[str, ...]
    advice: str


def _open_sqlite(url: URL, read_only: bool, patience_seconds: float) -> _Kind:
    file = Path(url.database or "")
    if read_only:
        url = url.set(database=file.as_uri(), query={"mode": "ro", "uri": "true"})
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
    # Without an isolation level the driver does not begin transactions itself.
    settings = {"isolation_level": None, "timeout": patience_seconds}
    return _Kind(
        engine=create_engine(url, poolclass=NullPool, connect_args=settings),
        insert=sqlite.insert,
        reading=("BEGIN",),
        writing=("BEGIN IMMEDIATE",),
        advice="check that the file is an alert store, that it is writable, and that no other "
        "process keeps it locked",
    )


def _open_postgresql(url: URL, patience_seconds: float) -> _Kind:
    """PostgreSQL, one writer at a time, as in SQLite.

    An advisory lock of the transaction, unlike a lock of a table, also covers the creation of
    tables, and it ends with the connection, however that ends. By READ COMMITTED its holder sees
    everything that was written before, so that no transaction has to be retried. A writer that
    stalls loses the lock before those who wait for it give up.
    """
    milliseconds = 1000 * patience_seconds
    settings = {
        "connect_timeout": math.ceil(patience_seconds),
        "keepalives_idle": 10,
        "tcp_user_timeout": math.ceil(milliseconds),
    }
    return _Kind(
        engine=create_engine(
            url, poolclass=NullPool, connect_args=settings, isolation_level="READ COMMITTED"
        ),
        insert=postgresql.insert,
        reading=("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",),
        writing=(
            f"SET LOCAL lock_timeout = {milliseconds:.0f}",
            f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds / 2:.0f}",
            f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})",
        ),
        advice="check that the server runs and can be reached, that it has this user and database, "
        "and that the environment variable PGPASSWORD holds the user's password",
    )
