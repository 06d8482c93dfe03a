"""The listings newer than the bundle, as arrays that grow: a listing or a sale costs what it is.

``FreshListings`` is written by the thread that reads the feed. Requests read views of it, each a
``DeltaIndex`` of the rows that were there when it was made. Rows are only added, so a view stays as
it is, but for its sales: what was sold since is gone from it as well. A listing that changes gets a
new row, and its old one is gone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.columns import Column, Flags, Labels, Longs, Numbers
from serving.catalogue import Catalogue

MOST_GONE = 1000
"""So many rows may be gone before they are left out, if they are more than half of all rows."""
FIRST_ROWS = 16


@dataclass(frozen=True)
class Listing:
    """A listing newer than the bundle."""

    item_id: str
    number: int
    attributes: Mapping[str, Any]
    vector: NDArray[np.float32]
    content: NDArray[np.float32]


class GrowingArray:
    """An array that grows at its end; what was handed out keeps its memory.

    Args:
        dtype: Type of its values.
        shape: Shape of a row.
    """

    def __init__(self, dtype: Any, *shape: int) -> None:
        self._rows = np.empty((FIRST_ROWS, *shape), dtype)

    def first(self, size: int) -> NDArray[Any]:
        """The first rows, without a copy."""
        return self._rows[:size]

    def extend(self, size: int, values: Any) -> None:
        """Write rows after the first ``size``."""
        end = size + len(values)
        if end > len(self._rows):
            rows = max(end, 2 * len(self._rows))
            grown = np.empty((rows, *self._rows.shape[1:]), self._rows.dtype)
            grown[:size] = self._rows[:size]
            self._rows = grown
        self._rows[size:end] = values


class _GrowingColumn:
    """One attribute of the listings, as codes where it is text."""

    def __init__(self, is_number: bool) -> None:
        self._values = GrowingArray(np.float64 if is_number else np.int32)
        self._code_of: dict[str, int] | None = None if is_number else {}

    def extend(self, size: int, values: Sequence[Any]) -> None:
        if self._code_of is None:
            numbers = [np.nan if value is None else value for value in values]
            return self._values.extend(size, numbers)
        codes = self._code_of
        return self._values.extend(
            size, [-1 if text is None else codes.setdefault(text, len(codes)) for text in values]
        )

    def first(self, size: int) -> Column:
        values = self._values.first(size)
        return Numbers(values) if self._code_of is None else Labels(values, self._code_of)


class FreshListings:
    """The listings newer than the bundle, as rows in the order in which they came.

    Args:
        catalogue: The bundle.

    Attributes:
        n_live: How many of them are on sale.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._listings: list[Listing] = []
        self._number_of: dict[str, int] = {}
        self._row_of: dict[int, int] = {}
        self._vectors = GrowingArray(np.float32, catalogue.size)
        self._content = GrowingArray(np.float32, catalogue.content.shape[1])
        self._numbers, self._earlier = GrowingArray(np.int64), GrowingArray(np.int64)
        self._listed_at, self._gone = GrowingArray(np.int64), GrowingArray(np.bool_)
        self._sellers = _GrowingColumn(is_number=False)
        kinds = catalogue.attributes.items()
        self._columns = {name: _GrowingColumn(isinstance(kind, Numbers)) for name, kind in kinds}
        self.n_live = 0

    def __len__(self) -> int:
        """How many rows there are, also of what is gone."""
        return len(self._listings)

    def add(self, listings: Sequence[Listing]) -> None:
        """Add listings, no item twice; one that was there before is replaced."""
        if not listings:
            return
        size = len(self)
        numbers = [one.number for one in listings]
        self._earlier.extend(size, [self._row_of.get(number, -1) for number in numbers])
        self._numbers.extend(size, numbers)
        self._vectors.extend(size, [one.vector for one in listings])
        self._content.extend(size, [one.content for one in listings])
        self._listed_at.extend(size, [self._find_listed_at(one) for one in listings])
        self._gone.extend(size, np.zeros(len(listings), dtype=np.bool_))
        self._sellers.extend(size, [one.attributes.get("seller_id") for one in listings])
        for name, column in self._columns.items():
            column.extend(size, [one.attributes.get(name) for one in listings])
        self._listings.extend(listings)
        self.n_live += len(listings)
        for row, one in enumerate(listings, size):
            self.remove(one.item_id)
            self._row_of[one.number] = row
            self._number_of[one.item_id] = one.number

    def remove(self, item_id: str) -> bool:
        """Take a listing off, and return whether it was on sale."""
        number = self._number_of.get(item_id)
        row = -1 if number is None else self._row_of[number]
        gone = self._gone.first(len(self))
        was_on_sale = row >= 0 and not gone[row]
        if was_on_sale:
            gone[row] = True
            self.n_live -= 1
        return was_on_sale

    def compact(self) -> "FreshListings":
        """The same without the rows that are gone, where these are many."""
        n_gone = len(self) - self.n_live
        if n_gone <= max(MOST_GONE, self.n_live):
            return self
        kept = FreshListings(self._catalogue)
        rows = np.flatnonzero(~self._gone.first(len(self))).tolist()
        kept.add([self._listings[row] for row in rows])
        return kept

    def view(self, content: Mapping[str, NDArray[np.float32]] | None = None) -> "DeltaIndex":
        """The rows as they are now.

        Args:
            content: Content vectors by item id, also of listings that have been sold.
        """
        size = len(self)
        return DeltaIndex(
            listings=self._listings,
            vectors=self._vectors.first(size),
            content_vectors=self._content.first(size),
            content={} if content is None else content,
            number_of=self._number_of,
            numbers=self._numbers.first(size),
            gone=self._gone.first(size),
            listed_at=self._listed_at.first(size),
            columns={name: column.first(size) for name, column in self._columns.items()},
            seller_column=self._sellers.first(size),
            earlier=self._earlier,
            row_of=self._row_of,
        )

    def _find_listed_at(self, listing: Listing) -> int:
        """When a listing was listed, microseconds since 1970.

        At its ``listed_at``, else when the bundle says; one that the bundle does not know, when the
        index was built, the earliest possible time.
        """
        try:
            told = datetime.fromisoformat(str(listing.attributes.get("listed_at")))
        except ValueError:
            if listing.number < self._catalogue.n_live:
                return int(self._catalogue.listed_at[listing.number])
            told = self._catalogue.as_of
        told = told if told.tzinfo else told.replace(tzinfo=self._catalogue.as_of.tzinfo)
        return int(told.timestamp() * 1e6)


