"""The data contract: the columns of events, items and users, and their meaning.

The names follow MerRec (Mercari's public C2C set). Tables are Parquet, times are UTC.
"""

from enum import StrEnum
from typing import Literal

from refit.settings import Settings


class EventType(StrEnum):
    """What a user did with an item, from weak to strong interest; ``hide`` shows no interest."""

    VIEW = "view"
    LIKE = "like"
    CART = "cart"
    OFFER = "offer"
    PURCHASE = "purchase"
    HIDE = "hide"


INTEREST = tuple(kind for kind in EventType if kind is not EventType.HIDE)
"""The event types that show interest, from weak to strong.

A ``hide`` means that the user does not want to see the item again. It is never a positive example,
never counted as popularity and never part of a history.
"""


ColumnKind = Literal["string", "number", "time", "vector"]


class Column(Settings):
    """One column of the contract.

    Attributes:
        known_before: False: the value is known only because the event happened, or the listing
            ended; no model may read it.
    """

    name: str
    kind: ColumnKind
    meaning: str
    required: bool = False
    known_before: bool = True


EVENTS = (
    Column(name="user_id", kind="string", required=True, meaning="who acted"),
    Column(
        name="item_id",
        kind="string",
        required=True,
        meaning="the listing acted on",
        known_before=False,
    ),
    Column(
        name="event_type",
        kind="string",
        required=True,
        meaning="view, like, cart, offer, purchase, hide",
        known_before=False,
    ),
    Column(name="event_time", kind="time", required=True, meaning="when, UTC"),
    Column(name="session_id", kind="string", meaning="the visit it belongs to"),
    Column(
        name="request_id",
        kind="string",
        meaning="the recommendation answer it follows from",
        known_before=False,
    ),
    Column(name="surface", kind="string", meaning="where: home, search, item page ..."),
    Column(
        name="price",
        kind="number",
        meaning="the price at that time, not negative",
        known_before=False,
    ),
)
VALID_FROM = "valid_from"
ITEMS = (
    Column(name="item_id", kind="string", required=True, meaning="one listing, one of a kind"),
    Column(name="seller_id", kind="string", meaning="who sells it; sellers are users too"),
    Column(name="title", kind="string", meaning="the seller's words"),
    Column(name="description", kind="string", meaning="the seller's words, longer"),
    Column(name="brand", kind="string", meaning="brand name"),
    Column(name="category_1", kind="string", meaning="category, top level"),
    Column(name="category_2", kind="string", meaning="category, middle level"),
    Column(name="category_3", kind="string", meaning="category, leaf"),
    Column(name="colour", kind="string", meaning="main colour"),
    Column(name="size", kind="string", meaning="size as labelled"),
    Column(name="condition", kind="string", meaning="new, like new, good, fair ..."),
    Column(name="price", kind="number", meaning="asking price, not negative"),
    Column(name="currency", kind="string", meaning="ISO 4217 code of the price"),
    Column(name="listed_at", kind="time", meaning="when it went on sale, UTC"),
    Column(
        name="delisted_at",
        kind="time",
        meaning="when it was sold or withdrawn, UTC",
        known_before=False,
    ),
    Column(name="image_embedding", kind="vector", meaning="a picture encoder's vector"),
    Column(
        name=VALID_FROM,
        kind="time",
        meaning="from when the row holds, UTC; if the column is there, an item may have several"
        " rows, and each row has a time",
    ),
)
USERS = (
    Column(name="user_id", kind="string", required=True, meaning="who"),
    Column(
        name=VALID_FROM,
        kind="time",
        meaning="from when the row holds, UTC; a user may have several rows; empty: ever since",
    ),
)
"""Users, events and items may carry further columns; settings name the ones that are kept."""

KNOWN_AFTER = frozenset(c.name for c in EVENTS if not c.known_before)
"""Event columns that are known only because the event happened; none is known at a request."""
KNOWN_AT_END = frozenset(c.name for c in ITEMS if not c.known_before)
"""Item columns that are known only when the listing has ended."""
