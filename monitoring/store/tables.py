"""The tables of the alert store, and how an older store becomes one of this version."""

from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
    select,
    update,
)

from refit.errors import UsageError

_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Sorted by bytes, whatever the locale of the server."""
TABLES = MetaData()
SCHEMA_VERSION = 2
"""Of the tables and of the JSON in them; a store of a later version is refused."""
READABLE = (1, 2)
"""Versions that are read as they are; they are brought to this version before the first write.

Version 2 has more tables than version 1, and the same rows in the old ones.
"""
SCHEMA = Table("schema_version", TABLES, Column("version", Integer, primary_key=True))
RESULTS = Table(
    "results",
    TABLES,
    Column("embedding_version", _TEXT, primary_key=True),
    Column("subject", _TEXT, primary_key=True),
    Column("statistic", _TEXT, primary_key=True),
    Column("window_start", _TEXT, primary_key=True),
    Column("window_end", _TEXT, primary_key=True),
    Column("body", _TEXT, nullable=False),
)
SUMMARIES = RESULTS.to_metadata(TABLES, name="summaries")
"""What later windows need to know of those that were measured; keyed as the results."""
DECISIONS = Table(
    "decisions",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("bundle_id", _TEXT, nullable=False),
    Column("body", _TEXT, nullable=False),
)
ALERTS = Table(
    "alerts",
    TABLES,
    Column("alert_id", _TEXT, primary_key=True),
    Column("embedding_version", _TEXT, nullable=False),
    Column("created_at", _TEXT, nullable=False),
    Column("status", _TEXT, nullable=False),
    Column("body", _TEXT, nullable=False),
)
REFITS = Table(
    "refits",
    TABLES,
    Column("key", _TEXT, primary_key=True),
    Column("state", _TEXT, nullable=False),
    Column("owner", _TEXT, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("requested_at", _TEXT, nullable=False),
    Column("body", _TEXT, nullable=False),
)
AUDIT = Table(
    "audit",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("alert_id", _TEXT, nullable=False, index=True),
    Column("body", _TEXT, nullable=False),
    Column("digest", _TEXT, nullable=False),
)
"""Appended to, and never changed: the database itself refuses it. ``digest`` is the SHA-256 of the
entry before it and its own body, so that a gap or a change shows."""
QUARANTINES = Table(
    "quarantines",
    TABLES,
    Column("quarantine_id", _TEXT, primary_key=True),
    Column("starts", _TEXT, nullable=False),
    Column("in_force", Boolean, nullable=False),
    Column("body", _TEXT, nullable=False),
)
ORDERS = Table(
    "orders",
    TABLES,
    Column("request_id", _TEXT, primary_key=True),
    Column("alert_id", _TEXT, nullable=False),
    Column("requested_at", _TEXT, nullable=False),
    Column("state", _TEXT, nullable=False),
    Column("owner", _TEXT, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("body", _TEXT, nullable=False),
)
NOTIFICATIONS = Table(
    "notifications",
    TABLES,
    Column("key", _TEXT, primary_key=True),
    Column("sent", Boolean, nullable=False),
    Column("owner", _TEXT, nullable=False),
    Column("free_at", Double, nullable=False),
    Column("body", _TEXT, nullable=False),
)
"""``free_at``: from then on a message that was not sent may be taken on, in seconds since 1970."""
RUN_REQUESTS = Table(
    "run_requests",
    TABLES,
    Column("pipeline", _TEXT, primary_key=True),
    Column("body", _TEXT, nullable=False),
)
"""How the monitor was told to start a pipeline on the cluster."""

_REFUSAL = "the audit trail cannot be changed"
_GUARDS = {
    "sqlite": tuple(
        f"CREATE TRIGGER audit_no_{verb} BEFORE {verb} ON audit "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for verb in ("update", "delete")
    ),
    "postgresql": (
        "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()",
        "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()",
    ),
}


def has_tables(db: Connection) -> bool:
    """Whether the database holds a store that can be read.

    Raises:
        UsageError: Another version of Refit wrote it.
    """
    tables = set(inspect(db).get_table_names())
    if SCHEMA.name in tables and db.scalar(select(SCHEMA.c.version)) in READABLE:
        return True
    if tables.isdisjoint(TABLES.tables):
        return False
    raise UsageError(
        "another version of Refit wrote this alert store, and this version cannot read it: move "
        f"the SQLite file away, or drop the tables {', '.join(sorted(TABLES.tables))} in "
        "PostgreSQL; the next run of refit monitor creates a new store"
    )


def prepare_tables(db: Connection) -> None:
    """Create the tables, or add those that an older store lacks; nothing in it is lost.

    Raises:
        UsageError: A later version of Refit wrote the store, or another program.
    """
    if not has_tables(db):
        TABLES.create_all(db)
        db.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
        _guard_audit(db)
    elif db.scalar(select(SCHEMA.c.version)) == 1:
        TABLES.create_all(db)  # those that are missing
        _guard_audit(db)
        db.execute(update(SCHEMA).values(version=SCHEMA_VERSION))


def _guard_audit(db: Connection) -> None:
    for statement in _GUARDS[db.dialect.name]:
        db.exec_driver_sql(statement)


def stamp(moment: datetime) -> str:
    """A time as text that sorts by time.

    Raises:
        UsageError: It has no time zone.
    """
    if moment.tzinfo is None:
        raise UsageError(f"{moment} has no time zone; give UTC")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
