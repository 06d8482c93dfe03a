"""The ExplainContext: what a cause depends on besides drift results. What is unknown is None."""

from datetime import datetime

from refit.drift import DriftResult
from refit.settings import Settings


class RowVolume(Settings):
    """How many rows came on one day, beside what earlier days lead to expect.

    Attributes:
        name: ``listings``, ``sellers``, ``answers``, ``outcomes`` (events that followed from an
            answer), ``organic`` (other events), ``events`` (both) or ``purchases per view``
            (organic purchases for 1,000 organic views).
        start: Start of the day.
        rows: Rows, or different sellers.
        expected: What the same weekday and the level of earlier days lead to expect.
        spread: Relative standard deviation of a day around what is expected.
    """

    name: str
    start: datetime
    rows: float
    expected: float
    spread: float

    @property
    def ratio(self) -> float:
        """Rows relative to what was expected."""
        return self.rows / max(self.expected, 1.0)


class ShareChange(Settings):
    """The share of one value before and now.

    Attributes:
        table: ``answers``, ``listings``, ``items`` or ``events``.
        column: Its column.
        value: The value, as text.
        before, now: Shares among the rows, or among the recommended items.
    """

    table: str
    column: str
    value: str
    before: float
    now: float


class WithoutValue(Settings):
    """What remains of the drift without some rows of the newest window.

    Attributes:
        column: Of the items or the events, such as ``items.category_1``.
        value: Rows with this value are left out; if empty, all rows count, with the shares that
            the values of the column had before.
        before, now: Share of the value in the column's table.
        is_new: Whether the value never occurred in the reference.
        measured: ``subject/statistic`` of the drifting results that were measured again.
        gone: Those of them that do not drift any more.
    """

    column: str
    value: str = ""
    before: float = 0.0
    now: float = 0.0
    is_new: bool = False
    measured: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


class ExplainContext(Settings):
    """What is known beside the results; whatever is None or absent is unknown.

    Attributes:
        index_age_days: Age of the index in service at the end of the newest window.
        usual_index_age_days: The largest age that an index before it reached.
        longest_index_age_days: The age from which on listings count as too old to measure.
        champion_since: When the towers in service gave their first answer.
        volumes: Rows by day and table, of earlier windows too.
        shares: Values whose shares changed most.
        choices: What people choose of what they see, measured as drift results ``choice:*``.
        without: The drift without one value, or with the shares of a column as before.
    """

    index_age_days: float | None = None
    usual_index_age_days: float | None = None
    longest_index_age_days: float | None = None
    champion_since: datetime | None = None
    volumes: tuple[RowVolume, ...] = ()
    shares: tuple[ShareChange, ...] = ()
    choices: tuple[DriftResult, ...] = ()
    without: tuple[WithoutValue, ...] = ()
