"""Cells that are missing, or that spell out that they are."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.chance import USUAL_DIFFERENCE, compare_shares
from monitoring.faults.feed import Feed, code_groups
from monitoring.faults.known import TIME_COLUMNS, UNCHECKED, vector_columns
from monitoring.frame import Frame, count_missing, find_missing
from refit.contract import EVENTS, ITEMS, VALID_FROM

UNIT = "difference of the shares of missing cells, among known supply"
RUNBOOK = Advice(
    "A column is empty, or says 'N/A', in more rows than it was, and in all categories.",
    "Ask the owner of the feed what was released on the day it began. Training would learn that "
    "the column is empty. If the rows are filled later, measure their days again.",
)
TABLES = ("items", "events")
_PLAIN = (
    "- -- --- . .. ... ? ?? n/a na n.a. n.a nan nil none null (null) <null> #n/a #na <na> [null] "
    "undefined missing empty (none) (blank) blank keine k.a. nv unspecified 0000-00-00 1970-01-01 "
    "tbd {} []"
)
_LONG = 20
"""Longer texts never say that there is nothing."""
NULL_WORDS = frozenset((*_PLAIN.split(" "), "not available", "not specified"))
_OFTEN = 0.01
_CONTRACT = {"items": ITEMS, "events": EVENTS}
_MOST_NAMED = 5
_PRIOR, _PRIOR_DAYS = 0.01, 2.0
"""How much a share differs between days, and how many days that counts as."""


def find(feed: Feed) -> Iterator[Sign]:
    """How much larger the share of missing cells is than the category mix leads to expect."""
    before, now = code_groups(feed, feed.rows)
    columns = [c for c in feed.known.kinds if c != feed.known.group]
    if feed.known.group:
        columns.append(feed.known.group)
    for column in columns:
        if column not in feed.schema.names:
            yield Sign(column, 1.0, 0.0, f"the feed no longer has a column {column}")
        else:
            groups = (before, now) if column != feed.known.group else (None, None)
            yield _compare(feed, column, *groups)
    for column in vector_columns(feed.known.schema):
        if column not in feed.schema.names:
            yield Sign(column, 1.0, 0.0, f"the feed no longer has a column {column}")
        elif len(feed.vectors) >= feed.settings.minimum_rows:
            yield _compare_vectors(feed, column)
    yield from _find_uncompared(feed)


def _find_uncompared(feed: Feed) -> Iterator[Sign]:
    """Columns that cannot be compared: those that are gone, and those that were never there."""
    known, now = feed.known.schema, feed.schema.names
    for column in known.names:
        if column in feed.known.kinds or column in vector_columns(known) or column == VALID_FROM:
            continue  # the present state of the items needs no versions
        if find_missing(feed.known.rows.column(column)).all():
            if column not in UNCHECKED:
                why = f"{column} is empty in the {feed.name} of the reference"
                yield leave_unchecked(f"{why}: nothing is checked of it", column)
        elif column not in now:
            yield Sign(column, 1.0, 0.0, f"the feed no longer has a column {column}")
        elif column not in (*UNCHECKED, TIME_COLUMNS[feed.name]):
            why = f"{column} holds {known.field(column).type}"
            yield leave_unchecked(f"{why}: its values are not compared", column)
    optional = {c.name for c in _CONTRACT[feed.name]} - {*UNCHECKED, TIME_COLUMNS[feed.name]}
    for column in sorted(optional - {*known.names, *now}):
        yield leave_unchecked(
            f"no {column} column in {feed.name}: nothing is checked of it", column
        )
    if new := sorted(set(now) - {*known.names, *UNCHECKED}):
        named = ", ".join(new[:_MOST_NAMED])
        more = f" and {len(new) - _MOST_NAMED} more" if len(new) > _MOST_NAMED else ""
        why = f"the {feed.name} of the reference have no {named}{more}"
        yield leave_unchecked(f"{why}: nothing is checked of these columns")


def _compare_vectors(feed: Feed, column: str) -> Sign:
    counted = [
        (rows.once(count_missing, column), len(rows)) for rows in (feed.vectors, feed.listings)
    ]
    (k, n), (k0, n0) = counted
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
    detail = f"{column} is missing in {k / n:.0%} of the new rows, before in {k0 / n0:.1%}"
    return Sign(column, max(share, 0.0), chance, detail, p, n0, n)


def _compare(feed: Feed, column: str, before: np.ndarray | None, now: np.ndarray | None) -> Sign:
    spelled, missing = _find_nothing(feed.rows, column)
    either0, either = feed.known.rows.once(_find_either, column), spelled | missing
    groups0 = np.zeros(len(either0), np.int64) if before is None else before
    groups = np.zeros(len(either), np.int64) if now is None else now
    if not (groups >= 0).any() or (groups < 0).mean() > 0.9:  # the categories themselves are others
        groups0, groups = np.zeros_like(groups0), np.zeros_like(groups)
    own = groups >= 0
    n, n0 = int(own.sum()), len(either0)
    if n < feed.settings.minimum_rows:
        why = f"{n} rows of known supply, {feed.settings.minimum_rows} are needed"
        return Sign(column, why=why, n_reference=n0, n_current=n)
    expected = _expect(either0, groups0, groups[own])
    k = int(either[own].sum())
    difference, chance, p = compare_shares(
        k, n, expected * n0, n0, feed.settings.rate, feed.known.rows.once(_between_days, column)
    )
    if feed.name == "events" and expected > _OFTEN:
        chance = max(chance, 0.5 * (1.0 - expected))  # people leave it open, today more than before
    detail = f"{column} is missing in {k / n:.0%} of the new rows, before in {expected:.1%}"
    words = pc.value_counts(feed.rows.column(column).filter(pa.array(spelled)))
    if len(words) and spelled.sum() > 0.5 * (k - expected * n):
        most = sorted(words.to_pylist(), key=lambda each: -each["counts"])[:3]
        named = ", ".join(repr(each["values"]) for each in most)
        detail += f": it is written as {named}"
    return Sign(column, max(difference, 0.0), chance, detail, p, n0, n)


def _find_nothing(rows: Frame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Which cells spell that they are missing, and which are missing."""
    cells = rows.column(column)
    missing = find_missing(cells)
    if not pa.types.is_string(cells.type):
        return np.zeros(len(cells), dtype=bool), missing
    distinct = pc.drop_null(pc.unique(cells))
    bare = pc.utf8_lower(pc.utf8_trim_whitespace(distinct))
    likely = pc.is_in(bare, value_set=pa.array([*NULL_WORDS, ""]))
    words = [word for word in distinct.filter(likely).to_pylist() if word and spells_nothing(word)]
    if not words:
        return np.zeros(len(cells), dtype=bool), missing
    found = pc.is_in(cells, value_set=pa.array(words, pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool), missing


def _find_either(rows: Frame, column: str) -> np.ndarray:
    """Which cells are missing, or spell that they are."""
    spelled, missing = _find_nothing(rows, column)
    return spelled | missing


def spells_nothing(word: str) -> bool:
    """Whether a word says that there is no value."""
    return len(word) < _LONG and (word.strip().casefold() in NULL_WORDS or not word.strip())


def _expect(missing: np.ndarray, before: np.ndarray, now: np.ndarray) -> float:
    """The share that the groups of the new rows had, each weighted by its new rows."""
    length = int(max(before.max(initial=0), now.max(initial=0))) + 1
    rows = np.bincount(before[before >= 0], minlength=length)
    shares = np.bincount(before[before >= 0], missing[before >= 0], length) / np.maximum(rows, 1)
    shares[rows == 0] = missing.mean()
    return float(shares[now].mean())


def _between_days(known: Frame, column: str) -> float:
    """How much the share differs between days of the reference, beyond chance."""
    missing = known.once(_find_either, column)
    day = np.unique(np.floor(known.day), return_inverse=True)[1]
    rows = np.bincount(day)
    share = np.bincount(day, missing) / np.maximum(rows, 1)
    share, rows = share[rows >= 20], rows[rows >= 20]
    mean = float(missing.mean())
    chance = mean * (1 - mean) / np.maximum(rows, 1)
    beyond = float(((share - mean) ** 2 - chance).sum()) + _PRIOR_DAYS * _PRIOR**2
    return max(USUAL_DIFFERENCE, float(np.sqrt(max(beyond, 0.0) / (len(rows) + _PRIOR_DAYS))))
