"""Find what one run of the monitor measures: bundle, time, prediction log and tables."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from monitoring.measure import MonitoredData, daily_windows
from monitoring.monitor import MonitorInputs
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

    Raises:
        UsageError: There is no champion, or a named table does not exist.
        ServiceUnreachable: What is behind a URL could not be read.
    """
    bundle = registry.get(champion or registry.needed_champion_id())
    since = f"date={Reference.read(bundle.reference).manifest.end:%Y-%m-%d}"
    local_log = _fetch(log, folder / "log", lambda name: not _is_before(name, since))
    if local_log is None:
        raise UsageError(f"there is no prediction log at {log}")
    return MonitorInputs(
        bundle_id=bundle.bundle_id,
        reference=bundle.reference,
        data=MonitoredData(
            log=local_log,
            events=_fetch(outcomes, folder / "outcomes"),
            items=_fetch(items, folder / "items"),
            index=bundle.index,
        ),
        windows=daily_windows(until, windows, settings.window_days),
    )


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


def _is_before(name: PurePosixPath, first_day: str) -> bool:
    days = [part for part in name.parts if part.startswith("date=")]
    return bool(days) and days[0] < first_day


def _fetch(
    place: str, folder: Path, wanted: Callable[[PurePosixPath], bool] = lambda name: True
) -> Path | None:
    """The local path of a Parquet file or of a folder of them; None for no place."""
    if not is_url(place):
        return Path(place) if place else None
    return download(place, folder, lambda name: name.suffix == ".parquet" and wanted(name))
