"""Requests and index rows as the eligibility rules see them; see ``refit.eligibility``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.columns import Column, Flags, Labels, Longs, Wanted
from refit.contract import EventType
from refit.item_lists import ItemLists
from serving.catalogue import Catalogue
from serving.fresh import DeltaIndex
from serving.recent import NOTHING, RecentEvents
from serving.request import Request, RequestError


@dataclass(frozen=True)
class IndexRows:
    """The bundle's N live items.

    Attributes:
        gone: [N] which of them are not on sale any more; None when all are.
    """

    catalogue: Catalogue
    gone: Flags | None

    def __len__(self) -> int:
        return self.catalogue.n_live

    @property
    def sellers(self) -> Labels | None:
        """[N] who sells each item."""
        return self.catalogue.sellers

    def not_live_at(self, times: Longs) -> Flags | None:
        """[N] whether the stock feed has reported each item as gone, whatever the time."""
        return self.gone

    def positions(self, items: Longs) -> Longs:
        """[P] rows of item numbers, which are the same for live items."""
        return np.where(items < self.catalogue.n_live, items, -1)

    def column(self, name: str) -> Column:
        """[N] an attribute."""
        return self.catalogue.attributes[name]


class RequestQuery:
    """One request, as B = 1 queries.

    Args:
        catalogue: Numbers the items and knows what the user has bought and hidden.
        fresh: Numbers the listings that are newer than the bundle.
        request: The request.
        now: When it is answered.
        recent: What the person did since the bundle's histories ended.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        fresh: DeltaIndex,
        request: Request,
        now: datetime,
        recent: RecentEvents = NOTHING,
    ) -> None:
        self._catalogue, self._fresh, self._request = catalogue, fresh, request
        self._recent = recent
        self._user = catalogue.histories.row_of(request.user_id)
        self.times: Longs = np.array([now.timestamp() * 1e6], dtype=np.int64)
        self.user_ids = (request.user_id,)
        self.required: tuple[Mapping[str, Wanted]] = (request.require,)

    def __len__(self) -> int:
        return 1

    @cached_property
    def bought(self) -> ItemLists:
        """What the bundle, the feed and the request's own history know to be bought."""
        stored = self._catalogue.purchases.of_user(self._user)
        return self._join(stored, [*self._given(EventType.PURCHASE), *self._recent.bought])

    @cached_property
    def hidden(self) -> ItemLists:
        """What the bundle, the feed, the request's history and its ``hidden`` know to be hidden."""
        stored = self._catalogue.hides.of_user(self._user)
        told = (*self._given(EventType.HIDE), *self._request.hidden, *self._recent.hidden)
        return self._join(stored, told)

    @cached_property
    def excluded(self) -> ItemLists:
        """What the request excludes."""
        return ItemLists.of_one(self._numbers(self._request.exclude))

    def texts(self, name: str) -> NDArray[np.object_]:
        """[1] a context or user column as text, "" where it is missing.

        Raises:
            RequestError: It is a number.
        """
        value = self._value(name)
        if not isinstance(value, str | None):
            raise RequestError(f"context.{name}: must be text")
        return np.array([value or ""], dtype=object)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """[1] a context or user column as a number, NaN where it is missing.

        Raises:
            RequestError: It is text.
        """
        value = self._value(name)
        if not isinstance(value, int | float | None):
            raise RequestError(f"context.{name}: must be a number")
        return np.array([np.nan if value is None else value], dtype=np.float64)

    def _value(self, name: str) -> Any:
        if name in self._request.context:
            return self._request.context[name]
        return self._user_columns.get(name)

    @cached_property
    def _user_columns(self) -> dict[str, Any]:
        return self._catalogue.histories.user(self._request.user_id)

    def _given(self, kind: EventType) -> list[str]:
        return [e.item_id for e in self._request.history or () if e.event_type is kind]

    def _join(self, stored: ItemLists, item_ids: Sequence[str]) -> ItemLists:
        given = self._numbers(item_ids) if item_ids else ()
        return ItemLists.of_one(np.union1d(stored.item, given)) if given else stored

    def _numbers(self, item_ids: Sequence[str]) -> list[int]:
        """The numbers of items, each once; without those that cannot be candidates."""
        find, fresh = self._catalogue.row_of.find, self._fresh.number_of
        found = list(map(find, item_ids))
        if fresh:
            pairs = zip(item_ids, found, strict=True)
            found = [fresh.get(item_id) if row is None else row for item_id, row in pairs]
        return [number for number in set(found) if number is not None]
