"""What one run of the monitor looks at, wherever it lies: bundle, moment, log, tables."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from monitoring.act import Watched
from monitoring.measure import daily_windows
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from refit.errors import UsageError
from refit.registry import Registry
from refit.remote import download, is_url

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
) -> Watched:
    """Find what is to be watched; what lies at a URL is copied into ``folder``.

    Of a remote log only the days from the reference's end on are copied: older answers are none
    of these towers.

    Args:
        settings: Length of a window.
        registry: Where bundles are kept.
        folder: For copies.
        champion: Id of the bundle that serves; empty looks it up.
        log: The prediction log, a path or URL.
        outcomes: Events that name the answers they follow, likewise; may be empty.
        items: The current items table, likewise.
        until: End of the last window.
        windows: How many.

    Raises:
        UsageError: There is no champion, or a named table is not there.
        ServiceUnreachable: What lies behind a URL could not be read.
    """
    bundle = registry.get(champion or registry.needed_champion_id())
    since = f"date={Reference.read(bundle.reference).manifest.end:%Y-%m-%d}"
    local_log = _fetch(log, folder / "log", lambda name: not _is_before(name, since))
    if local_log is None:
        raise UsageError(f"there is no prediction log at {log}")
    return Watched(
        bundle_id=bundle.bundle_id,
        reference=bundle.reference,
        log=local_log,
        events=_fetch(outcomes, folder / "outcomes"),
        items=_fetch(items, folder / "items"),
        index=bundle.index,
        windows=daily_windows(until, windows, settings.window_days),
    )


def end_of_last_window(until: str, window_days: float) -> datetime:
    """The moment named, else one that a schedule's runs find for themselves, UTC.

    That is last midnight; for windows of less than a day, the end of the last whole one.
    """
    if until:
        return datetime.fromisoformat(until)
    step = timedelta(days=min(window_days, 1.0))
    return EPOCH + (datetime.now(UTC) - EPOCH) // step * step


def _is_before(name: PurePosixPath, first_day: str) -> bool:
    days = [part for part in name.parts if part.startswith("date=")]
    return bool(days) and days[0] < first_day


def _fetch(
    place: str, folder: Path, wanted: Callable[[PurePosixPath], bool] = lambda name: True
) -> Path | None:
    """A local path of a Parquet file or a folder of them; None for no place."""
    if not is_url(place):
        return Path(place) if place else None
    return download(place, folder, lambda name: name.suffix == ".parquet" and wanted(name))
