"""Values that are written in another way: old ones vanish, new ones take their places."""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import linear_sum_assignment

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.feed import Feed, code_cells, code_groups, code_known
from monitoring.faults.known import KnownFeed
from monitoring.faults.signs.missing import spells_nothing
from monitoring.frame import Frame, count_column, count_values, find_missing

UNIT = "share of the rows with a known value under a new name; of ids, of known ones that are gone"
RUNBOOK = Advice(
    "Known values are written in another way: in capitals, with a prefix, in another language.",
    "Map the new names to the old ones, or rename the whole history and refit on that. A model "
    "that knows the old names treats these rows as of an unknown value.",
)
TABLES = ("items", "events")
_LEAST = 0.05
_FEWEST = 5.0
"""Rows of a value that must be expected before it counts as vanished."""
_FEWEST_WITHIN = 10
_LEFT_WITHIN = 0.1
_LATE_DAYS = 5
_USUALLY_KNOWN = 0.2
_STRANGERS = 0.9
_ALIKE = 0.35
"""Largest mean difference between the profiles of a value and of what takes its place."""


@dataclass(frozen=True)
class _Change:
    """A column's values that vanished, and those that are new, with their rows.

    Attributes:
        vanished: Expected rows of each value that is gone.
        new: Rows of each value that was never seen.
        n, n0: Rows with a value in the window and in the reference.
    """

    vanished: Mapping[str, float]
    new: Mapping[str, int]
    n: int
    n0: int


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of few values, the share of rows whose value is a known one renamed.

    For people's ids it is the share of the known ones that no longer come.
    """
    for column in (c for c in ("user_id", "seller_id") if c in feed.known.kinds):
        sign = _find_strangers(feed, column)
        if sign is not None:
            yield sign
    for column in feed.columns("category"):
        change = _find_change(feed, column)
        if change.n < feed.settings.minimum_rows:
            why = f"{change.n} values, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=change.n0, n_current=change.n)
            continue
        pairs = _pair_by_spelling(change, feed.known.once(_spell_plainly, column))
        by_profile = _pair_by_profile(feed, column, change)
        # A new word that is only spelled like a known one is a rename where it takes its place.
        share = sum(change.new[new] for new in {**by_profile, **pairs}) / change.n
        found = {**by_profile, **pairs}
        within = _find_within(feed, column)
        if within is not None and within[0] > share:
            share, found = within
        # In free text other spellings of rare values come up every day: twice those of before.
        usual = sum(1 for k in feed.known.vocabulary(column).values() if k == 1)
        threshold = max(_LEAST, 3.0 * usual / max(change.n0, 1))
        yield Sign(
            column,
            share,
            threshold,
            _describe(column, found),
            n_reference=change.n0,
            n_current=change.n,
        )


def _find_strangers(feed: Feed, column: str) -> Sign | None:
    """How few of the window's people are known, by how few of the last known days were before."""
    if column not in feed.rows.names or not np.isfinite(feed.known.rows.day).any():
        return None
    earlier, usual = feed.known.rows.once(_find_earlier, column)
    if usual < _USUALLY_KNOWN:
        return None
    now, n0 = feed.rows.column(column), len(feed.known.rows)
    if len(now) < feed.settings.minimum_rows:
        why = f"{len(now)} rows, {feed.settings.minimum_rows} are needed"
        return Sign(column, why=why, n_reference=n0, n_current=len(now))
    share = _share_known(now, earlier)
    detail = (
        f"{share:.0%} of the new rows have a known {column}, before {usual:.0%}: ids are written "
        "in another way"
    )
    lost = max(0.0, 1.0 - share / usual)
    return Sign(column, lost, _STRANGERS, detail, None, n0, len(now))


def _find_earlier(known: Frame, column: str) -> tuple[pa.Array, float]:
    """The ids of all days but the last few, and the share of known ones on these few."""
    day = np.floor(known.day)
    late = day > np.nanmax(day) - _LATE_DAYS
    ids = known.column(column)
    earlier = pc.unique(ids.filter(pa.array(~late)))
    return earlier, _share_known(ids.filter(pa.array(late)), earlier)


def _share_known(ids: pa.Array, known: pa.Array) -> float:
    return float(pc.mean(pc.is_in(ids, value_set=known)).as_py() or 0.0)


def _find_within(feed: Feed, column: str) -> tuple[float, dict[str, str]] | None:
    """The rows of known categories in which all values are others than before, and examples.

    New supply of a known category has some of its values, or brings new ones beside them.
    """
    if not feed.known.group or column == feed.known.group or column not in feed.rows.names:
        return None
    groups = code_groups(feed, feed.rows)
    usual, length = feed.known.once(_list_within, column)
    cells = feed.rows.column(column)
    if not pa.types.is_string(cells.type):
        return None
    there = ~find_missing(cells) & (groups[1] >= 0)
    texts, code = cells.filter(pa.array(there)).to_pylist(), groups[1][there]
    known = np.array([text in usual[group] for text, group in zip(texts, code, strict=True)])
    rows = np.bincount(code, minlength=length)
    kept = np.bincount(code, known, length) if len(code) else np.zeros(length)
    settled = np.array([len(usual[group]) > 0 for group in range(length)])
    gone = settled & (rows >= _FEWEST_WITHIN) & (kept <= _LEFT_WITHIN * rows)
    found: dict[str, str] = {}
    for text, group in zip(texts, code, strict=True):
        if gone[group] and text not in usual[group]:
            found.setdefault(text, next(iter(usual[group])))
    return float(rows[gone].sum()) / max(len(texts), 1), found


