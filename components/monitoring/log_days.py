"""Keep the prediction log around a run of the monitor: merge its parts before, drop old days after.

Neither changes what the monitor reads, so an error in either is logged, and the monitor goes on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from monitoring.settings import LogKeepingSettings
from refit.log_keeping import KeptDay, compact, drop_days
from refit.log_parts import LogParts
from refit.progress import log_message


@contextmanager
def keeping_log(log: str, settings: LogKeepingSettings, end: datetime) -> Iterator[None]:
    """Merge the log's small parts, and once the block is done remove its old days.

    Args:
        log: The prediction log, a folder or URL.
        settings: Whether parts are merged, and how many days are kept.
        end: The end of the last window, from which age is counted.
    """
    if settings.compact:
        merged = _try(log, "merge parts", lambda parts: compact(parts, datetime.now(UTC)))
        if before := sum(day.before for day in merged):
            after = sum(day.after for day in merged)
            log_message(f"prediction log: {before} parts were merged into {after}")
    yield
    if settings.keep_days:
        keep = settings.keep_days
        gone = _try(log, "remove days", lambda p: drop_days(p, keep, end, datetime.now(UTC)))
        if gone:
            log_message(
                f"prediction log: {len(gone)} days up to {gone[-1].day}, older than {keep} days, "
                "were removed"
            )


def _try(log: str, what: str, keep: Callable[[LogParts], list[KeptDay]]) -> list[KeptDay]:
    try:
        return keep(LogParts.at(log))
    except Exception as error:  # whatever a store's client raises
        log_message(f"prediction log: could not {what}: {type(error).__name__}: {error}")
        return []
