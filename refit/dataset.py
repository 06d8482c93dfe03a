"""The clean tables that ingestion writes, and how they are split by time."""

from datetime import datetime
from pathlib import Path

from refit.files import read_json, write_json
from refit.health import HealthCheck
from refit.quarantine import QuarantinedDays
from refit.settings import Settings

EVENTS_FILE = "events.parquet"
ITEMS_FILE = "items.parquet"
ITEM_VERSIONS_FILE = "item_versions.parquet"
"""Every version of every item, by item and ``valid_from``; only where items come in versions.

``items.parquet`` then holds the latest version of each.
"""
USERS_FILE = "users.parquet"
EARLIER_FILE = "earlier.parquet"
"""Purchases and hides from before the window, over the cap of a user's events, or in quarantine:
``user_id``, ``item_id``, ``event_type``, ``event_time``. The eligibility rules need all of them.
"""
REJECTED_FOLDER = "rejected"
MANIFEST_FILE = "manifest.json"


class RowCounts(Settings):
    """Row counts of one table; rows_in = kept + rejected + duplicates + capped + quarantined.

    Attributes:
        capped: Valid events over ``ingestion.max_user_events_per_day``.
        quarantined: Rows of periods in quarantine, and events on items that are left out.
        outside: Rows of the source before or after the window; not part of rows_in.
        reasons: Number of rejected rows by reason; a row may have several reasons.
        quarantine_reasons: Likewise of the rows in quarantine.
    """

    rows_in: int
    kept: int
    rejected: int
    duplicates: int
    capped: int = 0
    quarantined: int = 0
    outside: int = 0
    reasons: dict[str, int] = {}
    quarantine_reasons: dict[str, int] = {}

    @property
    def checked(self) -> int:
        """Rows that were checked against the contract: all but those in quarantine."""
        return self.rows_in - self.quarantined


class Split(Settings):
    """A global split by time: train < validation_start <= validation < test_start <= test < end."""

    start: datetime
    validation_start: datetime
    test_start: datetime
    end: datetime


class DatasetManifest(Settings):
    """The contents and the origin of a folder of clean tables.

    Attributes:
        fingerprint: SHA-256 of source files, settings and window; the cache key of later steps.
        context_columns: Event columns beyond the contract that are known at the request.
        health: The lines of the health page.
        quarantined: The periods that were left out, whether or not they held rows.
    """

    source: str
    simulated: bool
    terms: str
    counts: dict[str, RowCounts]
    split: Split
    fingerprint: str
    context_columns: tuple[str, ...] = ()
    user_columns: tuple[str, ...] = ()
    health: tuple[HealthCheck, ...] = ()
    quarantined: tuple[QuarantinedDays, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "DatasetManifest":
        """Read the manifest of a dataset folder."""
        return cls.parse(read_json(folder / MANIFEST_FILE))

    def write(self, folder: Path) -> None:
        """Write the manifest into a dataset folder."""
        write_json(folder / MANIFEST_FILE, self.model_dump(mode="json"))
