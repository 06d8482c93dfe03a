"""Lists of items that belong to queries or users, such as what each user has bought."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.columns import Longs, expand


@dataclass(frozen=True)
class ItemLists:
    """One list of items for each of B queries, written out as P entries.

    Attributes:
        query: [P] the query that an entry belongs to.
        item: [P] the item's number.
    """

    query: Longs
    item: Longs

    @classmethod
    def of_one(cls, items: NDArray[np.integer[Any]] | list[int]) -> "ItemLists":
        """The list of a single query."""
        numbers = np.asarray(items, dtype=np.int64)
        return cls(np.zeros(len(numbers), dtype=np.int64), numbers)

    def __len__(self) -> int:
        return len(self.query)


NO_ITEMS = ItemLists.of_one([])


class UserItems:
    """What each of U users has done something with, as arrays sorted by user.

    Args:
        user: [P] number of the user.
        item: [P] number of the item; for each user every item once.
        n_users: U.
        time: [P] when it happened first; None where every entry counts at any time.
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
            # One sorted key of user and time, so that all queries are looked up in one call.
            self._times = np.unique(time)
            when = np.searchsorted(self._times, time[order])
            self._keys = sorted_user.astype(np.int64) * (len(self._times) + 1) + when

    def __len__(self) -> int:
        return len(self._item)

    def of(self, users: NDArray[np.integer[Any]], before: Longs | None = None) -> ItemLists:
        """The items of B users.

        Args:
            users: [B] numbers; -1 is a user without any items.
            before: [B] only what happened strictly before these times counts.
        """
        known = np.asarray(users, dtype=np.int64)
        starts, stops = self._bounds[known], self._bounds[known + 1]
        if before is not None and self._times is not None:
            when = np.searchsorted(self._times, before)
            stops = np.searchsorted(self._keys, known * (len(self._times) + 1) + when)
        query, entry = expand(starts, np.where(known < 0, starts, stops))
        return ItemLists(query, self._item[entry].astype(np.int64))
