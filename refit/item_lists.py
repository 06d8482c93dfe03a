"""Lists of items by query or by user, such as the items that each user has bought."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.columns import Longs, expand


@dataclass(frozen=True)
class ItemLists:
    """One list of items for each of B queries, stored as P entries.

    Attributes:
        query: [P] number of the query of each entry.
        item: [P] number of the item of each entry.
    """

    query: Longs
    item: Longs

    @classmethod
    def of_one(cls, items: NDArray[np.integer[Any]] | list[int]) -> "ItemLists":
        """Build the lists of a single query."""
        numbers = np.asarray(items, dtype=np.int64)
        return cls(np.zeros(len(numbers), dtype=np.int64), numbers)

    def __len__(self) -> int:
        return len(self.query)


NO_ITEMS = ItemLists.of_one([])


class UserItems:
    """Items of each of U users, such as purchases, as arrays sorted by user.

    Args:
        user: [P] number of the user.
        item: [P] number of the item; no item occurs twice for a user.
        n_users: U.
        time: [P] time of the first such event; None if entries count at any time.
    """

    def __init__(
        self,
        user: NDArray[np.integer[Any]],
        item: NDArray[np.integer[Any]],
        n_users: int,
        time: Longs | None = None,
    ) -> None:
        order = np.argsort(user, kind="stable") if time is None else np.lexsort((time, user))
        self._item = np.asarray(item)[order]
        sorted_user = np.asarray(user)[order]
        bounds = np.arange(n_users + 1).astype(sorted_user.dtype)
        self._bounds = np.searchsorted(sorted_user, bounds).astype(np.int64)
        self._times: Longs | None = None
        if time is not None:
            # One sorted key of user and time, so that one call looks up all queries.
            self._times = np.unique(time)
            when = np.searchsorted(self._times, time[order])
            self._keys = sorted_user.astype(np.int64) * (len(self._times) + 1) + when

    @classmethod
    def of_bounds(cls, item: NDArray[np.integer[Any]], bounds: Longs) -> "UserItems":
        """Items that are sorted by user already; those of user u are ``bounds[u]`` to the next."""
        lists = cls.__new__(cls)
        lists._item, lists._bounds, lists._times = item, bounds, None
        return lists

    def __len__(self) -> int:
        return len(self._item)

    def of(self, users: NDArray[np.integer[Any]], before: Longs | None = None) -> ItemLists:
        """The items of B users.

        Args:
            users: [B] numbers of the users; -1 is a user without items.
            before: [B] only entries strictly before these times count; None counts all.
        """
        if len(users) == 1 and before is None:  # the server's case, which must be fast
            return self.of_user(int(users[0]))
        known = np.asarray(users, dtype=np.int64)
        starts, stops = self._bounds[known], self._bounds[known + 1]
        if before is not None and self._times is not None:
            when = np.searchsorted(self._times, before)
            stops = np.searchsorted(self._keys, known * (len(self._times) + 1) + when)
        query, entry = expand(starts, np.where(known < 0, starts, stops))
        return ItemLists(query, self._item[entry].astype(np.int64))

    def of_user(self, user: int) -> ItemLists:
        """The items of one user; -1 is a user without items."""
        if user < 0:
            return NO_ITEMS
        items = self._item[self._bounds[user] : self._bounds[user + 1]]
        return ItemLists.of_one(items) if len(items) else NO_ITEMS
