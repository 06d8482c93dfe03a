"""The protocol of engines on other machines that search the live items' vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from refit.bundle import Bundle
from refit.columns import Numbers
from refit.errors import RefitError
from refit.predicates import SELLER, Predicate
from serving.catalogue import Catalogue
from serving.towers import Fallback

ColumnKinds = Mapping[str, Literal["text", "number"]]
"""The item columns that an engine can filter by."""


class EngineFailure(RefitError):  # noqa: N818 - as its siblings in refit.errors
    """An engine gave no usable answer."""

    def __init__(self, reason: Fallback, details: str) -> None:
        super().__init__(f"{reason.value}: {details}")
        self.reason = reason


@dataclass(frozen=True)
class Hits:
    """H items that an engine found, best first.

    Attributes:
        item_ids: [H].
        scores: [H] dot products with the query.
    """

    item_ids: tuple[str, ...]
    scores: NDArray[np.float32]


class SearchEngine(Protocol):
    """Searches the vectors of the live items; threads share it."""

    def check(self, bundle: Bundle) -> None:
        """Check that the items of a bundle, or of a later one of the same towers, can be searched.

        Raises:
            ServiceUnreachable: The engine does not answer, or does not hold them yet.
        """
        ...

    def search(
        self,
        embedding_version: str,
        query: NDArray[np.float32],
        k: int,
        condition: Predicate | None,
        kinds: ColumnKinds,
        at_least: int = 0,
    ) -> Hits:
        """Find the k nearest of the items that meet a condition.

        What the engine cannot say of a condition it leaves out: it may find items that do not meet
        it, and never misses one for that reason.

        Args:
            embedding_version: The towers whose vectors are searched.
            query: [D] their query vector.
            k: Number of items.
            condition: None searches all.
            kinds: The item columns.
            at_least: A machine that finds fewer does not have all items, as after a start; another
                one is asked.

        Raises:
            EngineFailure: It gave no answer in time.
        """
        ...

    def close(self) -> None:
        """Close connections."""
        ...


def column_kinds(catalogue: Catalogue) -> ColumnKinds:
    """The item columns of a bundle that an engine filters by."""
    kinds: dict[str, Literal["text", "number"]] = {
        name: "number" if isinstance(column, Numbers) else "text"
        for name, column in catalogue.attributes.items()
    }
    return kinds if catalogue.sellers is None else {SELLER: "text", **kinds}
