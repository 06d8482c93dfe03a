"""A column whose values no longer belong to the others of their row."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.feed import Feed, code_cells
from monitoring.faults.known import KnownFeed
from monitoring.faults.vectors import list_sellers
from monitoring.frame import Frame, read_numbers

UNIT = "share of the association with other columns that is lost"
RUNBOOK = Advice(
    "The values of a column are as before, but on the wrong rows: it has moved by a row, was "
    "sorted alone or joined by another key, or its codes were given to other values.",
    "Compare some rows of the export with the pages of these listings. Training on them teaches "
    "that the column means nothing.",
)
TABLES = ("items", "events")
_LOST = 0.6
_DEVIATIONS = 5.0
_CLEAR = 0.85
_LOST_OF_WORDS = 0.2
"""A known seller's titles go on to name what they named."""
_WORDS = 0.02
"""Standard deviation of the share of such titles between days."""
_WELL_KNOWN = 0.08
"""With such a relation the others, in which chance leaves more, are not asked."""
_WEAK = 0.1
"""A relation of a smaller size (w of Cohen, 1988) may end though every value is on its row."""
_MOST = 30
_BINS = 5


class _Relation(NamedTuple):
    """How much of a column's relation to another is left, and how well that is known."""

    left: float
    deviation: float
    other: str
    least: float = _LOST


def find(feed: Feed) -> Iterator[Sign]:
    """For each column, how much of its best known relation to another column is left."""
    rows = len(feed.rows)
    if rows < feed.settings.minimum_rows:
        yield Sign("", why=f"{rows} rows, {feed.settings.minimum_rows} are needed", n_current=rows)
        return
    names = feed.columns("category", "number")
    coded = {name: _code(feed.known, feed.rows, name) for name in names}
    kept: dict[str, list[_Relation]] = {}
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            before = feed.known.once(_relate_before, one, other)
            found = _compare(*before, coded[one], coded[other])
            if found is not None:
                kept.setdefault(one, []).append(_Relation(*found, other))
                kept.setdefault(other, []).append(_Relation(*found, one))
    for column in feed.columns("text"):
        for other in feed.columns("category"):
            left = _compare_words(feed, column, other)
            if left is not None:
                kept.setdefault(column, []).append(_Relation(*left, other, _LOST_OF_WORDS))
                kept.setdefault(other, []).append(_Relation(*left, column, _LOST_OF_WORDS))
    for column, relations in kept.items():
        clear = [each for each in relations if each.deviation <= _WELL_KNOWN]
        best = max(clear or relations)
        lost = float(np.clip(1.0 - best.left, 0.0, 1.0))
        much = "nothing" if lost > _LOST else f"{lost:.0%} less"
        detail = (
            f"{column} of the new rows says {much} of {best.other} now, nor of other columns: its "
            "values are on the wrong rows"
        )
        threshold = max(best.least, _DEVIATIONS * best.deviation)
        yield Sign(column, lost, threshold, detail, None, len(feed.known.rows), rows)


def _code(known: KnownFeed, rows: Frame, column: str) -> np.ndarray:
    """[n] the place of each cell among frequent values, or among quantiles of numbers."""
    if known.kinds[column] == "number":
        return _bin(rows, column)
    values = np.array(list(known.vocabulary(column))[:_MOST])
    return code_cells(rows.column(column), values)


def _code_before(known: KnownFeed, column: str) -> np.ndarray:
    return _code(known, known.rows, column)


def _relate_before(known: KnownFeed, one: str, other: str) -> tuple[np.ndarray, int]:
    return _relate(known.once(_code_before, one), known.once(_code_before, other))


def _bin(rows: Frame, column: str) -> np.ndarray:
    """Places among the rows' own quantiles: prices may double, and stay dear or cheap."""
    numbers, positions = rows.once(read_numbers, column)
    code = np.full(len(rows), -1, dtype=np.int64)
    if len(numbers):
        edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])
        code[positions] = np.searchsorted(edges, numbers)
    return code


def _compare(
    before: np.ndarray, n0: int, one: np.ndarray, other: np.ndarray
) -> tuple[float, float] | None:
    """How much of two columns' relation is left, 1 for all, and the standard deviation of that.

    None where chance could hide that it is lost.
    """
    now, n = _relate(one, other, before.shape)
    size = float((before**2).sum()) - (before.shape[0] - 1) * (before.shape[1] - 1) / max(n0, 1)
    if n < 2 or size < _WEAK**2:
        return None
    deviation = 1.0 / float(np.sqrt(n * size))
    if _DEVIATIONS * deviation > _CLEAR:
        return None
    return float((before * now).sum()) / size, deviation


def _relate(
    one: np.ndarray, other: np.ndarray, shape: tuple[int, ...] | None = None
) -> tuple[np.ndarray, int]:
    """Standardised differences of the joint shares from those of unrelated columns, and rows."""
    known = (one >= 0) & (other >= 0)
    height, width = shape or (int(one.max(initial=0)) + 1, int(other.max(initial=0)) + 1)
    inside = known & (one < height) & (other < width)
    n = int(inside.sum())
    cells = np.bincount(one[inside] * width + other[inside], minlength=height * width)
    joint = cells.reshape(height, width) / max(n, 1)
    alone = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    return (joint - alone) / np.sqrt(np.maximum(alone, 1e-4)), n


def _compare_words(feed: Feed, text: str, column: str) -> tuple[float, float] | None:
    """How many texts still name the row's value, by how many did, and the deviation of that.

    Of known sellers' rows, where there are enough. None where few texts did.
    """
    before = feed.known.rows.once(_count_naming, text, column)
    if before < 0.3:
        return None
    rows = feed.once(_take_known_sellers)
    chance = (1.0 - min(before, 1.0)) / (before * max(len(rows), 1))
    deviation = float(np.sqrt(_WORDS**2 + chance))
    return rows.once(_count_naming, text, column) / before, deviation


def _take_known_sellers(feed: Feed) -> Frame:
    """The rows of known sellers; all rows where there are too few."""
    if "seller_id" not in feed.rows.names or "seller_id" not in feed.known.rows.names:
        return feed.rows
    known = feed.known.rows.once(list_sellers)
    own = pc.is_in(feed.rows.column("seller_id"), value_set=known)
    kept = np.flatnonzero(own.to_numpy(zero_copy_only=False))
    return feed.rows.take(kept) if len(kept) >= feed.settings.minimum_rows else feed.rows


def _count_naming(rows: Frame, text: str, column: str) -> float:
    texts, values = rows.column(text), rows.column(column)
    if not (pa.types.is_string(texts.type) and pa.types.is_string(values.type)) or not len(texts):
        return 0.0
    named, rows_named = 0.0, 0
    texts = pc.utf8_lower(texts)
    for each in pc.value_counts(values).to_pylist():
        value, own = each["values"], each["counts"]
        if not value or own * 200 < len(texts) or len(value) < 3:
            continue
        names_it = pc.match_substring(texts, value.lower())
        found = pc.and_(names_it, pc.fill_null(pc.equal(values, value), False))
        share = (pc.sum(names_it).as_py() or 0) / len(texts)
        named += max(0.0, (pc.sum(found).as_py() or 0) - share * own)
        rows_named += own
    return named / max(rows_named, 1)
