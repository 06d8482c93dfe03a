"""Build the index folder: embed the live items, choose and measure an index, write it."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.indexing.choose import choose_index
from components.indexing.popular import rank_popular_items
from components.indexing.queries import embed_queries, sample_queries
from components.indexing.settings import IndexSettings
from components.indexing.user_lists import user_lists
from refit.encoding import differ
from refit.errors import DataValidationError, RefitError
from refit.feature_tables import HISTORIES_FILE, ItemTable, read_catalogue, read_snapshot
from refit.features import FeaturesManifest, item_inputs
from refit.files import read_json, remove, write_atomically
from refit.index import (
    CONTENT_FILE,
    DELISTED_FILE,
    HIDES_FILE,
    INDEX_FILE,
    ITEMS_FILE,
    POPULARITY_FILE,
    PURCHASES_FILE,
    VECTORS_FILE,
    IndexManifest,
)
from refit.index import HISTORIES_FILE as INDEX_HISTORIES_FILE
from refit.live_features import ROWS_PER_GROUP, write_live_features
from refit.progress import timed
from refit.served import write_served
from refit.towers import Outputs, load_tower, run_tower


def build_index(settings: IndexSettings, features: Path, model: Path, out: Path) -> IndexManifest:
    """Build the index over the items that are live at the last snapshot, atomically.

    Args:
        settings: How to build it.
        features: Features folder; the last snapshot is enough.
        model: Model or bundle folder.
        out: The index folder; an existing index is replaced.

    Raises:
        DataValidationError: No item is live.
        RefitError: Features and model do not match, or the towers returned non-finite vectors.
    """
    manifest = FeaturesManifest.read(features)
    _check_same_inputs(manifest, FeaturesManifest.read(model))
    catalogue = read_catalogue(features)
    live, age_days, popularity = read_snapshot(features, len(manifest.snapshots) - 1)
    if not len(live):
        raise DataValidationError(
            f"no item is live at {manifest.snapshots[-1]}; check the window and the item feed"
        )
    histories = pq.read_table(features / HISTORIES_FILE)
    queries = sample_queries(settings, manifest, features)
    members = _join(live, _items(histories["item_index"]))
    embedded = _join(members, _items(queries["history_item"]))
    row_of = np.zeros(len(catalogue), dtype=np.int64)
    row_of[embedded] = np.arange(len(embedded))
    with timed(f"embedded {len(live):,} live items and {len(embedded) - len(live):,} of histories"):
        items = ItemTable(catalogue.table.take(embedded))
        outputs = _embed(settings, manifest, model, items, age_days, popularity)
    vectors, content = np.ascontiguousarray(outputs["embedding"][: len(live)]), outputs["content"]
    query_vectors = embed_queries(manifest, model, queries, content, row_of)
    if not (np.isfinite(vectors).all() and np.isfinite(query_vectors).all()):
        raise RefitError("the towers returned vectors that are not finite; train them again")
    with timed("built and measured the index"):
        index, measured = choose_index(settings, vectors, query_vectors)
    popular = rank_popular_items(settings, manifest, popularity, age_days)
    index_manifest = IndexManifest(
        embedding_version=read_json(model / "model.json")["embedding_version"],
        dimension=vectors.shape[1],
        n_live=len(live),
        n_items=len(members),
        as_of=manifest.snapshots[-1],
        dataset_fingerprint=manifest.dataset_fingerprint,
        **measured,
    )
    lists = user_lists(features, histories["user_id"], catalogue.table["item_id"], members)
    with write_atomically(out) as folder:
        folder.mkdir()
        faiss.write_index(index, str(folder / INDEX_FILE))
        np.save(folder / VECTORS_FILE, vectors)
        np.save(folder / CONTENT_FILE, content[: len(members)])
        attributes = _attributes(catalogue.table, members, len(live))
        pq.write_table(attributes, folder / ITEMS_FILE, row_group_size=ROWS_PER_GROUP)
        write_live_features(folder, age_days, popularity, _vectors(manifest, items, len(live)))
        pq.write_table(_with_rows(histories, row_of), folder / INDEX_HISTORIES_FILE)
        pq.write_table(lists.purchases, folder / PURCHASES_FILE)
        pq.write_table(lists.hides, folder / HIDES_FILE)
        pq.write_table(lists.delisted, folder / DELISTED_FILE)
        pq.write_table(popular, folder / POPULARITY_FILE)
        write_served(folder, len(live))
        index_manifest.write(folder)
        remove(out)
    return index_manifest


def _check_same_inputs(features: FeaturesManifest, model: FeaturesManifest) -> None:
    if differ(features.encoding, model.encoding):
        raise RefitError(
            f"the items' vectors are by {features.encoding or 'no encoder'}, and the model was"
            f" trained with those of {model.encoding or 'no encoder'}; encode them as for the model"
        )
    for name in ("spec", "market", "popularity_values", "vector_size"):
        if getattr(features, name) != getattr(model, name):
            raise RefitError(
                f"features and model differ in {name}; build the features with the model's spec"
            )


def _items(lists: pa.ChunkedArray) -> NDArray[np.int32]:
    items = np.unique(lists.combine_chunks().flatten().to_numpy(zero_copy_only=False))
    return items.astype(np.int32)


def _join(first: NDArray[np.int32], more: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.concatenate([first, np.setdiff1d(more, first)]).astype(np.int32)


def _embed(
    settings: IndexSettings,
    manifest: FeaturesManifest,
    model: Path,
    table: ItemTable,
    age_days: NDArray[np.float32],
    popularity: NDArray[np.float32],
) -> Outputs:
    """Run the item tower.

    Of rows after the live ones only the content is used, which depends neither on age nor on
    popularity.
    """
    spec = manifest.spec
    columns: dict[str, Any] = {
        name: table.strings(name) for name in ("item_id", *spec.item_categorical, *spec.item_text)
    }
    columns |= {name: table.numbers(name) for name in spec.item_numeric}
    if spec.item_vector:
        columns[spec.item_vector] = table.vectors(spec.item_vector, manifest.vector_size)
    n_not_live = len(table) - len(age_days)
    ages = np.pad(age_days, (0, n_not_live))
    counts = np.pad(popularity, ((0, n_not_live), (0, 0)))
    inputs = item_inputs(spec, columns, ages, counts)
    return run_tower(load_tower(model / "item_tower"), inputs, settings.batch_size)


def _vectors(
    manifest: FeaturesManifest, items: ItemTable, n_live: int
) -> NDArray[np.float32] | None:
    name = manifest.spec.item_vector
    return items.vectors(name, manifest.vector_size)[:n_live] if name else None


def _attributes(catalogue: pa.Table, members: NDArray[np.int32], n_live: int) -> pa.Table:
    """The attributes that filters and pages use: all columns except vectors and ``gone_at``."""
    names = [
        field.name
        for field in catalogue.schema
        if not pa.types.is_nested(field.type) and field.name != "gone_at"
    ]
    live = pa.array(np.arange(len(members)) < n_live)
    return catalogue.select(names).take(members).append_column("live", live)


def _with_rows(histories: pa.Table, row_of: NDArray[np.int64]) -> pa.Table:
    position = histories.column_names.index("item_index")
    lists = histories["item_index"].combine_chunks()
    rows = row_of[lists.values.to_numpy(zero_copy_only=False)].astype(np.int32)
    mapped = pa.ListArray.from_arrays(lists.offsets, pa.array(rows), mask=lists.is_null())
    return histories.set_column(position, "item_row", mapped)
