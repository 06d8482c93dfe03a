"""A clock that is hours off: the whole day's course has moved."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.answered import REQUEST, read_answered
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed, code_as_known, code_known
from monitoring.faults.known import SLOTS, KnownFeed, count_by_slot

UNIT = "how much better a moved clock explains the hours, in log-likelihood"
RUNBOOK = Advice(
    "The course of the day is as always, but hours earlier or later: local times are read as UTC, "
    "or a server's clock is off.",
    "Ask the owner of the feed in which time zone the export is, and set it. Orders of events and "
    "listings, histories and outcomes of answers are wrong until then.",
)
TABLES = ("items", "events")
_SHIFTS = tuple(quarters for quarters in range(-48, 48) if abs(quarters) >= 6)
_USUAL_SHIFTS = tuple(range(-4, 5))
"""People themselves move by an hour when summer time begins or ends."""
_PARTS = (0.3, 0.5, 0.7, 1.0)
_GAIN = 20.0
_MOST_VALUES = 10
_SHARE = 0.05
_ALIKE = np.array([-1.0, 1.0])
"""Quarters of an hour around a shift."""
_SHARE_BETWEEN_DAYS = 0.01
_SILENCE = 0.05


def find(feed: Feed) -> Iterator[Sign]:
    """The shift that explains the window best, of all rows and of each source."""
    if feed.no_hours:
        yield leave_unchecked(f"{feed.no_hours}: whether clocks are off is not checked")
        return
    n = len(feed)
    if n < feed.settings.minimum_rows:
        yield Sign("", why=f"{n} rows, {feed.settings.minimum_rows} are needed", n_current=n)
        return
    yield _compare(feed, "", "", count_by_slot(feed.times), _PARTS)
    for column in feed.columns("category"):
        if len(feed.known.vocabulary(column)) <= _MOST_VALUES:
            yield _compare_sources(feed, column)
    yield from _compare_delays(feed)


def _compare_delays(feed: Feed) -> Iterator[Sign]:
    """The share of events that come a fixed time before, or long after, the answer they name.

    People answer within minutes or not at all, and never before: hours in between, the same for
    many, are a clock that is off for some of the rows.
    """
    if feed.name != "events":
        return
    found = read_answered(feed)
    unchecked = "whether events are as late as before, by the answers they name, is not checked"
    if isinstance(found, str):
        yield leave_unchecked(f"{found}: {unchecked}", REQUEST)
        return
    n, n0 = len(found.delays), len(found.delays_before)
    least = feed.settings.minimum_rows
    if min(n, n0) < least:
        why = f"{n} events name an answer, {n0} on the days before, and {least} are needed"
        yield leave_unchecked(f"{why}: {unchecked}", REQUEST)
        return
    edges = (np.array(_SHIFTS)[:, None] + _ALIKE) / SLOTS
    now, before = (
        np.array([((delays >= low) & (delays < high)).sum() for low, high in edges])
        for delays in (found.delays, found.delays_before)
    )
    best = int((now / n - before / n0).argmax())
    rate, k, k0 = feed.settings.rate, int(now[best]), int(before[best])
    share, chance, p = compare_shares(k, n, k0, n0, rate, _SHARE_BETWEEN_DAYS)
    hours = _SHIFTS[best] / 4
    detail = (
        f"{k / n:.0%} of the events come {abs(hours):g} hours {'after' if hours > 0 else 'before'} "
        f"the answer that they name, on the days before {k0 / n0:.1%}"
    )
    yield Sign(REQUEST, max(share, 0.0), max(_SHARE, chance), detail, p, n0, n)


def _compare_sources(feed: Feed, column: str) -> Sign:
    code = code_as_known(feed.known, feed.rows, column)
    code0 = feed.known.once(code_known, column)
    signs = []
    for place, value in enumerate(feed.known.vocabulary(column)):
        own = code == place
        if (code0 == place).mean() < _SHARE or own.sum() < feed.settings.minimum_rows:
            continue
        now = count_by_slot(feed.rows.day[own])
        signs.append(_compare(feed, column, value, now, (1.0,)))
    if not signs:
        return Sign(column, 0.0, _GAIN)
    return max(signs, key=lambda each: (each.value or 0.0) / (each.threshold or 1.0))


def _compare(
    feed: Feed,
    column: str,
    value: str,
    now: np.ndarray,
    parts: tuple[float, ...],
) -> Sign:
    known = feed.known
    counts, profile, spread = known.once(_learn_course, column, value)
    there = _find_there(now, profile)
    if there.all():
        shifts, usual = known.once(_learn_shifts, column, value, parts)
    else:
        shifts, usual = _learn_shifts(known, column, value, parts, there)
    gains, places = shifts.find(now[None])
    gain, (shift, which) = float(gains[0]), divmod(int(places[0]), len(parts))
    quarters, part = _SHIFTS[shift], parts[which]
    threshold = max(_GAIN * spread, 2.0 * usual * now.sum())
    hours = abs(quarters) / 4
    whose = f" with {column} {value!r}" if column else ""
    much = "all" if part == 1.0 else f"about {part:.0%} of the"
    later = "later" if quarters > 0 else "earlier"
    detail = f"{much} {feed.name}{whose} come {hours:g} hours {later} in the day than before"
    rows = (int(counts.sum()), int(now.sum()))
    return Sign(column, max(gain, 0.0), threshold, detail, None, *rows)


@dataclass(frozen=True)
class _Shifts:
    """Logarithms of the shares by time of day under every shift.

    On the first day of a clock that is ahead no row falls into its first hours, and so these are
    left out, for the shift and for what it is compared with.

    Attributes:
        moved: [shifts, parts, slots] with some of the rows moved.
        usual: [shifts, usual, slots] as they were, or moved by up to an hour.
        parts: What share of the rows moved.
    """

    moved: np.ndarray
    usual: np.ndarray
    parts: tuple[float, ...]

    @classmethod
    def of(cls, profile: np.ndarray, parts: tuple[float, ...], there: np.ndarray) -> "_Shifts":
        slots = np.arange(SLOTS)
        steps = np.array(_SHIFTS)[:, None]
        seen = np.where(steps > 0, slots >= steps, slots < SLOTS + steps)[:, None, :] & there
        rolled = profile[(slots - steps) % SLOTS]
        share = np.array(parts)[:, None]
        mixed = (1 - share) * profile + share * rolled[:, None, :]
        usual = profile[(slots - np.array(_USUAL_SHIFTS)[:, None]) % SLOTS][None]
        return cls(_to_logs(mixed, seen), _to_logs(usual, seen), parts)

    def find(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[days] the gains in log-likelihood of the best shifts, and their places."""
        base = np.einsum("sut,dt->dsu", self.usual, counts, optimize=True).max(axis=2)
        gains = np.einsum("spt,dt->dsp", self.moved, counts, optimize=True) - base[:, :, None]
        flat = gains.reshape(len(counts), -1)
        return flat.max(axis=1), flat.argmax(axis=1)


