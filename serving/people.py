"""What people did since the bundle's histories ended, from the activity feed.

It takes part in the next answer: as history, and through the rules that never show again what a
person has bought or hidden. It is bounded by ``PeopleSettings``: of a person the latest events are
kept, of all people those who did something latest.
"""

import sys
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from refit.contract import INTEREST, EventType
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.feeds.activity import ActivityEvent
from serving.feeds.feed import Line
from serving.feeds.lines import FeedReader
from serving.feeds.settings import LATE_HOURS, PeopleSettings
from serving.recent import NOTHING, RecentEvents

KINDS = tuple(kind.value for kind in INTEREST)
MOST_LISTED = 1000
"""So many purchases, and so many hides, are kept of one person."""


@dataclass(slots=True)
class _Person:
    """One person's events, earliest first: a few bytes each, since there are many people."""

    times: array[float] = field(default_factory=lambda: array("d"))
    kinds: bytearray = field(default_factory=bytearray)
    item_ids: list[str] = field(default_factory=list)
    bought: dict[str, float] = field(default_factory=dict)
    hidden: dict[str, float] = field(default_factory=dict)

    def add(self, at: float, item_id: str, kind: EventType, most: int) -> bool:
        """Add an event at its place in time; return whether it is news."""
        if kind is EventType.HIDE:
            return _keep_first(self.hidden, item_id, at)
        news = kind is EventType.PURCHASE and _keep_first(self.bought, item_id, at)
        code, place = KINDS.index(kind.value), bisect_right(self.times, at)
        # Events of one time are in the order of their items, so that all processes agree.
        while place and self.times[place - 1] == at:
            before = self.item_ids[place - 1], self.kinds[place - 1]
            if before == (item_id, code):
                return news
            if before < (item_id, code):
                break
            place -= 1
        self.times.insert(place, at)
        self.kinds.insert(place, code)
        self.item_ids.insert(place, item_id)
        if len(self.times) > most:
            del self.times[0], self.kinds[0], self.item_ids[0]
        return True

    def before(self, until: float) -> RecentEvents:
        """What the person had done before a time."""
        end = bisect_right(self.times, until)
        return RecentEvents(
            self.item_ids[:end][::-1],
            [KINDS[code] for code in self.kinds[:end][::-1]],
            np.array(self.times[:end], dtype=np.float64)[::-1],
            [item_id for item_id, at in self.bought.items() if at <= until],
            [item_id for item_id, at in self.hidden.items() if at <= until],
        )


def _keep_first(times: dict[str, float], item_id: str, at: float) -> bool:
    known = times.get(item_id)
    if known is not None and known <= at:
        return False
    times[item_id] = at
    if len(times) > MOST_LISTED:
        del times[min(times, key=lambda one: (times[one], one))]
    return True


class LivePeople:
    """What people did since the bundle's histories ended; threads may share it.

    Args:
        catalogue: The bundle.
        reader: The activity feed; None where there is none.
        counters: Counts.
        settings: Its bounds.
        late_hours: See ``LiveFeedSettings``.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        reader: FeedReader[ActivityEvent] | None,
        counters: Counters,
        settings: PeopleSettings,
        late_hours: float = LATE_HOURS,
    ) -> None:
        self.reader, self._counters = reader, counters
        self._settings = settings
        self._since = (catalogue.as_of - timedelta(hours=late_hours)).timestamp()
        self._people: OrderedDict[str, _Person] = OrderedDict()
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._is_closed = False
        self._counted = 0

    def __len__(self) -> int:
        """How many people did something."""
        return len(self._people)

    def of(self, user_id: str | None, until: float = np.inf) -> RecentEvents:
        """What a person did until a time, in Unix seconds; nothing of one who is not known."""
        if user_id is None or not self._people:
            return NOTHING
        with self._lock:
            person = self._people.get(user_id)
            return NOTHING if person is None else person.before(until)

    def catch_up(self) -> None:
        """Add what the feed says happened since the last call.

        Raises:
            ServiceUnreachable: The feed does not answer.
        """
        if self.reader is None:
            return
        with self._reading:
            if self._is_closed:
                return
            try:
                self.reader.read(self._add)
            finally:
                if len(self) != self._counted:
                    self._counted = len(self)
                    self._counters.set("refit_activity_people", self._counted)

    def close(self) -> None:
        """Close the feed; what is known stays."""
        if self.reader is not None:
            with self._reading:
                self._is_closed = True
                self.reader.feed.close()

    def _add(self, event: ActivityEvent, _: Line) -> None:
        at, kind = event.event_time.timestamp(), event.contract_type
        if kind is None or at < self._since:
            return
        item_id = sys.intern(event.item_id)  # many people do something with the same item
        with self._lock:
            person = self._people.get(event.user_id)
            if person is None:
                person = self._people[event.user_id] = _Person()
            if person.add(at, item_id, kind, self._settings.events):
                self._people.move_to_end(event.user_id)
            if len(self._people) > self._settings.people:
                self._people.popitem(last=False)
                self._counters.add("refit_activity_people_dropped")
