"""What the features keep for the eligibility rules: purchases, hides, exact numbers, columns."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.features.build import build_features
from components.features.settings import FeatureSettings
from refit.errors import UsageError
from refit.feature_tables import read_catalogue
from refit.features import FeaturesManifest
from tests.components.features.small_market import (
    SPEC,
    SPLIT,
    Row,
    make_events,
    make_items,
    make_users,
    write_dataset,
)

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

RULE = """
ITEM_COLUMNS = ("weight", "maker")
QUERY_COLUMNS = ("age", "country", "shoe_size", "surface")
def find_ineligible(items, queries):
    return None
"""


@pytest.fixture
def tables() -> tuple[list[Row], list[Row], list[Row]]:
    rng = np.random.default_rng(1)
    events = make_events(rng)
    hides = [{**e, "event_type": "hide"} for e in make_events(rng, n=60)]
    hides.append({**hides[0], "user_id": "only-hides"})
    return [*events, *hides], make_items(rng), make_users()


def build(
    folder: Path, *tables: list[Row], earlier: Sequence[Row] = (), **settings: object
) -> Path:
    dataset = write_dataset(folder / "dataset", *tables, earlier=earlier)
    made = FeatureSettings.parse({"spec": SPEC, "memory_limit": "500MB", "threads": 2, **settings})
    build_features(made, dataset, folder / "features")
    return folder / "features"


def first_times(events: list[Row], kind: str) -> dict[tuple[str, str], datetime]:
    first: dict[tuple[str, str], datetime] = {}
    for event in events:
        if event["event_type"] == kind and event["event_time"] < SPLIT.end:
            pair = event["user_id"], event["item_id"]
            first[pair] = min(event["event_time"], first.get(pair, event["event_time"]))
    return first


def read_pairs(folder: Path, name: str) -> dict[tuple[str, str], datetime]:
    ids = read_catalogue(folder).strings("item_id")
    rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
    pairs = {(row["user_id"], ids[row["item_index"]]): row["event_time"] for row in rows}
    assert len(pairs) == len(rows)
    return pairs


def test_every_purchase_and_hide_is_kept_with_its_first_time(tmp_path, tables):
    folder = build(tmp_path, *tables)
    bought, hidden = (first_times(tables[0], kind) for kind in ("purchase", "hide"))
    assert len(bought) > 60
    assert read_pairs(folder, "purchases") == bought
    assert read_pairs(folder, "hides") == hidden


def test_purchases_and_hides_from_before_the_window_are_kept(tmp_path, tables):
    events, items, users = tables
    then = SPLIT.start - timedelta(days=400)
    item_id = items[0]["item_id"]
    earlier = [
        {"user_id": user, "item_id": item, "event_type": kind, "event_time": then}
        for user, item, kind in [
            ("long-gone", item_id, "purchase"),
            ("long-gone", "item of old", "purchase"),
            ("only-hid-long-ago", item_id, "hide"),
        ]
    ]
    folder = build(tmp_path, events, items, users, earlier=earlier)
    assert read_pairs(folder, "purchases")["long-gone", item_id] == then
    assert read_pairs(folder, "hides")["only-hid-long-ago", item_id] == then
    assert not any(item == "item of old" for _, item in read_pairs(folder, "purchases"))
    histories = pq.read_table(folder / "histories.parquet")["user_id"].to_pylist()
    assert {"long-gone", "only-hid-long-ago"} <= set(histories)
    assert len(histories) == len(set(histories))


def test_where_bought_items_may_come_back_purchases_are_not_kept(tmp_path, tables):
    folder = build(tmp_path, *tables, market={"stock": "replenishable"})
    assert read_pairs(folder, "purchases") == {}
    assert read_pairs(folder, "hides") == first_times(tables[0], "hide")


def test_a_hide_shows_no_interest(tmp_path, tables):
    """Without the hides every table is the same, but for the user who did nothing else."""
    events, items, users = tables
    with_hides = build(tmp_path / "with", events, items, users)
    interest = [event for event in events if event["event_type"] != "hide"]
    without = build(tmp_path / "without", interest, items, users)
    for path in sorted(without.rglob("*.parquet")):
        name = path.relative_to(without)
        if name.name == "hides.parquet":
            continue
        found = pq.read_table(with_hides / name)
        if name.name == "histories.parquet":
            found = found.filter(pa.compute.not_equal(found["user_id"], "only-hides"))
        assert found.equals(pq.read_table(path)), name
    users = pq.read_table(with_hides / "histories.parquet").to_pylist()
    assert [row["item_index"] for row in users if row["user_id"] == "only-hides"] == [[]]


def test_numbers_keep_every_digit(tmp_path, tables):
    events, items, users = tables
    prices = {item["item_id"]: 19.99 + 0.01 * i for i, item in enumerate(items)}
    items = [{**item, "price": prices[item["item_id"]]} for item in items]
    table = read_catalogue(build(tmp_path, events, items, users)).table
    found = zip(table["item_id"].to_pylist(), table["price"].to_pylist(), strict=True)
    assert dict(found) == prices


@pytest.fixture
def rule(tmp_path, monkeypatch):
    (tmp_path / "rules_of_acme.py").write_text(RULE)
    (tmp_path / "rules_of_acme_too.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "rules_of_acme:"


def write_with_columns(folder: Path, tables: tuple[list[Row], ...]) -> Path:
    """The dataset with further columns, of which the spec knows nothing."""
    write_dataset(folder, *tables)
    for name, column, values in (
        ("items", "weight", pa.array([0.1 * i for i in range(len(tables[1]))])),
        ("items", "maker", pa.array(["acme"] * len(tables[1]))),
        ("users", "shoe_size", pa.array([36.5] * len(tables[2]))),
        ("events", "surface", pa.array(["home"] * len(tables[0]))),
    ):
        path = folder / f"{name}.parquet"
        pq.write_table(pq.read_table(path).append_column(column, values), path)
    return folder


def test_columns_that_a_rule_reads_are_kept(tmp_path, tables, rule):
    dataset = write_with_columns(tmp_path / "dataset", tables)
    settings = FeatureSettings.parse({"spec": SPEC, "market": {"rules": [rule]}})
    manifest = build_features(settings, dataset, tmp_path / "features")
    assert manifest == FeaturesManifest.read(tmp_path / "features")
    assert manifest.market.all_rules[-1] == rule
    table = read_catalogue(tmp_path / "features").table
    assert table.schema.field("weight").type == pa.float64()
    assert set(table["maker"].to_pylist()) == {"acme"}
    examples = pq.read_table(tmp_path / "features/examples/test.parquet")
    assert set(examples["shoe_size"].to_pylist()) <= {36.5, None}
    assert set(examples["surface"].to_pylist()) == {"home"}
    histories = pq.read_table(tmp_path / "features/histories.parquet")
    assert 36.5 in histories["shoe_size"].to_pylist()
    refreshed = build_features(
        FeatureSettings(), dataset, tmp_path / "refreshed", like=tmp_path / "features"
    )
    assert refreshed.market == manifest.market, "a refresh keeps the rules of the champion"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rules_of_acme:", "'rules_of_acme:' needs the item column 'weight', which does not exist"),
        ("rules_of_acme_too:", "lacks ITEM_COLUMNS, QUERY_COLUMNS, find_ineligible"),
        ("rules_of_nobody:", "'rules_of_nobody:' cannot be imported: No module named"),
    ],
)
@pytest.mark.usefixtures("rule")
def test_a_rule_that_cannot_be_applied_stops_the_step(tmp_path, tables, name, message):
    with pytest.raises(UsageError, match=message):
        build(tmp_path, *tables, market={"rules": [name]})
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"market": {"rules": ["adults"]}}, "unknown eligibility rule 'adults'"),
        ({"market": {"rules": ["bought"]}}, "'bought' need not be named: it applies in every mark"),
        ({"market": {"stock": "one of a kind"}}, "one_of_a_kind"),
        ({"spec": {"target_events": ["hide"]}}, "hide shows no interest"),
        ({"spec": {"event_weights": {"hide": 0.1}}}, "hide shows no interest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        FeatureSettings.parse(settings)
