"""The ingestion step: read a source, check and clean it, split it by time, write a dataset."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.cleaning import count_rows
from components.ingestion.copies import download_source
from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables, Source, load_source
from components.ingestion.tables import (
    CleanedTable,
    IngestionContext,
    clean_tables,
    find_end,
    select_columns,
)
from refit.dataset import REJECTED_FOLDER, DatasetManifest, Split
from refit.errors import DataValidationError, UsageError
from refit.extensions import naming
from refit.files import read_json, remove, write_atomically, write_json
from refit.progress import log_message, timed
from refit.remote import is_url, upload
from refit.tables import is_about_data, open_tables

VIOLATIONS_FILE = "violations.json"


def ingest(settings: IngestSettings, out: Path) -> DatasetManifest:
    """Read a source and write a dataset folder: clean tables, rejected rows, manifest.

    Args:
        settings: Settings of the step.
        out: The dataset folder. It must not exist, and is written atomically.

    Returns:
        The manifest of the dataset, as written to ``out``.

    Raises:
        UsageError: The source cannot be loaded, its files do not exist, or the settings name a
            column that it does not offer.
        DataValidationError: A file cannot be read, a required column is missing, a table or a part
            of the split is empty, or too many rows were rejected; the message lists every violation
            and says where the rejected rows are.
        RefitError: The memory limit is too small, or the disk is full.
    """
    if out.exists():
        raise UsageError(f"{out} exists; datasets are never overwritten, choose another folder")
    source = load_source(settings)
    with timed(f"ingested {settings.source}"), write_atomically(out) as staging:
        scratch = staging / ".scratch"
        scratch.mkdir(parents=True)
        settings = download_source(settings, scratch / "downloads")
        fingerprint = fingerprint_source(settings)
        try:
            limits = (settings.memory_limit, settings.threads)
            with open_tables("ingestion", f"source {settings.source!r}", *limits, scratch) as con:
                tables = select_columns(_read(source, con, settings, scratch), settings)
                naive_times = settings.naive_times or source.NAIVE_TIMES
                as_of = settings.as_of or datetime.now(UTC)
                end = find_end(settings, tables.events, naive_times, as_of)
                run = IngestionContext(con, settings, naive_times, as_of, end, staging)
                cleaned = clean_tables(run, tables)
                violations = [v.model_dump() for t in cleaned.values() for v in t.violations]
                write_json(staging / REJECTED_FOLDER / VIOLATIONS_FILE, violations)
                _log_counts(cleaned)
                _check_rejected_shares(cleaned, settings)
                split = _split_events(cleaned["events"].table, settings, end)
        except DataValidationError as error:
            raise DataValidationError(f"{error}{_save_rejected(staging, settings, out)}") from error
        remove(scratch)
        manifest = DatasetManifest(
            source=settings.source,
            simulated=source.IS_SIMULATED,
            terms=source.TERMS,
            counts={name: table.counts for name, table in cleaned.items()},
            split=split,
            fingerprint=fingerprint,
            context_columns=tables.context_columns,
            user_columns=tables.user_columns,
        )
        manifest.write(staging)
    return manifest


def _read(
    source: Source, con: ibis.BaseBackend, settings: IngestSettings, scratch: Path
) -> RawTables:
    """The tables of a source; an error in its code names the source."""
    advice = "correct its read(); the traceback is in the log"
    with naming(f"source {settings.source!r}", advice, is_about_data):
        return source.read(con, settings, scratch)


def _log_counts(cleaned: Mapping[str, CleanedTable]) -> None:
    for name, table in cleaned.items():
        counts = table.counts
        log_message(
            f"{name}: {counts.rows_in} rows in = {counts.kept} kept + {counts.rejected} rejected"
            f" + {counts.duplicates} duplicates ({counts.outside} outside the window)"
        )
        for violation in table.violations:
            log_message(f"  {violation}")


def _check_rejected_shares(cleaned: Mapping[str, CleanedTable], settings: IngestSettings) -> None:
    """Raise if more rows of a table were rejected than the settings allow."""
    limits = settings.max_rejected.model_dump()
    errors = []
    for name, table in cleaned.items():
        counts = table.counts
        share = counts.rejected / max(counts.rows_in, 1)
        if share > limits[name]:
            errors.append(
                f"{name}: {counts.rejected} of {counts.rows_in} rows ({share:.1%}) were rejected, "
                f"more than the {limits[name]:.1%} of max_rejected.{name}"
            )
            errors += [f"  {violation}" for violation in table.violations]
    if errors:
        raise DataValidationError("the source breaks the contract:\n  " + "\n  ".join(errors))


def _split_events(events: ir.Table, settings: IngestSettings, end: datetime) -> Split:
    """Split the events by time into train, validation and test, none of which may be empty."""
    if not count_rows(events):
        raise DataValidationError("no event is left: the window from start to end is empty")
    span = events.agg(first=events.event_time.min(), last=events.event_time.max())
    first, last = (value[0].as_py().astimezone(UTC) for value in span.to_pyarrow().columns)
    test_start = settings.test_start or end - timedelta(days=settings.test_days or 0)
    validation_start = settings.validation_start or test_start - timedelta(
        days=settings.validation_days or 0
    )
    split = Split(
        start=settings.start or first,
        validation_start=validation_start,
        test_start=test_start,
        end=end,
    )
    parts = {
        "train": (split.start, split.validation_start),
        "validation": (split.validation_start, split.test_start),
        "test": (split.test_start, split.end),
    }
    empty = []
    for name, (begin, until) in parts.items():
        time = events.event_time
        n = count_rows(events.filter((time >= begin) & (time < until)))
        log_message(f"{name}: {n} events from {begin:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC")
        if not n:
            empty.append(f"{name} ({begin.isoformat()} to {until.isoformat()})")
    if empty:
        raise DataValidationError(
            f"no event in {' and '.join(empty)}; the events range from {first.isoformat()} "
            f"to {last.isoformat()}"
        )
    return split


def _save_rejected(folder: Path, settings: IngestSettings, out: Path) -> str:
    """Move the rejected rows of a failed run out of the staging folder; return a line to log."""
    rejected = folder / REJECTED_FOLDER
    violations = rejected / VIOLATIONS_FILE
    if not rejected.exists() or (violations.exists() and not read_json(violations)):
        return ""
    name = f"{out.name}.rejected-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    root = settings.rejected_folder or str(out.parent)
    if is_url(root):
        place = f"{root.rstrip('/')}/{name}"
        upload(rejected, place)
    else:
        place = str(Path(root) / name)
        Path(root).mkdir(parents=True, exist_ok=True)
        shutil.move(rejected, place)
    return f"\nThe rejected rows are in {place}"
