"""How the files of a table are written: what ingestion and the monitor are told about them."""

import codecs
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, model_validator

from refit.contract import EVENTS, ITEMS, USERS
from refit.settings import Settings

REJECT = "reject"
"""The value of ``naive_times`` with which a time without a zone is rejected."""
CONTRACT = {"events": EVENTS, "items": ITEMS, "users": USERS}
"""The columns of each table of the contract."""

EventTypeName = Literal["view", "like", "cart", "offer", "purchase", "hide"]
TimeUnit = Literal["s", "ms", "us", "ns"]
DateOrder = Literal["ymd", "dmy", "mdy"]
UnevenLines = Literal["reject", "fit"]


def _check_encoding(name: str) -> str:
    try:
        b"".decode(name)
        codecs.lookup(name)
    except LookupError:
        raise ValueError(
            f"{name!r} is no encoding of text; write one such as utf-8, cp1252 or utf-16"
        ) from None
    return name


def _check_mark(mark: str) -> str:
    if len(mark) > 1 or mark in ("\n", "\r"):
        raise ValueError("must be one character, or empty")
    return mark


def _check_decimal(mark: str) -> str:
    if mark not in (".", ","):
        raise ValueError('must be "." or ","')
    return mark


def _check_thousands(mark: str) -> str:
    if mark not in ("", ".", ",", "'", " "):
        raise ValueError('must be ".", ",", "\'" or " ", or empty')
    return mark


def _check_zone(zone: str | None) -> str | None:
    if zone not in (None, REJECT) and zone not in available_timezones():
        raise ValueError(f"must be {REJECT!r} or the IANA name of a time zone")
    return zone


def _check_signs(signs: tuple[str, ...]) -> tuple[str, ...]:
    if any(not sign.strip() or any(c.isdigit() or c in ".,-+" for c in sign) for sign in signs):
        raise ValueError('must be signs or words such as "£" or "EUR", without digits')
    return signs


def _name_as_text(types: Mapping[str | int, Any]) -> dict[str, Any]:
    return {str(word): kind for word, kind in types.items()}


def _check_columns(table: str, names: Mapping[str, str]) -> dict[str, str]:
    known = [column.name for column in CONTRACT[table]]
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise ValueError(f"{name!r} is no column of the contract's {table}; {hint}")
    return dict(names)


def _check_vectors(vectors: Mapping[str, Any]) -> dict[str, Any]:
    known = [column.name for column in ITEMS if column.kind == "vector"]
    for name in vectors:
        if name not in known:
            raise ValueError(f"{name!r} is no vector of the contract; it has {', '.join(known)}")
    return dict(vectors)


Encoding = Annotated[str, AfterValidator(_check_encoding)]
Mark = Annotated[str, AfterValidator(_check_mark)]
DecimalMark = Annotated[str, AfterValidator(_check_decimal)]
ThousandsMark = Annotated[str, AfterValidator(_check_thousands)]
Zone = Annotated[str | None, AfterValidator(_check_zone)]
Signs = Annotated[tuple[str, ...], AfterValidator(_check_signs)]
EventTypeNames = Annotated[dict[str | int, EventTypeName], AfterValidator(_name_as_text)]
VectorColumns = Annotated[dict[str, str | tuple[str, ...]], AfterValidator(_check_vectors)]
_EventColumns = Annotated[dict[str, str], AfterValidator(lambda v: _check_columns("events", v))]
_ItemColumns = Annotated[dict[str, str], AfterValidator(lambda v: _check_columns("items", v))]
_UserColumns = Annotated[dict[str, str], AfterValidator(lambda v: _check_columns("users", v))]


def check_marks(delimiter: str, quote: str, decimal: str, thousands: str) -> None:
    """Check that marks with different meanings differ.

    Raises:
        ValueError: Two of them are the same.
    """
    if decimal == thousands:
        raise ValueError(f"decimal and thousands are both {decimal!r}; they must differ")
    if quote and delimiter == quote:
        raise ValueError(f"delimiter and quote are both {quote!r}; they must differ")


class ColumnNames(Settings):
    """The name in the files of each column of the contract that has another one there.

    Attributes:
        events: Columns of the events, such as ``{user_id: CustomerNo, event_time: ts}``.
        items: Columns of the items.
        users: Columns of the users.
    """

    events: _EventColumns = {}
    items: _ItemColumns = {}
    users: _UserColumns = {}

    def of(self, table: str) -> dict[str, str]:
        """The names of one table's columns in its files, by the contract's names."""
        names: dict[str, str] = getattr(self, table)
        return names


class FileFormat(Settings):
    """How the files of the tables are written.

    Attributes:
        columns: Columns that have other names in the files.
        event_types: The contract's event type of each word or number that the files use.
        encoding: Of CSV files.
        delimiter: Between the fields of a CSV file; empty takes it from the header line.
        quote: Around a field of a CSV file; empty where quotes mean nothing.
        escape: Before a quote within a field; empty where such a quote is doubled.
        uneven_lines: Whether to reject the lines of a CSV file that have another number of fields
            than its header, or to fit them.
        decimal: Before the decimals of a number in text.
        thousands: Between the thousands of a number in text; empty for none.
        currency_signs: Signs or words to leave out before or after a number in text.
        null_values: Texts that mean null. None: an empty field only, and an id that is spelled
            like a null is rejected.
        date_order: Order of day, month and year in text, separated by "-", "/" or ".".
        time_unit: Unit of times that are numbers, counted from 1970. None: they are rejected.
        naive_times: The IANA name of the zone of times without one, or ``reject``.
        vector_columns: The columns that together are one vector, by the vector's name.
    """

    columns: ColumnNames = ColumnNames()
    event_types: EventTypeNames = {}
    encoding: Encoding = "utf-8"
    delimiter: Mark = ""
    quote: Mark = '"'
    escape: Mark = ""
    uneven_lines: UnevenLines = "reject"
    decimal: DecimalMark = "."
    thousands: ThousandsMark = ""
    currency_signs: Signs = ()
    null_values: tuple[str, ...] | None = None
    date_order: DateOrder = "ymd"
    time_unit: TimeUnit | None = None
    naive_times: Zone = REJECT
    vector_columns: VectorColumns = {}

    @model_validator(mode="after")
    def _check_marks(self) -> Self:
        check_marks(self.delimiter, self.quote, self.decimal, self.thousands)
        return self
