"""Queries and their candidates as the eligibility rules see them; see ``refit.eligibility``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.evaluation.data import CandidateSnapshot, EvaluationData, Ints, Longs, Queries
from refit.columns import Column, Flags, Labels, Wanted
from refit.feature_tables import Away, strings
from refit.item_lists import NO_ITEMS, ItemLists


class CandidateItems:
    """The C candidates of a snapshot.

    Args:
        data: The features folder.
        snapshot: The snapshot, its candidates ascending.
    """

    def __init__(self, data: EvaluationData, snapshot: CandidateSnapshot) -> None:
        catalogue = data.catalogue
        self._catalogue, self._snapshot = catalogue, snapshot
        self._contents = data.content_rows(snapshot)
        self._known_at = catalogue.known_at[snapshot.items]
        self._gone_at = catalogue.gone_at[snapshot.items]
        self.sellers: Labels = catalogue.sellers.take(snapshot.items)
        position = self.positions(catalogue.away.item)
        here = position >= 0
        away = catalogue.away
        self._away = Away(position[here].astype(np.int32), away.gone_at[here], away.back_at[here])

    def __len__(self) -> int:
        return len(self._snapshot.items)

    def not_live_at(self, times: Longs) -> Flags | None:
        """[B, C] whether an item is not listed yet, away, or gone at the time; None if none is.

        An item that the query's own event removes from sale is still live at that time.
        """
        flags: Flags | None = None
        if not len(self):
            return None
        if self._known_at.max() > times.min():
            flags = self._known_at[None, :] > times[:, None]
        if self._gone_at.min() < times.max():
            gone = self._gone_at[None, :] < times[:, None]
            flags = gone if flags is None else flags | gone
        away = self._away
        paused = (away.gone_at < times.max()) & (away.back_at >= times.min())
        if paused.any():
            flags = np.zeros((len(times), len(self)), dtype=np.bool_) if flags is None else flags
            gone_at, back_at = away.gone_at[paused], away.back_at[paused]
            gone = (gone_at < times[:, None]) & (times[:, None] <= back_at)
            position, first = np.unique(away.item[paused], return_index=True)
            flags[:, position] |= np.logical_or.reduceat(gone, first, axis=1)
        return flags

    def positions(self, items: Longs | Ints) -> Longs:
        """[P] positions of item indices among the candidates, -1 for an item that is not one."""
        return self._snapshot.positions(items)

    def column(self, name: str) -> Column:
        """[C] an item column, as it was at the snapshot."""
        return self._catalogue.column(name).take(self._contents)


@dataclass(frozen=True)
class QueryBlock:
    """B queries, with only what was known before the time of each.

    Attributes:
        data: The features folder.
        rows: [B] rows of the log.
        excluded, required: Exclusions and filters of requests; recorded events have none.
    """

    data: EvaluationData
    rows: Longs
    excluded: ItemLists = NO_ITEMS
    required: Sequence[Mapping[str, Wanted]] = ()

    @classmethod
    def of(cls, data: EvaluationData, queries: Queries, which: Longs) -> "QueryBlock":
        """The queries at the given positions."""
        return cls(data, queries.rows[which])

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def times(self) -> Longs:
        """[B] time of each query, in microseconds."""
        return self.data.log.time[self.rows]

    @cached_property
    def user_ids(self) -> Sequence[str]:
        """[B] user id of each query."""
        ids: list[str] = self.data.log.user_ids[self._users].tolist()
        return ids

    @property
    def bought(self) -> ItemLists:
        """Items that each user had bought before the query, however long ago."""
        return self.data.purchases.of(self._users, before=self.times)

    @property
    def hidden(self) -> ItemLists:
        """Items that each user had hidden before the query, however long ago."""
        return self.data.hides.of(self._users, before=self.times)

    def texts(self, name: str) -> NDArray[np.object_]:
        """[B] a context or user column as text, "" where missing."""
        return strings(self._column(name))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """[B] a context or user column as numbers, NaN where missing."""
        filled = pc.fill_null(self._column(name).cast(pa.float64()), float("nan"))
        return np.asarray(filled.to_numpy(), dtype=np.float64)

    @property
    def _users(self) -> NDArray[np.int32]:
        return self.data.log.user[self.rows]

    def _column(self, name: str) -> pa.ChunkedArray:
        return self.data.log.table[name].take(pa.array(self.rows))