def _learn_course(
    known: KnownFeed, column: str, value: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """What the reference says of all rows, or of those with one value of a column.

    Returns:
        [days, slots] their counts, [slots] their course of the day, and how many times more days
        differ than by chance.
    """
    counts = known.counts
    if column:
        rows = known.rows
        own = known.once(code_known, column) == list(known.vocabulary(column)).index(value)
        day = np.unique(np.floor(rows.day), return_inverse=True)[1]
        counts = np.zeros((int(day.max()) + 1, SLOTS))
        np.add.at(counts, (day[own], np.floor(rows.day[own] % 1.0 * SLOTS).astype(int)), 1.0)
    profile = _smooth(counts.sum(axis=0))
    return counts, profile, _find_spread(counts, profile)


def _learn_shifts(
    known: KnownFeed,
    column: str,
    value: str,
    parts: tuple[float, ...],
    there: np.ndarray | None = None,
) -> tuple[_Shifts, float]:
    """The shifts, and what a row gains by the best of them on a day of the reference.

    That is how people's hours differ between days.
    """
    counts, profile, _ = known.once(_learn_course, column, value)
    seen = np.ones(SLOTS, dtype=bool) if there is None else there
    shifts = _Shifts.of(profile, parts, seen)
    days = counts[counts.sum(axis=1) >= 20]
    usual = float((shifts.find(days)[0] / days.sum(axis=1)).max()) if len(days) else 0.0
    return shifts, usual


def _to_logs(shares: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Logarithms of the shares among the slots that are seen; 0 for the others."""
    total = np.where(seen, shares, 0.0).sum(axis=-1, keepdims=True)
    return np.asarray(np.log(np.where(seen, shares / total, 1.0)))


def _find_there(now: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """[slots] which are not part of a long silence, whose rows are late or lost."""
    there = np.ones(SLOTS, dtype=bool)
    for run in np.split(np.arange(SLOTS), np.flatnonzero(np.diff(now > 0) != 0) + 1):
        if now[run[0]] == 0 and profile[run].sum() > _SILENCE and now.sum() >= SLOTS:
            there[run] = False
    return there


def _smooth(counts: np.ndarray) -> np.ndarray:
    """Shares by time of day, smoothed over an hour, none of them zero."""
    spread = sum(np.roll(counts, shift) for shift in (-2, -1, 0, 1, 2)) / 5
    shares = spread / max(float(counts.sum()), 1.0)
    return np.asarray(0.95 * shares + 0.05 / len(counts))


def _find_spread(counts: np.ndarray, profile: np.ndarray) -> float:
    """How many times more the hours of days differ than chance would have it."""
    hourly = counts.reshape(len(counts), 24, -1).sum(axis=2)
    expected = hourly.sum(axis=1, keepdims=True) * profile.reshape(24, -1).sum(axis=1)
    usable = expected.min(axis=1) >= 0.5
    if usable.sum() < 3:
        return 1.0
    chi = ((hourly - expected)[usable] ** 2 / expected[usable]).sum(axis=1) / 23
    return max(1.0, float(np.median(chi)))
