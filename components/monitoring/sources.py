"""What one run of the monitor looks at, wherever it lies: bundle, moment, log, tables."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import fsspec

from monitoring.act import Watched
from monitoring.measure import daily_windows
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from refit.errors import ServiceUnreachable, UsageError
from refit.progress import say
from refit.registry import Registry


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


def end_of_last_window(until: str) -> datetime:
    """The moment named, or last midnight UTC: a schedule's runs each have their own."""
    if until:
        return datetime.fromisoformat(until)
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _is_before(name: str, first_day: str) -> bool:
    days = [part for part in PurePosixPath(name).parts if part.startswith("date=")]
    return bool(days) and days[0] < first_day


def _fetch(
    url: str, target: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Path | None:
    """A local path for a path or URL of a Parquet file or a folder of them; None for no URL."""
    if not url:
        return None
    if "://" not in url:
        return Path(url)
    try:
        fs, root = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        if fs.isfile(root):
            target = target.with_suffix(".parquet")
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(root, str(target))
            return target
        names = [
            name
            for name in fs.glob(f"{root.rstrip('/')}/**/*.parquet")
            if not PurePosixPath(name).name.startswith(".") and wanted(name)
        ]
        for name in names:
            copy = target / PurePosixPath(name).relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(name, str(copy))
    except (OSError, ImportError) as error:
        raise ServiceUnreachable(f"{url} cannot be read: {error}") from error
    target.mkdir(parents=True, exist_ok=True)
    say(f"monitor: {len(names)} files from {url}")
    return target
