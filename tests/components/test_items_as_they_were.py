"""End to end: a count of likes, as a change feed, is the honest count wherever it is read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluation.candidates import CandidateItems
from components.evaluation.data import EvaluationData
from components.evaluation.index_check import check_index
from components.evaluation.leak_settings import LeakSettings, is_limited, list_groups
from components.evaluation.towers import TowerScorer, load_model
from components.features.build import build_features
from components.features.settings import FeatureSettings
from components.indexing.build import build_index
from components.indexing.settings import IndexSettings
from components.ingestion.ingest import ingest
from components.ingestion.settings import IngestSettings
from components.training.batches import (
    Batches,
    Snapshots,
    encode_catalogue,
    write_examples,
)
from components.training.model import TwoTowerModel
from components.training.settings import TrainSettings
from components.training.train import train
from components.training.vocabulary import learn_vocabulary
from refit.eligibility import MarketSettings
from refit.feature_tables import read_contents, read_snapshot
from refit.features import FeaturesManifest, FeatureSpec

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS, N_ITEMS, N_EVENTS = 20, 30, 900
SPEC = FeatureSpec(
    item_categorical=("brand",),
    item_numeric=("like_count",),
    history_length=6,
    popularity_half_lives_days=(7.0,),
    event_weights={"purchase": 1.0, "like": 0.5},
)
TRAINING = TrainSettings(
    max_epochs=2, batch_size=64, uniform_negatives=8, learned_size=4, content_size=4, hidden_size=4
)
Table = dict[str, Any]


@pytest.fixture(scope="module")
def market() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events, and items of today: what the shop knows of them at the end."""
    rng = np.random.default_rng(3)
    listed = [START + timedelta(hours=int(h)) for h in rng.integers(-48, 24 * 12, N_ITEMS)]
    rows = []
    for number in rng.integers(0, N_ITEMS, N_EVENTS):
        earliest = max(listed[number], START)
        span = (START + timedelta(days=DAYS) - earliest) / timedelta(seconds=1)
        at = earliest + timedelta(seconds=1 + int(rng.integers(0, int(span) - 1)))
        kind = str(rng.choice(["view", "like", "like", "purchase"]))
        rows.append((f"u{rng.integers(25)}", f"i{number:02}", kind, at))
    columns = ["user_id", "item_id", "event_type", "event_time"]
    events = pd.DataFrame(rows, columns=columns).sort_values("event_time")
    items = pd.DataFrame(
        {
            "item_id": [f"i{i:02}" for i in range(N_ITEMS)],
            "brand": [f"b{i % 3}" for i in range(N_ITEMS)],
            "listed_at": listed,
        }
    )
    return events, items


def count_likes(events: pd.DataFrame, item: str, before: datetime) -> int:
    """The definition: how many likes an item had strictly before a moment."""
    likes = events[(events.item_id == item) & (events.event_type == "like")]
    return int((likes.event_time < pd.Timestamp(before)).sum())


