"""The ingestion step: read a source, check and clean it, split it by time, write a dataset."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.cleaning import count_rows
from components.ingestion.copies import download_source
from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.health.check import check_health
from components.ingestion.health.data import HealthData
from components.ingestion.health.page import HEALTH_FILES, write_health
from components.ingestion.health.times import count_days
from components.ingestion.quarantined import measure_loss
from components.ingestion.schemas import UNKNOWN_ITEM
from components.ingestion.selection import find_unnamed_columns, select_columns
from components.ingestion.settings import FILES, IngestSettings
from components.ingestion.source import RawTables, Source, load_source
from components.ingestion.tables import (
    CleanedTable,
    IngestionContext,
    clean_tables,
    find_end,
)
from refit.dataset import REJECTED_FOLDER, DatasetManifest, Split
from refit.errors import DataValidationError, UsageError
from refit.extensions import naming
from refit.files import read_json, remove, write_atomically, write_json
from refit.health import HealthCheck, stopping, summarize_health
from refit.progress import log_message, timed
from refit.quarantine import describe_release
from refit.remote import is_url, upload
from refit.tables import is_about_data, open_tables
from refit.tabular.advice import write_advice
from refit.tabular.parsing import NO_ZONE

VIOLATIONS_FILE = "violations.json"
MOST_IN_QUARANTINE = 0.5
"""The largest share of train, validation or test that may be in quarantine."""


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
            of the split is empty, too many rows were rejected, or a line of the health page stops
            the run; the message lists every violation, and says where the rejected rows and the
            health page are.
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
                form = settings.file_format(source.NAIVE_TIMES)
                tables = select_columns(_read(source, con, settings, scratch), settings, form)
                as_of = settings.as_of or datetime.now(UTC)
                end = find_end(settings, tables.events, form, as_of)
                unnamed = find_unnamed_columns(tables, settings)
                run = IngestionContext(con, settings, form, as_of, end, staging, unnamed)
                cleaned = clean_tables(run, tables)
                violations = [v.model_dump() for t in cleaned.values() for v in t.violations]
                write_json(staging / REJECTED_FOLDER / VIOLATIONS_FILE, violations)
                _log_counts(cleaned)
                split = _find_split(cleaned, settings, end)
                health = _check_health(cleaned, tables, settings, split, staging)
                _check_rejected_shares(cleaned, settings)
                _check_parts(cleaned["events"], split, settings)
                _check_stops(health)
        except DataValidationError as error:
            raise DataValidationError(f"{error}{_save_findings(staging, settings, out)}") from error
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
            health=health,
            quarantined=settings.quarantined,
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
            f" + {counts.duplicates} duplicates"
            + (f" + {counts.capped} over the cap" if counts.capped else "")
            + (f" + {counts.quarantined} in quarantine" if counts.quarantined else "")
            + f" ({counts.outside} outside the window)"
        )
        for violation in table.violations:
            log_message(f"  {violation}")


def _check_rejected_shares(cleaned: Mapping[str, CleanedTable], settings: IngestSettings) -> None:
    """Raise if more rows of a table were rejected than the settings allow."""
    limits = settings.max_rejected.model_dump()
    errors, advice = [], []
    items_fail = "items" in cleaned and _rejected_share(cleaned["items"]) > limits["items"]
    for name, table in cleaned.items():
        counts = table.counts
        share = _rejected_share(table)
        shown = [
            violation
            for violation in table.violations
            # Events of rejected items follow from the items.
            if not (items_fail and violation.reason == f"item_id: {UNKNOWN_ITEM}")
        ]
        if share > limits[name] and shown:
            errors.append(
                f"{name}: {counts.rejected} of {counts.checked} rows ({share:.1%}) were rejected, "
                f"more than the {limits[name]:.1%} of max_rejected.{name}"
            )
            for violation in shown:
                errors.append(f"  {violation}")
                if violation.reason == f"item_id: {UNKNOWN_ITEM}":
                    errors.append(f"    the items have {_show_ids(cleaned['items'])}")
            # Other sources know how their files are written.
            advice += [
                violation.advice
                for violation in shown
                if settings.source == FILES or violation.reason.endswith(NO_ZONE)
            ]
    if errors:
        listed = "\n  ".join(errors)
        raise DataValidationError(
            f"the source breaks the contract:\n  {listed}{write_advice(advice)}"
        )


def _show_ids(items: CleanedTable) -> str:
    ids = items.table.item_id.as_table().order_by("item_id").limit(3).to_pyarrow()
    return ", ".join(map(repr, ids["item_id"].to_pylist()))


def _rejected_share(table: CleanedTable) -> float:
    return table.counts.rejected / max(table.counts.checked, 1)


def _find_split(
    cleaned: Mapping[str, CleanedTable], settings: IngestSettings, end: datetime
) -> Split:
    """Split the window by time into train, validation and test.

    Raises:
        DataValidationError: No event is left.
    """
    events = cleaned["events"].table
    if not count_rows(events):
        _check_rejected_shares(cleaned, settings)
        raise DataValidationError(
            "no event is left: the window from start to end is empty"
            + _explain_quarantine(cleaned["events"].counts.quarantined, settings, end)
        )
    test_start = settings.test_start or end - timedelta(days=settings.test_days or 0)
    validation_start = settings.validation_start or test_start - timedelta(
        days=settings.validation_days or 0
    )
    return Split(
        start=settings.start or _find_span(events)[0],
        validation_start=validation_start,
        test_start=test_start,
        end=end,
    )


def _find_span(events: ir.Table) -> tuple[datetime, datetime]:
    """The times of the first and the last event."""
    span = events.agg(first=events.event_time.min(), last=events.event_time.max()).to_pyarrow()
    first, last = (value[0].as_py().astimezone(UTC) for value in span.columns)
    return first, last


def _check_health(
    cleaned: Mapping[str, CleanedTable],
    tables: RawTables,
    settings: IngestSettings,
    split: Split,
    folder: Path,
) -> tuple[HealthCheck, ...]:
    """Check the data's health, write its page, and log what somebody should look at."""
    data = HealthData(
        events=cleaned["events"].table,
        items=cleaned["items"].table,
        users=cleaned["users"].table,
        versions=cleaned["items"].versions,
        rejected={n: t.rejected for n, t in cleaned.items() if t.rejected is not None},
        counts={name: table.counts for name, table in cleaned.items()},
        split=split,
        limits=settings.health,
        has_items=tables.items is not None,
        has_users=tables.users is not None,
        most_per_day=settings.max_user_events_per_day,
        max_rejected=settings.max_rejected.model_dump(),
        quarantined=settings.quarantined,
    )
    with timed("checked the health of the data"):
        days = count_days(data.events)
        checks = check_health(data, days)
    write_health(folder, settings.source, split, days, checks)
    for line in summarize_health(checks):
        log_message(line)
    return checks


