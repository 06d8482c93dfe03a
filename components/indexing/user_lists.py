"""Purchases and hides of each user, by the rows of the index folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refit.errors import RefitError
from refit.feature_tables import HIDES_FILE, PURCHASES_FILE


@dataclass(frozen=True)
class UserLists:
    """The tables of the index folder that the eligibility rules read; see ``refit.index``.

    Attributes:
        purchases, hides: ``user_row`` and ``item_row``, sorted.
        delisted: ``item_id`` of the items that occur only in these two, sorted.
    """

    purchases: pa.Table
    hides: pa.Table
    delisted: pa.Table


def user_lists(
    features: Path,
    user_ids: pa.ChunkedArray,
    item_ids: pa.ChunkedArray,
    members: NDArray[np.int32],
) -> UserLists:
    """Number the users and items of purchases and hides by the rows of the index folder.

    Args:
        features: Features folder.
        user_ids: [U] user ids in the order of the histories.
        item_ids: Item ids by item_index.
        members: [M] item_index of each row of the index.
    """
    tables = [pq.read_table(features / name) for name in (PURCHASES_FILE, HIDES_FILE)]
    items = [table["item_index"].to_numpy() for table in tables]
    others = np.setdiff1d(np.concatenate(items), members)
    others_ids = item_ids.take(pa.array(others))
    order = pc.array_sort_indices(others_ids.combine_chunks()).to_numpy()
    row_of = np.full(len(item_ids), -1, dtype=np.int32)
    row_of[members] = np.arange(len(members), dtype=np.int32)
    row_of[others[order]] = np.arange(len(members), len(members) + len(others), dtype=np.int32)
    purchases, hides = (
        _by_row(pc.index_in(table["user_id"], value_set=user_ids), row_of[item])
        for table, item in zip(tables, items, strict=True)
    )
    delisted = pa.table({"item_id": others_ids.take(pa.array(order))})
    return UserLists(purchases, hides, delisted)


def _by_row(user_row: pa.ChunkedArray, item_row: NDArray[np.int32]) -> pa.Table:
    if user_row.null_count:
        raise RefitError(
            "purchases or hides name a user without a history; run the feature step again"
        )
    users = user_row.to_numpy()
    order = np.lexsort((item_row, users))
    columns = {"user_row": users[order].astype(np.int32), "item_row": item_row[order]}
    return pa.table(columns)
