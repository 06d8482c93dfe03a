"""Text that was decoded as something else than it was encoded, or not at all."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.frame import Frame

UNIT = "difference of the shares of unreadable texts"
RUNBOOK = Advice(
    "Texts hold letters that come from reading one encoding as another, such as 'Ã©' for 'é', or "
    "escapes and tags of another format, such as '&nbsp;'.",
    "Ask the owner of the feed which encoding the export has now; Refit reads UTF-8. The words of "
    "these rows are unknown to training and to search.",
)
TABLES = ("items", "events")
_MOJIBAKE = (
    "\ufffd|[\u0080-\u009f]|[\u00c2\u00c3\u00c5][\u0080-\u00bf\u20ac\u201a-\u2122]"
    "|\u00e2\u20ac|\u00ef\u00bb\u00bf|[\ue000-\uf8ff]|\\w\\?\\w"
    "|&(#[0-9]+|#x[0-9A-Fa-f]+|[A-Za-z]{2,8});|\\\\u[0-9A-Fa-f]{4}|\\\\x[0-9A-Fa-f]{2}"
    "|%[2-9A-F][0-9A-F]%?|</?[a-z]{1,6}/?>"
)
_LEAST = 0.02
_STRANGE = 0.5
"""Share of rows with letters that were never seen; a market does not change its script at once."""


def find(feed: Feed) -> Iterator[Sign]:
    """For each text column, how many texts are unreadable."""
    for column in feed.columns("text", "category"):
        known = feed.known.rows
        now, rows = _read(feed.rows, column)
        n, n0 = int(rows.sum()), int(known.once(_read, column)[1].sum())
        if not n0:
            continue
        if n < feed.settings.minimum_rows:
            why = f"{n} texts, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=n0, n_current=n)
            continue
        broken = _find_broken(now)
        k, k0 = int(rows[broken].sum()), known.once(_count_broken, column)
        threshold = _LEAST
        strange = _count_strange(now, rows, known.once(_list_letters, column))
        if strange > _STRANGE * n and strange > k:
            k, k0, threshold = strange, 0, _STRANGE
        share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
        example = now.filter(pa.array(broken))
        shown = (example if len(example) else now)[0].as_py()[:30]
        detail = f"{share:.0%} of the new values of {column} are unreadable, such as {shown!r}"
        yield Sign(column, max(share, 0.0), max(threshold, chance), detail, p, n0, n)


def _read(frame: Frame, column: str) -> tuple[pa.Array, np.ndarray]:
    """The different texts of a column, and [m] the rows of each."""
    cells = frame.column(column)
    if not pa.types.is_string(cells.type):
        return pa.array([], pa.string()), np.empty(0, dtype=np.int64)
    counts = pc.value_counts(pc.drop_null(cells))
    return counts.field("values"), np.asarray(counts.field("counts"))


def _find_broken(texts: pa.Array) -> np.ndarray:
    found = pc.match_substring_regex(texts, _MOJIBAKE)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def _count_broken(frame: Frame, column: str) -> int:
    """Rows whose text is unreadable."""
    texts, rows = frame.once(_read, column)
    return int(rows[_find_broken(texts)].sum())


def _list_letters(frame: Frame, column: str) -> np.ndarray:
    """The different characters of a column."""
    return np.unique(_read_letters(frame.once(_read, column)[0])[0])


def _count_strange(now: pa.Array, rows: np.ndarray, known: np.ndarray) -> int:
    """Rows with two characters beyond ASCII that are not known."""
    letters, place = _read_letters(now)
    strange = (letters > 127) & ~np.isin(letters, known)
    hit = np.bincount(place[strange], minlength=len(now)) >= 2
    return int(rows[hit].sum())


def _read_letters(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Code points of all texts, and the row of each."""
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
    joined = "".join(texts.to_pylist())
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return points, np.repeat(np.arange(len(texts)), lengths)