@dataclass(frozen=True, eq=False)
class DeltaIndex:
    """The F rows that ``FreshListings`` had at one time, laid out for an exact search.

    Attributes:
        listings: The first F are the listing of each row; more may have come since.
        vectors: [F, D].
        content_vectors: [F, C].
        content: Content vectors by item id, for histories, also of listings that have been sold.
        number_of: Item numbers by item id.
        numbers: [F] item numbers.
        gone: [F] which of them were sold or replaced, also since then.
        listed_at: [F] when each was listed, microseconds since 1970.
        columns: [F] attributes, of the same kinds as in the bundle.
        seller_column: [F] who sells each listing.
        earlier: Of each row, the row that the same item had before; -1 for the first.
        row_of: The latest row of an item number.
    """

    listings: Sequence[Listing]
    vectors: NDArray[np.float32]
    content_vectors: NDArray[np.float32]
    content: Mapping[str, NDArray[np.float32]]
    number_of: Mapping[str, int]
    numbers: Longs
    gone: Flags
    listed_at: Longs
    columns: Mapping[str, Column]
    seller_column: Column
    earlier: GrowingArray
    row_of: Mapping[int, int]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def n_live(self) -> int:
        """How many of them are on sale."""
        return len(self) - int(np.count_nonzero(self.gone))

    @property
    def sellers(self) -> Labels:
        """[F] who sells each listing."""
        assert isinstance(self.seller_column, Labels)
        return self.seller_column

    def on_sale(self) -> Iterator[tuple[int, Listing]]:
        """The rows that are not gone, with their listings."""
        return ((row, self.listings[row]) for row in np.flatnonzero(~self.gone).tolist())

    def score(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """[F] dot products with a query vector [D]."""
        return np.asarray(self.vectors @ query)

    def not_live_at(self, times: Longs) -> Flags | None:
        """[F] which of them are gone, whatever the time; None when none is."""
        return self.gone if self.gone.any() else None

    def positions(self, items: Longs) -> Longs:
        """[P] rows of item numbers, -1 where an item is none of these listings."""
        return np.array([self._row_of(number) for number in items.tolist()], dtype=np.int64)

    def column(self, name: str) -> Column:
        """[F] an attribute."""
        return self.columns[name]

    def _row_of(self, number: int) -> int:
        row = self.row_of.get(number, -1)
        while row >= len(self):  # it has changed since
            row = int(self.earlier.first(row + 1)[row])
        return row
