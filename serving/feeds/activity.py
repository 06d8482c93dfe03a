"""The lines of the activity feed: what people did, in the columns of the contract's events.

::

    {"user_id": "u1", "item_id": "m2", "event_type": "view", "event_time": "2026-05-01T10:00:02Z"}
    {"user_id": "u1", "item_id": "m3", "event_type": "impression", "position": 4, "seen": true,
     "event_time": "2026-05-01T10:00:01Z", "request_id": "r7"}

``hide`` and ``not_interested`` both say that the person does not want to see the item again. An
``impression`` says that it was shown, and with ``seen`` whether it came into view.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from refit.contract import EventType
from serving.feeds.lines import ContractId, FeedLine, Price
from serving.request import Id, Text, Time

NOT_INTERESTED = "not_interested"
IMPRESSION = "impression"
EARLIEST_YEAR = 1990
"""Earlier events are times in a wrong unit, as in ingestion."""

ActivityKind = Literal[
    "view", "like", "cart", "offer", "purchase", "hide", "not_interested", "impression"
]


def _check_year(time: datetime) -> datetime:
    if time.year < EARLIEST_YEAR:
        raise ValueError(f"before {EARLIEST_YEAR}")
    return time


class ActivityEvent(FeedLine):
    """One line of the activity feed; columns beyond the contract are further fields."""

    model_config = ConfigDict(extra="allow")

    user_id: ContractId
    item_id: ContractId
    event_type: ActivityKind
    event_time: Annotated[Time, AfterValidator(_check_year)]
    session_id: Id | None = None
    request_id: Id | None = None
    surface: Text | None = None
    price: Price | None = None
    position: Annotated[int, Field(ge=0)] | None = None
    seen: bool | None = None

    @property
    def time(self) -> datetime:
        """When it happened."""
        return self.event_time

    @property
    def key(self) -> str:
        """The person."""
        return self.user_id

    @property
    def contract_type(self) -> EventType | None:
        """The event type of the contract; None for an impression, which is no event."""
        if self.event_type == IMPRESSION:
            return None
        return EventType.HIDE if self.event_type == NOT_INTERESTED else EventType(self.event_type)
