"""The query: what the query tower says of one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Query:
    """What the query tower says of a request.

    Attributes:
        vector: [D]; an item's score is its dot product with it, and what ``repeats`` adds.
        repeats: By item of the history, what is added to its score.
        rows: By item of the history, its row in the bundle, where that was looked up already; None
            where it has none.
    """

    vector: NDArray[np.float32]
    repeats: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """The E events that the query tower reads of a person, latest first.

    Attributes:
        item_ids: [E] their items.
        rows: [E] the rows of these in the bundle; None where they have none.
        content: [E] the content vectors of these.
        types: [E] event types.
        times: [E] Unix seconds.
    """

    item_ids: Sequence[str]
    rows: Sequence[int | None]
    content: Sequence[NDArray[np.float32]] | NDArray[np.float32]
    types: Sequence[str]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.item_ids)

    def part(self, start: int, end: int) -> "History":
        """The events from ``start`` to ``end``."""
        if start == 0 and end >= len(self):
            return self
        kept = slice(start, end)
        return History(
            self.item_ids[kept],
            self.rows[kept],
            self.content[kept],
            self.types[kept],
            self.times[kept],
        )

    def ask(self, vector: NDArray[np.float32], weights: NDArray[np.float32] | None) -> Query:
        """The query of this history.

        Args:
            vector: [D].
            weights: [L >= E] what each event adds to the score of its item; None: nothing.
        """
        if weights is None:
            return Query(vector)
        total: dict[str, float] = {}
        for item_id, weight in zip(self.item_ids, weights.tolist(), strict=False):
            total[item_id] = total.get(item_id, 0.0) + weight
        return Query(vector, total, dict(zip(self.item_ids, self.rows, strict=True)))
