"""Planned closings: days that are not measured, and that nothing is compared with."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from pydantic import model_validator

from refit.drift import Window
from refit.settings import Settings

_SECONDS_A_DAY = 86_400


class Closing(Settings):
    """Days on which the shop is closed, such as a summer holiday.

    Attributes:
        first: The first closed day, UTC.
        last: The last closed day, UTC.
        reason: Why, for the reports.
    """

    first: date
    last: date
    reason: str = ""

    @property
    def start(self) -> datetime:
        """The midnight with which it begins, UTC."""
        return datetime.combine(self.first, time(), UTC)

    @property
    def end(self) -> datetime:
        """The midnight with which it ends, UTC."""
        return datetime.combine(self.last, time(), UTC) + timedelta(days=1)

    @property
    def days(self) -> tuple[float, float]:
        """Begin and end, in days since 1970."""
        return (
            self.start.timestamp() / _SECONDS_A_DAY,
            self.end.timestamp() / _SECONDS_A_DAY,
        )

    def touches(self, start: datetime, end: datetime) -> bool:
        """Whether it is within a period, or a part of it is."""
        return start < self.end and end > self.start

    def __str__(self) -> str:
        days = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        return f"{days} ({self.reason})" if self.reason else days

    @model_validator(mode="after")
    def _has_days(self) -> "Closing":
        if self.last < self.first:
            raise ValueError("needs first <= last")
        return self


def find_closing(closings: Sequence[Closing], start: datetime, end: datetime) -> Closing | None:
    """The first closing that touches a period; None where the shop is open all the time."""
    return next((each for each in closings if each.touches(start, end)), None)


def leave_out_closed(closings: Sequence[Closing], windows: Sequence[Window]) -> list[Window]:
    """The windows that no closing touches."""
    return [w for w in windows if find_closing(closings, w.start, w.end) is None]


def describe_closed(closings: Sequence[Closing], windows: Sequence[Window]) -> str:
    """Which of some windows are not measured, and why; empty when all are."""
    closed = len(windows) - len(leave_out_closed(closings, windows))
    if not closed:
        return ""
    touching = [c for c in closings if any(c.touches(w.start, w.end) for w in windows)]
    named = " and ".join(str(each) for each in touching)
    return f"planned closing on {named}: {closed} of {len(windows)} windows are not measured"


def open_spans(closings: Sequence[Closing], end: float, days: float) -> list[tuple[float, float]]:
    """The latest open time before a moment, oldest first; times are days since 1970.

    Args:
        closings: What is left out.
        end: The moment.
        days: How much open time there is in all.
    """
    spans: list[tuple[float, float]] = []
    left, closed = days, sorted((each.days for each in closings), key=lambda d: d[1], reverse=True)
    for start, stop in closed:
        if start >= end:
            continue
        begin = max(stop, end - left)
        if begin < end:
            spans.append((begin, end))
            left -= end - begin
        if left <= 0:
            break
        end = min(end, start)
    else:
        spans.append((end - left, end))
    return spans[::-1]
