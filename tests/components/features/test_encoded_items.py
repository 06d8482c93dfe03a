"""Vectors of the encoding step, as the features step reads them."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.features.build import build_features
from components.features.champion import build_champion_features
from refit.encoding import (
    CHAMPION_FOLDER,
    ITEM_VECTORS,
    EncodedItems,
    EncodedPart,
    ItemEncoding,
)
from refit.errors import RefitError
from refit.feature_tables import read_catalogue
from refit.features import FeaturesManifest
from refit.files import read_json
from refit.health import HealthCheck
from tests.components.features.small_market import START, TIME, write_dataset
from tests.components.features.test_build_features import market, settings

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

CHECK = HealthCheck(topic="assumptions", name="items without a vector", shown="1 of 25")
EVENTS, ITEMS, USERS = market(5)


def encoding(size: int = 3, code: str = "1") -> ItemEncoding:
    return ItemEncoding(
        column="listing_vector",
        parts=(EncodedPart(encoder="mine", reads="text", size=size, code=code),),
    )


def vector_of(item_id: str, size: int = 3) -> list[float] | None:
    return None if item_id == "i3" else [float(item_id[1:])] * size


def write_encoded(folder: Path, made_by: ItemEncoding) -> Path:
    folder.mkdir(parents=True)
    ids = [str(item["item_id"]) for item in reversed(ITEMS)]
    lists = pa.array([vector_of(each, made_by.size) for each in ids], pa.list_(pa.float32()))
    pq.write_table(pa.table({"item_id": ids, "listing_vector": lists}), folder / ITEM_VECTORS)
    EncodedItems(encoding=made_by, rows=len(ids), health=(CHECK,)).write(folder)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset", EVENTS, ITEMS, USERS)


def build(dataset: Path, encoded: Path | None, name: str = "features", **spec: object) -> Path:
    config = settings(**{"item_vector": "listing_vector", **spec})
    build_features(config, dataset, dataset.parent / name, encoded=encoded)
    return dataset.parent / name


def test_the_vectors_are_a_column_of_the_catalogue(tmp_path, dataset):
    folder = build(dataset, write_encoded(tmp_path / "encoded", encoding()))
    manifest, catalogue = FeaturesManifest.read(folder), read_catalogue(folder)
    assert manifest.vector_size == 3
    assert manifest.encoding == encoding()
    assert CHECK in manifest.health
    vectors = catalogue.vectors("listing_vector", 3)
    for item_id, vector in zip(catalogue.strings("item_id"), vectors, strict=True):
        assert vector.tolist() == (vector_of(item_id) or [0, 0, 0])


def test_each_version_of_an_item_has_its_own(tmp_path, dataset):
    first, later = START, START + timedelta(days=8)
    versions = [{**item, "valid_from": at} for item in ITEMS for at in (first, later)]
    kinds = {"listed_at": TIME, "delisted_at": TIME, "valid_from": TIME, "price": pa.float64()}
    kinds["image_embedding"] = pa.list_(pa.float32())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in versions[0]])
    pq.write_table(pa.Table.from_pylist(versions, schema), dataset / "item_versions.parquet")
    latest = [row for row in versions if row["valid_from"] == later]
    pq.write_table(pa.Table.from_pylist(latest, schema), dataset / "items.parquet")
    encoded = write_encoded(tmp_path / "encoded", encoding(size=1))
    rows = [
        (row["item_id"], row["valid_from"], [float(row["valid_from"] == later)]) for row in versions
    ]
    ids, times, vectors = zip(*rows, strict=True)
    table = pa.table(
        {"item_id": ids, "valid_from": pa.array(times, TIME), "listing_vector": vectors}
    )
    pq.write_table(table, encoded / ITEM_VECTORS)
    folder = build(dataset, encoded)
    assert np.all(read_catalogue(folder).vectors("listing_vector", 1) == 1)
    older = pq.read_table(folder / "versions.parquet")["listing_vector"].to_pylist()
    assert [0.0] in older
    assert "items.listing_vector" in FeaturesManifest.read(folder).versioned


def test_without_encoders_a_manifest_is_as_before_them(tmp_path, dataset):
    (tmp_path / "encoded").mkdir()
    EncodedItems().write(tmp_path / "encoded")
    folder = build(dataset, tmp_path / "encoded", item_vector="image_embedding")
    assert "encoding" not in read_json(folder / "features.json")
    assert FeaturesManifest.read(folder) == FeaturesManifest.read(
        build(dataset, None, "before", item_vector="image_embedding")
    )


def test_an_index_needs_the_vectors_that_the_model_was_trained_with(tmp_path, dataset):
    ours = write_encoded(tmp_path / "ours", encoding())
    theirs = write_encoded(tmp_path / "theirs", encoding(code="2"))
    model = build(dataset, ours)
    build_features(settings(), dataset, tmp_path / "index", like=model, encoded=ours)
    assert FeaturesManifest.read(tmp_path / "index").encoding == encoding()
    for encoded in (theirs, None):
        with pytest.raises(RefitError, match="vectors of different encoders cannot be compared"):
            build_features(settings(), dataset, tmp_path / "other", like=model, encoded=encoded)


def test_a_champion_with_other_encoders_gets_its_own_vectors(tmp_path, dataset):
    ours = write_encoded(tmp_path / "ours", encoding())
    config = settings(item_vector="listing_vector")

    def features_of(champion: Path, encoded: Path):
        return build_champion_features(config, dataset, tmp_path / "own", champion, "b1", encoded)

    same = build(dataset, ours, "same")
    assert not features_of(same, ours).needed
    other = build(dataset, write_encoded(tmp_path / "theirs", encoding(2)), "other")
    assert "vectors of different encoders" in features_of(other, ours).problem
    write_encoded(ours / CHAMPION_FOLDER, encoding(2))
    record = features_of(other, ours)
    assert record.needed
    assert not record.problem
    assert FeaturesManifest.read(tmp_path / "own" / "tables").encoding == encoding(2)
    EncodedItems(encoding=encoding(2), problem="the model is gone").write(ours / CHAMPION_FOLDER)
    assert features_of(other, ours).problem == "the model is gone"
    plain = build(dataset, None, "plain", item_vector="image_embedding")
    record = features_of(plain, ours)
    assert record.needed
    assert not record.problem