def change_feed(events: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """A row for each item when it is listed, and one at the very moment of each like."""
    rows = []
    for item in items.itertuples():
        likes = events[(events.item_id == item.item_id) & (events.event_type == "like")]
        times = [item.listed_at, *sorted(set(likes.event_time))]
        for n, time in enumerate(times):
            rows.append((item.item_id, item.brand, item.listed_at, float(n), time))
    return pd.DataFrame(rows, columns=[*items.columns, "like_count", "valid_from"])


@pytest.fixture(scope="module")
def features(market: tuple[pd.DataFrame, pd.DataFrame], tmp_path_factory: Any) -> Path:
    events, items = market
    folder: Path = tmp_path_factory.mktemp("likes")
    tables = {"events": events, "items": change_feed(events, items).sample(frac=1, random_state=0)}
    (folder / "source").mkdir()
    for name, table in tables.items():
        pq.write_table(pa.Table.from_pandas(table), folder / "source" / f"{name}.parquet")
    end = START + timedelta(days=DAYS)
    split = {"validation_days": 3, "test_days": 4, "end": end, "as_of": end}
    made = IngestSettings.parse({"source": "files", "path": str(folder / "source"), **split})
    ingest(made, folder / "dataset")
    settings = FeatureSettings(spec=SPEC, market=MarketSettings(stock="replenishable"))
    build_features(settings, folder / "dataset", folder / "features")
    return folder / "features"


@pytest.fixture(scope="module")
def honest(market: tuple[pd.DataFrame, pd.DataFrame], features: Path) -> pd.DataFrame:
    """[items, snapshots] the likes that were known at each snapshot."""
    manifest = FeaturesManifest.read(features)
    ids = read_contents(features).strings("item_id")[:N_ITEMS]
    return pd.DataFrame(
        [[count_likes(market[0], item, time) for time in manifest.snapshots] for item in ids]
    )


def test_the_count_needs_no_word(features: Path) -> None:
    manifest = FeaturesManifest.read(features)
    assert manifest.undeclared == ()
    assert manifest.versioned == ("items.like_count",)
    limited = [
        group.name
        for group in list_groups(SPEC)
        if is_limited(LeakSettings(listing_columns=()), group, manifest.versioned)
    ]
    assert "items.like_count" not in limited
    assert "items.brand" in limited


def test_training_reads_the_count_of_the_moment(features: Path, honest: pd.DataFrame) -> None:
    manifest, contents = FeaturesManifest.read(features), read_contents(features)
    splits = ("train", "validation")
    popularity = read_snapshot(features, 3)[2]
    vocabulary = learn_vocabulary(manifest, features, contents, splits, popularity, 100)
    examples = [
        pq.read_table(features / f"examples/{split}.parquet").to_pandas() for split in splits
    ]
    joined = pd.concat(examples)
    counts = honest.to_numpy()[joined.item_index, joined.snapshot]
    mean, deviation = vocabulary.scales["item_like_count"]
    assert mean == pytest.approx(counts.mean())
    assert deviation == pytest.approx(counts.std())

    model = TwoTowerModel(TRAINING, manifest, vocabulary)
    encoded = write_examples(
        model.query_tower.encode, manifest, features, splits, features.parent / "encoded"
    )
    encoded.codes["snapshot"] = np.array(encoded.snapshot)
    catalogue = encode_catalogue(model.item_tower.encode, manifest, contents)
    items = np.array([int(i[1:]) for i in contents.strings("item_id")])
    number_of = {int(i[1:]): n for n, i in enumerate(contents.strings("item_id")[:N_ITEMS])}
    seen, in_history = 0, 0
    for batch in Batches(TRAINING, encoded, Snapshots(manifest, features, 64)).of_epoch(1):
        (snapshot,) = set(batch["query/snapshot"].tolist())
        numbers = catalogue["numbers"][batch["item"], 0]
        found = numbers * deviation + mean
        known = [honest.iloc[number_of[i], snapshot] for i in items[batch["item"]]]
        inside = np.abs(numbers) < 4  # larger ones are clipped
        np.testing.assert_allclose(found[inside], np.array(known)[inside], atol=1e-3)
        seen += inside.sum()
        in_history += (batch["history_row"] >= 0).sum()
    assert seen > 200
    assert in_history > 500


class CountingTowers(TowerScorer):
    """Towers whose content vector of an item is its count of likes."""

    def __init__(self, data: EvaluationData) -> None:
        self._data, self._manifest = data, data.manifest
        self._popularity = lambda snapshot: snapshot.popularity
        self._static = self._read_items()

    def run_item_tower(self, inputs: Table) -> Table:
        return {"content": inputs["item_like_count"][:, None]}


def test_the_evaluation_reads_the_count_of_the_moment(features: Path, honest: pd.DataFrame) -> None:
    data = EvaluationData(features)
    towers = CountingTowers(data)
    likes = honest.to_numpy()
    for number in range(len(data.manifest.snapshots)):
        snapshot = data.read_candidates(number)
        found = towers.item_inputs(snapshot)["item_like_count"]
        assert found.tolist() == likes[snapshot.items, number].tolist()
        assert CandidateItems(data, snapshot).column("like_count").values.tolist() == found.tolist()
    for split in ("validation", "test"):
        queries = data.queries[split]
        read_at = data.log.snapshot[queries.rows]
        past = queries.history.item
        content = towers.embed_history(queries)[:, :, 0]
        expected = np.where(past >= 0, likes[past, read_at[:, None]], 0)
        assert content.tolist() == expected.tolist()
        assert (past >= 0).sum() > 50
    positive = data.catalogue.contents["like_count"].to_numpy()[data.log.content]
    assert positive.tolist() == likes[data.log.item, data.log.snapshot].tolist()


def test_the_index_agrees_with_the_evaluation_and_has_the_newest(
    market: tuple[pd.DataFrame, pd.DataFrame], features: Path, tmp_path: Path
) -> None:
    train(TRAINING, features, tmp_path / "model")
    build_index(IndexSettings(), features, tmp_path / "model", tmp_path / "index")
    data = EvaluationData(features)
    towers = load_model(data, tmp_path / "model")
    found = check_index(
        tmp_path / "index", data, towers, towers.run_query_tower(data.queries["test"]).vectors
    )
    assert found.vector_gap is not None
    assert found.vector_gap < 1e-5
    end = START + timedelta(days=DAYS)
    shown = pq.read_table(tmp_path / "index/items.parquet", columns=["item_id", "like_count"])
    assert shown.num_rows > 20
    for row in shown.to_pylist():
        assert row["like_count"] == count_likes(market[0], row["item_id"], end)


def test_no_example_reads_its_own_event_or_a_later_one(
    market: tuple[pd.DataFrame, pd.DataFrame], features: Path
) -> None:
    """Nothing is newer than the example; the index has the newest."""
    events, _ = market
    data = EvaluationData(features)
    ids = data.catalogue.item_id
    count = data.catalogue.contents["like_count"].to_numpy()
    for item, content, time in zip(data.log.item, data.log.content, data.log.time, strict=True):
        now = pd.Timestamp(int(time), unit="us", tz="UTC")
        assert count[content] <= count_likes(events, ids[item], now)
    end = START + timedelta(days=DAYS)
    latest = data.catalogue.table["like_count"].to_pylist()
    assert latest == [count_likes(events, item, end) for item in ids]
