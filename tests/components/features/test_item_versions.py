"""Items in versions: every snapshot reads the version that was valid strictly before it."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.features.build import build_features
from components.features.settings import FeatureSettings
from refit.dataset import ITEM_VERSIONS_FILE
from refit.eligibility import MarketSettings
from refit.errors import DataValidationError
from refit.feature_tables import ItemTimes, ItemVersions, read_contents, read_versions
from refit.features import FeaturesManifest
from tests.components.features.small_market import (
    DAY,
    SPEC,
    SPLIT,
    START,
    TIME,
    Row,
    SlowFeatures,
    make_events,
    make_items,
    make_users,
    write_dataset,
)

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

SETTINGS = FeatureSettings(
    spec=SPEC.model_copy(
        update={"item_numeric": ("price", "like_count"), "static": ("price", "height")}
    ),
    market=MarketSettings(stock="replenishable"),
    memory_limit="500MB",
    threads=2,
)
READ = ("brand", "title", "price", "like_count", "image_embedding")


def make_versions(rng: np.random.Generator, items: list[Row]) -> list[Row]:
    """Several rows an item, some from before it is listed, some only from later on."""
    rows = []
    for item in items:
        start = item["listed_at"] or START + timedelta(hours=3 * int(rng.integers(0, 60)))
        start += timedelta(hours=6 * int(rng.choice([-4, 0, 0, 0, 1])))
        for i in range(int(rng.integers(1, 9))):
            rows.append(
                item
                | {
                    "valid_from": start,
                    "like_count": float(i),
                    "title": item["title"] if i < 3 else f"{item['title']}, last one",
                    "brand": rng.choice(["A", "B"]) if i == 5 else item["brand"],
                    "image_embedding": None if i == 4 else item["image_embedding"],
                }
            )
            start += timedelta(hours=3 * int(rng.integers(1, 20)))
    return [row for row in rows if row["valid_from"] < SPLIT.end or row["like_count"] == 0.0]


def write_versions(folder: Path, events: list[Row], versions: list[Row], users: list[Row]) -> Path:
    """Write a dataset folder as the ingestion step does for items in versions."""
    known = [row for row in versions if row["valid_from"] < SPLIT.end]
    latest = {row["item_id"]: row for row in sorted(known, key=lambda row: row["valid_from"])}
    items = [{k: v for k, v in row.items() if k != "valid_from"} for row in latest.values()]
    write_dataset(folder, events, items, users)
    schema = pq.read_schema(folder / "items.parquet").append(pa.field("valid_from", TIME))
    pq.write_table(pa.Table.from_pylist(known, schema), folder / ITEM_VERSIONS_FILE)
    return folder


def content_at(versions: list[Row], known_at: datetime, snapshot: datetime) -> Row:
    """What an item was strictly before a snapshot; as it was listed, if that was later."""
    rows = sorted(versions, key=lambda row: row["valid_from"])
    rows = [row for row in rows if row["valid_from"] < SPLIT.end]
    before = [row for row in rows if row["valid_from"] < snapshot]
    if before:
        return before[-1]
    first = rows[0]["valid_from"]
    as_listed = first == known_at == rows[0]["listed_at"]
    return rows[0] if first < known_at or as_listed else dict.fromkeys(READ)


@pytest.mark.parametrize("seed", range(4))
def test_every_snapshot_reads_the_version_of_its_moment(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    events, items, users = make_events(rng), make_items(rng), make_users()
    versions = make_versions(rng, items)
    there = {row["item_id"] for row in versions if row["valid_from"] < SPLIT.end}
    events = [event for event in events if event["item_id"] in there]
    items = [item for item in items if item["item_id"] in there]
    settings = SETTINGS.model_copy(update={"frozen_at_cut": seed == 3})
    dataset = write_versions(tmp_path / "dataset", events, versions, users)
    manifest = build_features(settings, dataset, tmp_path / "features")
    slow = SlowFeatures(settings, events, items, users)
    contents, found = read_contents(tmp_path / "features"), read_versions(tmp_path / "features")
    numbers = np.arange(len(slow.items), dtype=np.int32)
    columns = {name: contents.table[name].to_pylist() for name in ("item_id", *READ)}
    read = set()
    for snapshot, time in zip(manifest.snapshots, manifest.snapshot_times, strict=True):
        rows = found.rows_at(numbers, int(time))
        read |= {*rows.tolist()}
        for item, row in zip(slow.items, rows, strict=True):
            own = [v for v in versions if v["item_id"] == item["item_id"]]
            expected = content_at(own, item["known_at"], snapshot)
            assert columns["item_id"][row] == item["item_id"]
            assert {name: columns[name][row] for name in READ} == {
                name: expected[name] for name in READ
            }
    assert read == {*range(len(contents))}, "a row that no snapshot reads is not written"
    assert len(contents) > 2 * found.n_items
    assert manifest.versioned == (
        "items.brand",
        "items.like_count",
        "items.title",
        "items.image_embedding",
    )
    assert manifest.undeclared == ()


def test_a_number_that_never_changes_from_version_to_version_needs_the_word(
    tmp_path: Path,
) -> None:
    """It is perhaps today's, joined to every version."""
    rng = np.random.default_rng(0)
    events, items, users = make_events(rng), make_items(rng), make_users()
    versions = [v | {"like_count": 3.0} for item in items for v in make_versions(rng, [item])]
    versions = [v | {"valid_from": min(v["valid_from"], SPLIT.end - DAY)} for v in versions]
    dataset = write_versions(tmp_path / "dataset", events, versions, users)
    manifest = build_features(SETTINGS, dataset, tmp_path / "features")
    assert manifest.undeclared == ("items.like_count",)


