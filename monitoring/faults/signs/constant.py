"""One value in most rows of a column that has many."""

from collections.abc import Iterator

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.frame import count_column

UNIT = "difference of the share of the most frequent value"
RUNBOOK = Advice(
    "One value fills the column, or one user a large part of the events: a placeholder, a default, "
    "the id of a technical account, or a robot.",
    "Ask the owner of the feed what writes this value. What the column said of these rows is "
    "lost; training would learn that they are all alike.",
)
TABLES = ("items", "events")
_LEAST = {"number": 0.5, "category": 0.9, "text": 0.8, "id": 0.8}
"""Half of a day's listings may be a new category, and one seller may list a whole shop."""
_PEOPLE = ("user_id", "session_id")
_ONE_PERSON = 0.2
_MANY = 1000
"""No person does so much of so many events: it is a robot or a default."""


def find(feed: Feed) -> Iterator[Sign]:
    """How much larger the share of the most frequent value is than it was."""
    for column in feed.columns(*_LEAST):
        before = feed.known.vocabulary(column)
        counts = feed.rows.once(count_column, column)
        n, n0 = sum(counts.values()), sum(before.values())
        if len(before) < 2 or max(before.values()) > 0.5 * n0:
            continue
        if n < feed.settings.minimum_rows:
            why = f"{n} values, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=n0, n_current=n)
            continue
        value, count = next(iter(counts.items()))
        share, chance, p = compare_shares(count, n, before.get(value, 0), n0, feed.settings.rate)
        detail = f"{count / n:.0%} of the new rows have {column} {value!r}, before " + (
            f"{before[value] / n0:.1%}" if value in before else "none"
        )
        is_person = feed.name == "events" and column in _PEOPLE and n >= _MANY
        least = _ONE_PERSON if is_person else _LEAST[feed.known.kinds[column]]
        yield Sign(column, max(share, 0.0), max(least, chance), detail, p, n0, n)
