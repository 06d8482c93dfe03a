import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.indexing.build import build_index
from components.indexing.settings import IndexSettings
from refit.errors import DataValidationError, RefitError
from refit.features import FeaturesManifest, item_inputs
from refit.files import read_json
from refit.index import IndexManifest, ItemIndex
from refit.towers import load_tower, run_tower

CATALOGUE, LIVE = 40, 30


@pytest.fixture(scope="module")
def index(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "index"
    build_index(IndexSettings(), *folders, out)
    return out


@pytest.fixture
def features(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(folders[0], tmp_path / "features"))


def test_live_items_come_first_then_items_of_histories(index, folders):
    items = pq.read_table(index / "items.parquet")
    assert items["item_id"].to_pylist() == [f"i{n}" for n in range(LIVE)] + ["i35"]
    assert items["live"].to_pylist() == [True] * LIVE + [False]
    assert {"seller_id", "price", "brand"} <= set(items.column_names)
    assert np.load(index / "vectors.npy").shape == (LIVE, 16)
    assert np.load(index / "content.npy").shape == (LIVE + 1, 8)


def test_vectors_and_content_are_the_outputs_of_the_towers(index, folders):
    features, model = folders
    manifest = FeaturesManifest.read(features)
    popularity = np.zeros((1, 6), np.float32)
    popularity[0, 3:5] = 7, 100
    inputs = item_inputs(
        manifest.spec,
        {"item_id": ["i7"], "brand": ["b3"], "price": [7.99]},
        np.array([7.0]),
        popularity,
    )
    expected = run_tower(load_tower(model / "item_tower"), inputs)
    np.testing.assert_allclose(np.load(index / "vectors.npy")[7:8], expected["embedding"], 1e-5)
    np.testing.assert_allclose(np.load(index / "content.npy")[7:8], expected["content"], 1e-5)


def test_histories_refer_to_rows(index):
    histories = pq.read_table(index / "histories.parquet")
    assert histories["user_id"].to_pylist() == ["u0", "u1", "u2", "u3"]
    assert histories["item_row"].to_pylist() == [[2, 1], [LIVE, 0], [4], []]
    assert histories["event_type"].to_pylist()[0] == ["view", "view"]


def test_purchases_and_hides_point_at_rows_and_at_ids_of_items_that_are_gone(index):
    ids = [
        *pq.read_table(index / "items.parquet")["item_id"].to_pylist(),
        *pq.read_table(index / "delisted_items.parquet")["item_id"].to_pylist(),
    ]
    assert ids[LIVE + 1 :] == ["i36", "i38", "i39"], "sorted, and none of the histories"
    users = pq.read_table(index / "histories.parquet")["user_id"].to_pylist()
    found = {}
    for name in ("purchases", "hides"):
        table = pq.read_table(index / f"{name}.parquet")
        assert table.equals(table.sort_by([("user_row", "ascending"), ("item_row", "ascending")]))
        rows = zip(table["user_row"].to_pylist(), table["item_row"].to_pylist(), strict=True)
        found[name] = {(users[user], ids[item]) for user, item in rows}
    assert found == {
        "purchases": {("u0", "i9"), ("u0", "i39"), ("u0", "i35"), ("u2", "i38")},
        "hides": {("u3", "i36")},
    }


def test_purchases_of_users_that_the_histories_lack_are_refused(features, folders, tmp_path):
    histories = features / "histories.parquet"
    pq.write_table(pq.read_table(histories).slice(1), histories)
    with pytest.raises(RefitError, match="without a history; run the feature step again"):
        build_index(IndexSettings(), features, folders[1], tmp_path / "index")


def test_popular_items_overall_and_by_context(index):
    rows = pq.read_table(index / "popularity.parquet").to_pylist()
    best = {(row["column"], row["value"]): row["item_row"][:3] for row in rows}
    assert best == {
        ("", ""): [29, 28, 27],
        ("occasion", "wedding"): [7, 29, 28],
        ("occasion", "work"): [29, 28, 27],
    }


def test_the_manifest_has_the_measurements(index, folders):
    manifest = IndexManifest.read(index)
    assert manifest.embedding_version == read_json(folders[1] / "model.json")["embedding_version"]
    assert (manifest.n_live, manifest.n_items, manifest.dimension) == (LIVE, LIVE + 1, 16)
    assert (manifest.kind, manifest.recall_at_100, manifest.n_queries) == ("flat", 1.0, 4)
    assert set(manifest.latency_ms) == {"p50", "p99", "exact_p50", "exact_p99"}
    assert len(ItemIndex.read(index).vectors) == LIVE


def test_features_without_examples_are_enough(features, folders, tmp_path):
    shutil.rmtree(features / "examples")
    manifest = build_index(IndexSettings(), features, folders[1], tmp_path / "index")
    assert manifest.n_queries == 4
    assert manifest.recall_at_100 == 1.0


def test_an_index_without_queries_has_no_recall(features, folders, tmp_path):
    shutil.rmtree(features / "examples")
    for name in ("histories", "purchases", "hides"):
        path = features / f"{name}.parquet"
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert build_index(IndexSettings(), features, folders[1], tmp_path / "i").recall_at_100 is None


def test_an_index_without_live_items_is_refused(features, folders, tmp_path):
    snapshot = features / "snapshots" / "1.parquet"
    pq.write_table(pq.read_table(snapshot).slice(0, 0), snapshot)
    with pytest.raises(DataValidationError, match="no item is live"):
        build_index(IndexSettings(), features, folders[1], tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_features_of_another_spec_are_refused(features, folders, tmp_path):
    manifest = FeaturesManifest.read(features)
    manifest.model_copy(update={"popularity_values": {"occasion": ("work",)}}).write(features)
    with pytest.raises(RefitError, match="differ in popularity_values"):
        build_index(IndexSettings(), features, folders[1], tmp_path / "index")


def test_building_again_replaces_the_index(features, folders, tmp_path):
    out = tmp_path / "index"
    build_index(IndexSettings(), features, folders[1], out)
    snapshot = features / "snapshots" / "1.parquet"
    pq.write_table(pq.read_table(snapshot).slice(0, 20), snapshot)
    build_index(IndexSettings(), features, folders[1], out)
    assert ItemIndex.read(out).vectors.shape[0] == 20
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_index_of_other_vectors_is_refused(index, tmp_path):
    broken = Path(shutil.copytree(index, tmp_path / "broken"))
    np.save(broken / "vectors.npy", np.zeros((3, 16), np.float32))
    with pytest.raises(RefitError, match=r"vectors\.npy"):
        ItemIndex.read(broken)


def test_catalogue_columns_that_are_vectors_are_left_out(features, folders, tmp_path):
    items = features / "items.parquet"
    table = pq.read_table(items)
    pictures = pa.array([[0.0, 1.0]] * table.num_rows, pa.list_(pa.float32()))
    pq.write_table(table.append_column("image_embedding", pictures), items)
    build_index(IndexSettings(), features, folders[1], tmp_path / "index")
    names = pq.read_table(tmp_path / "index" / "items.parquet").column_names
    assert "image_embedding" not in names
    assert "gone_at" not in names
