"""Text that ends after a number of characters."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, choose_clearest
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.faults.known import KnownFeed
from monitoring.frame import Frame

UNIT = "difference of the shares of texts that are as long as the longest one, or end in a word"
RUNBOOK = Advice(
    "No text is longer than a limit, many are exactly as long, and before many were longer; or "
    "many of one length end within a word.",
    "Ask the owner of the feed which field became shorter. The words after the limit are lost to "
    "training and to search until the texts are sent again.",
)
TABLES = ("items", "events")
_LEAST = 0.1
_LEAST_WITHIN = 0.05


def find(feed: Feed) -> Iterator[Sign]:
    """For each text column, how many texts end at the longest one's length."""
    for column in feed.columns("text", "category"):
        before, now = (rows.once(_read_lengths, column) for rows in (feed.known.rows, feed.rows))
        if not len(before) or np.median(before) < 4:
            continue
        n, n0 = len(now), len(before)
        if n < feed.settings.minimum_rows:
            why = f"{n} texts, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=n0, n_current=n)
            continue
        # What is longer belongs to rows that the fault did not hit; they are few or none.
        limit = int(np.quantile(now, 0.999))
        k, k0 = int((now == limit).sum()), int((before == limit).sum())
        if feed.known.kinds[column] == "category" and _is_known(feed, column, limit):
            k = 0  # the longest of the values that are left
        share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
        longer = float((before > limit).mean())
        value = min(max(share, 0.0), longer)
        detail = (
            f"{k / n:.0%} of the new values of {column} end after {limit} characters and none is "
            f"longer, before {longer:.0%} were"
        )
        sign = Sign(column, value, max(_LEAST, chance), detail, p, n0, n)
        if feed.known.kinds[column] == "text" and not sign.is_found:
            sign = choose_clearest([_find_within_words(feed, column), sign])
        yield sign


def _find_within_words(feed: Feed, column: str) -> Sign:
    """Texts of one length whose last word is the beginning of a known word, and no known word."""
    words, beginnings, k0, n0 = feed.known.once(_learn_words, column)
    ends = _list_ends(feed.rows, column, words, beginnings)
    n = len(feed.rows) - feed.rows.column(column).null_count
    length, k = max(ends.items(), key=lambda each: each[1], default=(0, 0))
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
    detail = f"{k / n:.0%} of the new values of {column} end within a word, after {length} letters"
    return Sign(column, max(share, 0.0), max(_LEAST_WITHIN, chance), detail, p, n0, n)


def _learn_words(known: KnownFeed, column: str) -> tuple[frozenset[str], frozenset[str], int, int]:
    """The words of one half of the texts and their beginnings, and what ends so in the other."""
    texts = pc.drop_null(known.rows.column(column)).to_pylist()
    words = {word for text in texts[::2] for word in text.lower().split()}
    beginnings = {word[:end] for word in words for end in range(1, len(word))}
    tried = Frame(pa.table({column: pa.array(texts[1::2], pa.string())}), np.empty(0))
    known_words, parts = frozenset(words), frozenset(beginnings)
    ends = _list_ends(tried, column, known_words, parts)
    return known_words, parts, max(ends.values(), default=0), len(texts[1::2])


def _list_ends(
    rows: Frame, column: str, words: frozenset[str], beginnings: frozenset[str]
) -> Counter[int]:
    """How many texts of each length end within a word."""
    found: Counter[int] = Counter()
    for text in pc.drop_null(rows.column(column)).to_pylist():
        last = text.lower().split()[-1:]
        if last and last[0] not in words and last[0] in beginnings:
            found[len(text)] += 1
    return found


def _is_known(feed: Feed, column: str, length: int) -> bool:
    """Whether most values of that length are whole ones."""
    cells = feed.rows.column(column)
    ends = cells.filter(pc.fill_null(pc.equal(pc.utf8_length(cells), length), False))
    known = pa.array([v for v in feed.known.vocabulary(column) if len(v) == length], pa.string())
    return bool((pc.sum(pc.is_in(ends, value_set=known)).as_py() or 0) > 0.5 * len(ends))


def _read_lengths(rows: Frame, column: str) -> np.ndarray:
    cells = rows.column(column)
    if not pa.types.is_string(cells.type):
        return np.empty(0)
    return np.asarray(pc.drop_null(pc.utf8_length(cells)).to_numpy(zero_copy_only=False))