def _check_stops(health: Sequence[HealthCheck]) -> None:
    """Raise if a line of the health page stops the run."""
    if stops := stopping(health):
        lines = "\n  ".join(str(check) for check in stops)
        cures = [f"health:\n  {c.setting}: {{stop: null}}  # if the data is right" for c in stops]
        raise DataValidationError(
            f"the health of the data stops the run:\n  {lines}{write_advice(cures)}"
        )


def _check_parts(cleaned: CleanedTable, split: Split, settings: IngestSettings) -> None:
    """Raise if train, validation or test has no event, or most of it is in quarantine."""
    events, left_out = cleaned.table, cleaned.left_out
    parts = {
        "train": (split.start, split.validation_start),
        "validation": (split.validation_start, split.test_start),
        "test": (split.test_start, split.end),
    }
    empty, lost = [], []
    for name, (begin, until) in parts.items():
        time = events.event_time
        n = count_rows(events.filter((time >= begin) & (time < until)))
        if left_out is not None:
            n_lost, share = measure_loss(settings.quarantined, events, left_out, begin, until)
            if share > MOST_IN_QUARANTINE or (n_lost and not n):
                lost.append(
                    f"most of {name} ({begin.isoformat()} to {until.isoformat()}) is left out"
                    + _explain_quarantine(n_lost, settings, until)
                )
        log_message(f"{name}: {n} events from {begin:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC")
        if not n:
            empty.append(f"{name} ({begin.isoformat()} to {until.isoformat()})")
    if lost:
        raise DataValidationError("; ".join(lost))
    if empty:
        first, last = _find_span(events)
        raise DataValidationError(
            f"no event in {' and '.join(empty)}; the events range from {first.isoformat()} "
            f"to {last.isoformat()}"
        )


def _explain_quarantine(n: int, settings: IngestSettings, until: datetime) -> str:
    """The quarantines that leave out ``n`` events of a time, and how to release them."""
    if not n:
        return ""
    found = [each for each in settings.quarantined if each.start < until]
    reasons = "; ".join(dict.fromkeys(f"{each.table}: {each.reason}" for each in found))
    release = describe_release(tuple(each.quarantine_id for each in found))
    return (
        f": {n:,} events are in quarantine ({reasons}). Where the data is right, {release}; "
        "otherwise move the split with ingestion.end, validation_days and test_days"
    )


def _save_findings(folder: Path, settings: IngestSettings, out: Path) -> str:
    """Move what a failed run found out of the staging folder; return lines to log.

    These are the rejected rows and the health page, as far as the run came.
    """
    rejected = folder / REJECTED_FOLDER
    violations = rejected / VIOLATIONS_FILE
    pages = [folder / name for name in HEALTH_FILES if (folder / name).exists()]
    has_rows = rejected.exists() and not (violations.exists() and not read_json(violations))
    if not has_rows and not pages:
        return ""
    rejected.mkdir(exist_ok=True)
    for page in pages:
        page.rename(rejected / page.name)
    name = f"{out.name}.rejected-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    root = settings.rejected_folder or str(out.parent)
    if is_url(root):
        place = f"{root.rstrip('/')}/{name}"
        upload(rejected, place)
    else:
        place = str(Path(root) / name)
        Path(root).mkdir(parents=True, exist_ok=True)
        shutil.move(rejected, place)
    rows = f"\nThe rejected rows are in {place}" if has_rows else ""
    return rows + (f"\nThe health page of the data is {place}/{HEALTH_FILES[0]}" if pages else "")
