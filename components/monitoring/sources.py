"""Find what one run of the monitor measures: bundle, time, prediction log and tables."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.monitoring.feed_settings import FeedSettings
from components.monitoring.feeds import read_feed
from monitoring.monitor import MonitorInputs
from monitoring.quarantines import find_learned, find_unlisted
from monitoring.reference import Reference
from monitoring.roll_back import find_roll_back
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData, daily_windows
from refit.bundle import MANIFEST_FILE, BundleManifest
from refit.errors import RefitError, UsageError
from refit.features import FeaturesManifest
from refit.index import IndexManifest
from refit.log_parts import LogParts
from refit.quarantine import Quarantine
from refit.registry import Registry
from refit.remote import download, is_url

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BUNDLES = 50
"""The latest ones are those that can have answered in the windows of a run."""


def find_sources(
    settings: MeasureSettings,
    registry: Registry,
    folder: Path,
    *,
    champion: str,
    log: str,
    outcomes: str,
    items: str,
    until: datetime,
    windows: int,
    feeds: FeedSettings = FeedSettings(),  # noqa: B008 - frozen
    quarantines: Iterable[Quarantine] = (),
) -> MonitorInputs:
    """Find what to measure; what is behind a URL is copied into ``folder``.

    Of a remote log only the days from the reference's end on are copied: older answers come from
    other towers.

    Args:
        settings: Length of a window.
        registry: Where bundles are kept.
        folder: For copies.
        champion: Id of the bundle that serves; empty looks it up.
        log: The prediction log, a path or URL.
        outcomes: Events with the ``request_id`` of the answers they follow, a path or URL; empty
            for none.
        items: The current items table, a path or URL; empty for none.
        until: End of the last window.
        windows: The number of windows.
        feeds: How the files of outcomes and items are written.
        quarantines: Those in force; the decision says whether the bundle was trained on their days.

    Returns:
        What to measure; a feed that cannot be read is in ``unreadable``, with the reason.

    Raises:
        UsageError: There is no champion.
    """
    bundle = registry.get(champion or registry.needed_champion_id())
    reference = Reference.read(bundle.reference)
    since = f"{reference.manifest.end:%Y-%m-%d}"
    trained_on = FeaturesManifest.read(bundle.path).dataset
    unreadable: dict[str, RefitError] = {}
    with _noting("log", unreadable):
        local_log = LogParts.at(log).copy(folder / "log", since) if is_url(log) else Path(log)
        if not log or not local_log.exists():
            raise UsageError(f"there is no prediction log at {log}")
    tables: dict[str, Path] = {}
    for table, place in (("events", outcomes), ("items", items)):
        with _noting(table, unreadable):
            if found := _fetch(place, folder / f"{table}-copy"):
                tables[table] = read_feed(table, found, folder / table, feeds)
    return MonitorInputs(
        bundle_id=bundle.bundle_id,
        reference=reference,
        data=MonitoredData(
            log=folder / "no-log" if "log" in unreadable else local_log,
            events=tables.get("events"),
            items=tables.get("items"),
            index=bundle.index,
            indexed=find_index_times(registry),
            unreadable=unreadable,
        ),
        windows=daily_windows(until, windows, settings.window_days),
        notes=(
            *find_learned(quarantines, bundle.manifest, trained_on),
            *find_unlisted(bundle.manifest, IndexManifest.read(bundle.index), trained_on),
        ),
        roll_back=find_roll_back(registry, bundle.bundle_id),
    )


def find_index_times(registry: Registry) -> dict[str, datetime]:
    """The time of the index of each of the latest bundles, by the bundle's id.

    It is earlier than the bundle's own where building took long, or data came late.
    """
    found = {}
    for name in registry.list()[-BUNDLES:]:
        with suppress(RefitError):  # a bundle that cannot be read is nothing that this run needs
            found[name] = BundleManifest.parse_json(
                registry.read_file(name, MANIFEST_FILE) or ""
            ).as_of
    return found


@contextmanager
def _noting(name: str, unreadable: dict[str, RefitError]) -> Iterator[None]:
    """Keep the error of a feed: the monitor raises an alert for it, and ends with it."""
    try:
        yield
    except RefitError as error:
        unreadable[name] = error


def end_of_last_window(until: str, window_days: float) -> datetime:
    """The end of the last window, UTC.

    Args:
        until: ISO 8601, as the user gave it; empty for a scheduled run, which takes the last
            midnight, or the end of the last whole window where windows are shorter than a day.
        window_days: Length of a window.

    Raises:
        ValueError: ``until`` is not ISO 8601.
    """
    if until:
        return datetime.fromisoformat(until)
    step = timedelta(days=min(window_days, 1.0))
    return EPOCH + (datetime.now(UTC) - EPOCH) // step * step


def _fetch(place: str, folder: Path) -> Path | None:
    """The local path of a file or of a folder; None for no place."""
    if not is_url(place):
        return Path(place) if place else None
    return download(place, folder)
