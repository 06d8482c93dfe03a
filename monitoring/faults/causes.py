"""Which faults follow from others, and the days of a table that are quarantined for them."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from monitoring.faults import PREFIX
from refit.drift import DriftResult, DriftState
from refit.quarantine import Quarantine

FOLLOWS_FROM = {
    "stale": ("silent", "lost", "stopped", "early", "outlived"),
    "replayed": (
        "items/outlived",
        "misattributed",
        "lost",
        "early",
        "doubled",
        "vectors_repeated",
        "rewritten",
    ),
    "doubled": ("vectors_repeated", "stopped", "encoder"),
    "stopped": ("missing", "cut", "constant", "clock", "silent", "lost", "renamed"),
    "clock": ("silent", "early", "lost"),
    "silent": ("stopped", "lost"),
    "retyped": ("missing", "scale", "impossible", "constant", "cut", "renamed", "unrelated"),
    "swapped": (
        "contradicts",
        "unrelated",
        "renamed",
        "cut",
        "constant",
        "stopped",
        "garbled",
        "missing",
    ),
    "rewritten": (
        "contradicts",
        "lost",
        "unrelated",
        "scale",
        "renamed",
        "swapped",
        "missing",
        "cut",
        "garbled",
        "encoder",
    ),
    "garbled": ("contradicts", "unrelated", "renamed", "cut", "swapped"),
    "constant": ("renamed", "unrelated", "lost", "splintered", "misattributed"),
    "renamed": (
        "unrelated",
        "lost",
        "cut",
        "stopped",
        "misattributed",
        "splintered",
        "contradicts",
    ),
    "cut": ("unrelated", "renamed", "constant"),
    "missing": ("unrelated", "constant", "vectors_repeated"),
    "impossible": ("unrelated", "scale", "constant"),
    "contradicts": ("unrelated", "vectors_shuffled"),
    "unrelated": ("vectors_shuffled", "encoder"),
    "vectors_scaled": ("encoder",),
    "vectors_repeated": ("encoder", "vectors_shuffled", "vectors_scaled", "constant"),
    "vectors_shuffled": ("encoder",),
}
"""By fault, those that are often its consequences in the same window: of the same feed, or of one
that is named before a slash.

The first come first: what follows from another is no cause itself."""


def name_faults(results: Iterable[DriftResult]) -> list[DriftResult]:
    """The faults that are found, without those that follow from another of the same feed."""
    found = [r for r in results if r.subject.startswith(PREFIX) and r.state is DriftState.DRIFT]
    there = {(r.window.start, _table(r), r.statistic) for r in found}
    following: set[tuple[datetime, str, str]] = set()
    settled: set[tuple[datetime, str, str]] = set()
    for cause, follow in FOLLOWS_FROM.items():
        for start, table, name in there - following:
            if name == cause:
                settled.add((start, table, name))
                names = (f"{table}/{other}".split("/")[-2:] for other in follow)
                following |= {(start, where, other) for where, other in names} - settled
    return [r for r in found if (r.window.start, _table(r), r.statistic) not in following]


def find_quarantines(results: Sequence[DriftResult], alert_id: str = "") -> list[Quarantine]:
    """The days that no model may learn from: one for each feed and stretch of faulty windows.

    A quarantine ends with the last faulty window when a later one was checked and is right, and
    otherwise lasts until it is released. A window that could not be checked neither begins nor ends
    one. A fault of the whole table, such as ``rewritten``, concerns all of its rows.

    Args:
        results: Of consecutive windows, in any order; those of a window that was measured again
            stand for it, so that days that were mended are no longer named.
        alert_id: The alert that they come from.
    """
    own = [r for r in results if r.subject.startswith(PREFIX)]
    windows = sorted({r.window.start: r.window for r in own}.values(), key=lambda w: w.start)
    named = name_faults(own)
    quarantines: list[Quarantine] = []
    for table in sorted({_table(r) for r in own}):
        open_since: datetime | None = None
        reasons: list[str] = []
        last: datetime | None = None
        found: set[str] = set()
        for window in windows:
            here = [r for r in own if r.window.start == window.start and _table(r) == table]
            faults = [r for r in named if r.window.start == window.start and _table(r) == table]
            if faults:
                whole = any(r.statistic == "rewritten" for r in faults)
                begin = datetime(1970, 1, 1, tzinfo=UTC) if whole else window.start
                open_since = begin if open_since is None else min(open_since, begin)
                reasons += [r.detail for r in faults if r.detail]
                found |= {r.name for r in faults}
                last = window.end
            elif open_since is not None and _is_right(here, found):
                quarantines.append(_quarantine(table, open_since, last, reasons, alert_id))
                open_since, reasons, found = None, [], set()
        if open_since is not None:
            quarantines.append(_quarantine(table, open_since, None, reasons, alert_id))
    return quarantines


def _is_right(results: Iterable[DriftResult], found: Collection[str]) -> bool:
    """Whether a window is right: all that was found before, and all that can be, was looked for."""
    checked = [r for r in results if r.state is not DriftState.NOT_CHECKED or r.name in found]
    return bool(checked) and all(result.state is DriftState.OK for result in checked)


def _quarantine(
    table: str, start: datetime, end: datetime | None, reasons: list[str], alert_id: str
) -> Quarantine:
    named = f"{alert_id}-{table}" if alert_id else table
    return Quarantine(
        quarantine_id=f"{named}-{start:%Y%m%dT%H%M}",
        table=table,
        start=start,
        end=end,
        reason="; ".join(dict.fromkeys(reasons)),
        alert_id=alert_id,
    )


def _table(result: DriftResult) -> str:
    return result.subject.removeprefix(PREFIX).partition(".")[0]
