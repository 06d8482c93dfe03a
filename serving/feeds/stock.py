"""The lines of the stock feed, and what they together say of a listing.

::

    {"item_id": "m1", "change": "sold", "at": "2026-05-01T10:00:00Z"}
    {"item_id": "m2", "change": "listed", "at": "2026-05-01T10:00:01Z", "seller_id": "u7",
     "brand": "Acne", "size": "M", "price": 80}
    {"item_id": "m2", "change": "changed", "at": "2026-05-01T11:00:00Z", "price": 70}

``listed`` has the whole listing: the item columns of the feature spec, and any attribute to filter
by. ``changed`` and ``relisted`` have what is different. ``sold``, ``withdrawn`` and ``delisted``
take it off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from serving.feeds.lines import ContractId, FeedLine, Price
from serving.request import Time

ENDS = ("sold", "withdrawn", "delisted")
BEGINS = ("listed", "relisted")


class StockChange(FeedLine):
    """One line of the stock feed; the listing's attributes are further fields."""

    model_config = ConfigDict(extra="allow")

    item_id: ContractId
    change: Literal["listed", "changed", "relisted", "sold", "withdrawn", "delisted"]
    at: Time
    seller_id: ContractId | None = None
    price: Price | None = None
    listed_at: Time | None = None

    @property
    def time(self) -> datetime:
        """When it happened."""
        return self.at

    @property
    def key(self) -> str:
        """The listing, by which a topic may be compacted."""
        return self.item_id

    @property
    def attributes(self) -> dict[str, Any]:
        """What the line says of the listing; a null is a value that is missing."""
        named = {name: getattr(self, name) for name in self.model_fields_set - _OF_EVERY_LINE}
        return {**(self.model_extra or {}), **named}


_OF_EVERY_LINE = {"item_id", "change", "at"}


@dataclass(slots=True)
class ListingState:
    """What the feed says of one listing: of each field the value of the latest line.

    Lines may come in any order and any number of times; the result is the same. Of two lines of one
    time the one that takes the listing off counts; of two values of one time the one whose text is
    greater, a rule that needs no order of arrival, so that all processes agree. A vector is kept as
    the bytes of its float32 numbers.

    Attributes:
        on_sale: None: no line says.
        on_sale_at: Since when, in Unix seconds.
        whole_at: The time of the latest ``listed``; earlier values do not count.
        fields: Time and value of each field.
    """

    on_sale: bool | None = None
    on_sale_at: float = -1.0
    whole_at: float = -1.0
    fields: dict[str, tuple[float, Any]] = field(default_factory=dict)

    def add(
        self, change: StockChange, attributes: Mapping[str, Any], kept: str | None = None
    ) -> bool:
        """Add what a line says; return whether that is news.

        Args:
            change: The line.
            attributes: Its attributes, to be stored as they are.
            kept: The attribute that a later ``listed`` without it does not end.
        """
        news = self.mark(change)
        return news if change.change in ENDS else self._tell(change, attributes, kept) or news

    def mark(self, change: StockChange) -> bool:
        """Add only whether the listing is on sale; return whether that is news."""
        at = change.at.timestamp()
        if change.change in ENDS:
            if at > self.on_sale_at or (at == self.on_sale_at and self.on_sale):
                self.on_sale, self.on_sale_at = False, at
                return True
        elif change.change in BEGINS and at > self.on_sale_at:
            self.on_sale, self.on_sale_at = True, at
            return True
        return False

    def _tell(self, change: StockChange, attributes: Mapping[str, Any], kept: str | None) -> bool:
        at, news = change.at.timestamp(), False
        if change.change == "listed" and at > self.whole_at:
            self.whole_at, news = at, True
            self.fields = {
                name: told for name, told in self.fields.items() if told[0] >= at or name == kept
            }
        for name, value in attributes.items():
            since = -1.0 if name == kept else self.whole_at
            known = self.fields.get(name)
            if at >= since and (known is None or (at, repr(value)) > (known[0], repr(known[1]))):
                self.fields[name], news = (at, value), True
        return news

    @property
    def values(self) -> dict[str, Any]:
        """The fields without their times."""
        return {name: value for name, (_, value) in self.fields.items()}

    @property
    def edited_at(self) -> float:
        """When the listing was last described, in Unix seconds; -1 if it was not."""
        return max([self.whole_at, *(at for at, _ in self.fields.values())])