def _list_within(known: KnownFeed, column: str) -> tuple[list[dict[str, int]], int]:
    """The values that nearly all rows of each category have; none where new ones are usual."""
    code = known.once(code_known, known.group)
    cells, length = known.rows.column(column), len(known.vocabulary(known.group))
    found: list[dict[str, int]] = []
    for group in range(length):
        counts = count_values(cells.filter(pa.array(code == group)))
        alone = sum(1 for each in counts.values() if each == 1)
        total = sum(counts.values())
        found.append(counts if total >= _FEWEST_WITHIN and alone <= 0.1 * total else {})
    return found, length


def _find_change(feed: Feed, column: str) -> _Change:
    known, counts = feed.known.vocabulary(column), {}
    if column in feed.rows.names:
        counts = feed.rows.once(count_column, column)
    n, n0 = sum(counts.values()), sum(known.values())
    elsewhere = {
        value
        for other in feed.columns("category")
        if other != column
        for value in feed.known.vocabulary(other)
    }
    return _Change(
        vanished={
            value: n * count / n0
            for value, count in known.items()
            if n * count / n0 >= _FEWEST and counts.get(value, 0) <= 0.1 * n * count / n0
        },
        new={
            value: count
            for value, count in counts.items()
            if value not in known and value not in elsewhere and not spells_nothing(value)
        },
        n=n,
        n0=n0,
    )


def _spell_plainly(known: KnownFeed, column: str) -> Mapping[str, list[str]]:
    """The known values by their letters without case, accents and signs."""
    plain: dict[str, list[str]] = {}
    for value in known.vocabulary(column):
        plain.setdefault(_simplify(value), []).append(value)
    return plain


def _pair_by_spelling(change: _Change, plain: Mapping[str, list[str]]) -> dict[str, str]:
    """New values that are known ones in other letters, or with something before or after them."""
    found = {}
    for new in change.new:
        simple = _simplify(new)
        if len(plain.get(simple, ())) == 1:
            found[new] = plain[simple][0]
            continue
        within = [v for v in change.vanished if len(v) > 2 and _simplify(v) in simple]
        if within:
            found[new] = max(within, key=len)
    return found


def _simplify(value: str) -> str:
    spread = unicodedata.normalize("NFKD", value).casefold()
    return "".join(letter for letter in spread if letter.isalnum())


def _pair_by_profile(feed: Feed, column: str, change: _Change) -> dict[str, str]:
    """New values that take the places of vanished ones: as many rows, of the same profile.

    Nothing is found where there are many more new rows than places: that is new supply.
    """
    new = {value: count for value, count in change.new.items() if count >= _FEWEST}
    gone, come = sum(change.vanished.values()), sum(new.values())
    if not new or not change.vanished or not 0.4 <= come / gone <= 2.5:
        return {}
    old_names, new_names = list(change.vanished), list(new)
    before = _describe_values(feed.known.rows, feed, column, old_names)
    now = _describe_values(feed.rows, feed, column, new_names)
    shares = np.abs(
        np.log(np.array([new[v] for v in new_names]))[:, None]
        - np.log(np.array([change.vanished[v] for v in old_names]))[None, :]
    )
    width = max(now.shape[1], 1)  # without other columns only the shares are compared
    apart = np.abs(now[:, None, :] - before[None, :, :]).sum(axis=2) / width
    cost = apart + 0.1 * np.minimum(shares, 3.0)
    rows, columns = linear_sum_assignment(cost)
    alike = [
        (r, c)
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        if shares[r, c] < 1.0 and apart[r, c] < _ALIKE
    ]
    return {new_names[r]: old_names[c] for r, c in alike}


def _describe_values(rows: Frame, feed: Feed, column: str, values: list[str]) -> np.ndarray:
    """[values, p] shares of the other columns' frequent values, and the price's place."""
    code = code_cells(rows.column(column), np.array(values))
    sizes = np.maximum(np.bincount(code[code >= 0], minlength=len(values)), 1)
    described = []
    for other in feed.columns("number"):
        known = feed.known.rows.column(other)
        middle = float(pc.approximate_median(known).as_py())
        numbers = rows.column(other).to_numpy(zero_copy_only=False).astype(np.float64)
        high = np.nan_to_num(numbers) > middle
        described.append(np.bincount(code[code >= 0], high[code >= 0], len(values)) / sizes)
    for other in feed.columns("category"):
        if other == column:
            continue
        most = list(feed.known.vocabulary(other))[:5]
        cells = code_cells(rows.column(other), np.array(most))
        if any(_tells_nothing(each, other, most) for each in (feed.known.rows, feed.rows)):
            continue
        for place in range(len(most)):
            hit = (cells == place)[code >= 0]
            described.append(np.bincount(code[code >= 0], hit, len(values)) / sizes)
    return np.stack(described, axis=1) if described else np.zeros((len(values), 0))


def _tells_nothing(rows: Frame, column: str, values: list[str]) -> bool:
    """Whether a column is mostly empty, or broken too."""
    cells = rows.column(column)
    known = code_cells(cells, np.array(values)) >= 0
    return bool(find_missing(cells).mean() > 0.5 or known.mean() < 0.02)


def _describe(column: str, found: Mapping[str, str]) -> str:
    examples = ", ".join(f"{old!r} is now {new!r}" for new, old in list(found.items())[:2])
    return f"{examples}: {len(found)} values of {column} renamed"