def test_without_versions_nothing_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = [{**one, "like_count": 1.0} for one in make_items(rng)]
    dataset = write_dataset(tmp_path / "dataset", make_events(rng), items, make_users())
    build_features(SETTINGS, dataset, tmp_path / "features")
    assert not (tmp_path / "features/versions.parquet").exists()
    assert "versioned" not in (tmp_path / "features/features.json").read_text()
    found = read_versions(tmp_path / "features")
    assert found.rows_at(np.array([3, -1, 0], np.int32), 0).tolist() == [3, -1, 0]
    assert len(read_contents(tmp_path / "features")) == found.n_items == len(items)


def test_features_for_an_index_have_no_older_version(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = make_items(rng)
    versions = [v for v in make_versions(rng, items) if v["valid_from"] < SPLIT.end]
    there = {row["item_id"] for row in versions}
    events = [event for event in make_events(rng) if event["item_id"] in there]
    dataset = write_versions(tmp_path / "dataset", events, versions, make_users())
    full = build_features(SETTINGS, dataset, tmp_path / "full")
    build_features(SETTINGS, dataset, tmp_path / "now", like=tmp_path / "full")
    now = FeaturesManifest.read(tmp_path / "now")
    assert now.versioned == full.versioned
    assert len(read_contents(tmp_path / "now")) == read_versions(tmp_path / "full").n_items


def test_an_older_vector_of_another_length_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items, events = make_items(rng), make_events(rng)
    start = START - 30 * DAY
    versions = [item | {"valid_from": start, "like_count": 0.0} for item in items]
    versions.append(versions[1] | {"valid_from": START + DAY})
    versions[1] = versions[1] | {"image_embedding": [1.0]}
    dataset = write_versions(tmp_path / "dataset", events, versions, make_users())
    with pytest.raises(DataValidationError, match=r"must have one length, found \[1, 2\]"):
        build_features(SETTINGS, dataset, tmp_path / "features")


@pytest.mark.parametrize(
    ("versions", "gone", "away"),
    [
        (((0, 0, None), (5, 0, 5), (8, 0, None)), None, [(5, 8)]),  # it is back, nothing else new
        (((0, 0, None), (5, 0, 5), (9, 8, None)), None, [(5, 8)]),  # listed again
        (((0, 0, 9), (4, 0, 12)), 12, []),  # a planned end was moved
        (((0, 0, 12), (4, 0, 12)), 12, []),  # the end was joined to every version
        (((0, 0, None), (5, 0, 5), (7, 0, 5)), 5, []),  # edited after the end
    ],
)
def test_versions_say_when_a_listing_ends_and_begins_again(
    tmp_path: Path,
    versions: tuple[tuple[float, float, float | None], ...],
    gone: float | None,
    away: list[tuple[float, float]],
) -> None:
    def at(day: float | None) -> datetime | None:
        return None if day is None else START + day * DAY

    other = {**make_items(np.random.default_rng(0))[0], "item_id": "z", "like_count": 0.0}
    rows = [
        other | {"valid_from": at(since), "listed_at": at(listed), "delisted_at": at(end)}
        for since, listed, end in versions
    ]
    plain = other | {"item_id": "y", "listed_at": None, "delisted_at": None, "valid_from": START}
    events = [
        event | {"item_id": "y", "event_type": "purchase", "event_time": START + day * DAY}
        for event, day in zip(
            make_events(np.random.default_rng(0), 3)[:3], (1, 13, 17), strict=True
        )
    ]
    dataset = write_versions(tmp_path / "dataset", events, [*rows, plain], make_users())
    build_features(SETTINGS, dataset, tmp_path / "features")
    catalogue = pq.read_table(tmp_path / "features/items.parquet").to_pylist()
    number = [row["item_id"] for row in catalogue].index("z")
    assert catalogue[number]["gone_at"] == at(gone)
    pauses = pq.read_table(tmp_path / "features/away.parquet").to_pylist()
    found = [(row["gone_at"], row["back_at"]) for row in pauses if row["item_index"] == number]
    assert found == [(at(one), at(two)) for one, two in away]


def test_rows_are_found_for_many_items_and_times_at_once() -> None:
    versions = ItemVersions(3, ItemTimes(np.array([0, 0, 2], np.int32), np.array([10, 20, 10])))
    items = np.array([[0, 1, 2, -1]] * 4, np.int32)
    times = np.array([[10], [11], [20], [21]], np.int64)
    assert versions.rows_at(items, times).tolist() == [
        [3, 1, 5, -1],
        [4, 1, 2, -1],
        [4, 1, 2, -1],
        [0, 1, 2, -1],
    ]
