"""Maturity: which answers a window's rates are about, and whether their outcomes are complete."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from monitoring.quality.intervals import Floats, Integers
from monitoring.quality.join import (
    HOUR,
    EventFeed,
    Flags,
    JoinedAnswers,
    from_microseconds,
)
from monitoring.quality.settings import QualitySettings
from refit.drift import Window

SILENCE = 1e-4
"""A stretch without outcomes that chance explains less often than this is a gap in the feed."""
LATE = 0.02
"""A larger growth of the share of outcomes that come too late makes a rate uncertain."""


@dataclass(frozen=True)
class Delays:
    """When outcomes come, over the answers of one or several windows.

    Attributes:
        hours: Hours from answer to first outcome, of those within the outcome window and the lag
            of the feed; after that nobody may have seen them yet.
        late: The share of them that came after the outcome window.
    """

    hours: Floats
    late: float

    @classmethod
    def of(cls, settings: QualitySettings, delay: Floats) -> "Delays":
        """The delays that can be seen.

        Args:
            settings: The outcome window, and the lag of the feed.
            delay: [N] hours; NaN for no outcome.
        """
        seen = delay[delay <= settings.outcome_hours + settings.feed_lag_hours]
        late = float((seen > settings.outcome_hours).mean()) if len(seen) else 0.0
        return cls(seen, late)

    @property
    def median(self) -> float:
        """Hours; half of the outcomes come later."""
        return float(np.median(self.hours))


def period_of(settings: QualitySettings, window: Window) -> Window:
    """The answers that a window's rates are about.

    They are those whose outcome window, and the feed's lag after it, ends within the window. Every
    answer belongs to one window, which is measured once, when nothing is missing any more.
    """
    back = timedelta(hours=settings.outcome_hours + settings.feed_lag_hours)
    return Window(start=window.start - back, end=window.end - back)


def find_mature(settings: QualitySettings, feed: EventFeed, times: Integers) -> Flags:
    """[N] whether the outcomes feed reaches the end of the answer's outcome window."""
    if feed.reaches is None:
        return np.zeros(len(times), dtype=bool)
    return times + int(settings.outcome_hours * HOUR) <= feed.reaches


def explain_immature(
    settings: QualitySettings,
    feed: EventFeed,
    answers: JoinedAnswers,
    chosen: Flags,
    before: Delays | None,
) -> str:
    """Why the rates of a window cannot be measured; empty if they can.

    Args:
        settings: Outcome window, lag, and how much may be missing.
        feed: The events.
        answers: All answers.
        chosen: [N] the answers of the window.
        before: The delays of earlier windows; None if there are none.
    """
    if feed.reaches is None:
        return "there are no events in this period: no outcome can be known"
    times = answers.time[chosen]
    mature = find_mature(settings, feed, times)
    if mature.mean() < settings.minimum_mature:
        end = from_microseconds(int(times.max()) + int(settings.outcome_hours * HOUR))
        return (
            f"not mature: the events reach to {from_microseconds(feed.reaches):%Y-%m-%d %H:%M}, "
            f"but outcomes of these answers may come until {end:%Y-%m-%d %H:%M} (outcome_hours). "
            "The events feed is late (feed_lag_hours), or has stopped"
        )
    found = answers.delay[chosen] <= settings.outcome_hours
    now = Delays.of(settings, answers.delay[chosen])
    if before is not None and (why := _explain_late(settings, before, now)):
        return why
    if not found.any():
        if before is None:
            return "no event names a request_id of this log, before this window or in it"
        return (
            f"none of {len(times)} answers has an outcome, earlier ones have: events with "
            "request_id have stopped"
        )
    start, end_ = find_silence(found, answers.person[chosen])
    if start < end_:
        return (
            f"no outcome of the {end_ - start} answers from "
            f"{from_microseconds(times[start]):%Y-%m-%d %H:%M} to "
            f"{from_microseconds(times[end_ - 1]):%Y-%m-%d %H:%M}, which chance does not explain: "
            "outcomes of this time are missing"
        )
    return ""


def find_silence(found: Flags, people: Integers) -> tuple[int, int]:
    """The longest run of answers without outcomes, if chance does not explain it.

    A feed with a gap loses the outcomes of successive answers, however late outcomes come. A model
    that got worse makes runs longer, too, which the rate outside of the run tells.

    Args:
        found: [N] whether there was an outcome, in order of the answers' time.
        people: [N] who was answered; a person who never reacts counts once.

    Returns:
        First and one after the last answer of the run; equal if there is no gap.
    """
    at = np.concatenate([[-1], np.flatnonzero(found), [len(found)]])
    longest = int(np.diff(at).argmax())
    start, end = int(at[longest]) + 1, int(at[longest + 1])
    outside = len(found) - (end - start)
    if start == end or not outside:
        return start, start
    _, number = np.unique(people, return_inverse=True)
    own = np.bincount(number, found) / np.bincount(number)
    share = min(float(found.sum()) / outside, float(own.mean()) * len(found) / outside)
    silent = len(np.unique(people[start:end]))
    chance = len(found) * share * (1 - min(share, 0.99)) ** silent
    return (start, end) if chance < SILENCE else (start, start)


def _explain_late(settings: QualitySettings, before: Delays, now: Delays) -> str:
    """Why outcomes that come too late make the rates unknown; empty if they do not."""
    n = len(now.hours)
    if not n:
        return ""
    growth = now.late - before.late
    chance = 3 * (max(before.late, LATE) / n) ** 0.5
    if growth <= max(LATE, chance):
        return ""
    return (
        f"outcomes arrive later than before: {now.late:.1%} of them after outcome_hours, "
        f"{before.late:.1%} in earlier windows; raise outcome_hours, or mend the feed"
    )
