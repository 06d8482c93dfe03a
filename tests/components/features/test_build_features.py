import itertools
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.features.build import build_features
from components.features.settings import FeatureSettings
from refit.dataset import DatasetManifest
from refit.eligibility import MarketSettings
from refit.errors import DataValidationError, RefitError, UsageError
from refit.feature_tables import read_catalogue, read_snapshot
from refit.features import FeaturesManifest, FeatureSpec
from tests.components.features.small_market import (
    DAY,
    SPEC,
    SPLIT,
    START,
    Row,
    SlowFeatures,
    make_events,
    make_items,
    make_users,
    write_dataset,
)

# ibis 12 still calls DuckDB by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

SPLITS = ("train", "validation", "test")
WRITTEN = (*SPLITS, "requests")


def market(seed: int) -> tuple[list[Row], list[Row], list[Row]]:
    rng = np.random.default_rng(seed)
    return make_events(rng), make_items(rng), make_users()


def settings(frozen: bool = False, **spec: object) -> FeatureSettings:
    return FeatureSettings(
        spec=SPEC.model_copy(update=spec),
        frozen_at_cut=frozen,
        request_days=4,  # as long as the test window
        memory_limit="500MB",
        threads=2,
    )


def build(tmp_path: Path, config: FeatureSettings, *tables: list[Row], name: str = "a") -> Path:
    dataset = write_dataset(tmp_path / f"dataset-{name}", *tables)
    build_features(config, dataset, tmp_path / f"features-{name}")
    return tmp_path / f"features-{name}"


def rows_of(folder: Path, split: str) -> list[Row]:
    rows: list[Row] = pq.read_table(folder / f"examples/{split}.parquet").to_pylist()
    return rows


def in_order(rows: list[Row]) -> list[str]:
    return sorted(str(sorted(row.items(), key=lambda pair: pair[0])) for row in plain(rows))


def plain(rows: list[Row]) -> list[Row]:
    return [{**row, "event_time": row["event_time"].isoformat()[:26]} for row in rows]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("frozen", [False, True])
def test_every_table_agrees_with_its_definition(tmp_path: Path, seed: int, frozen: bool) -> None:
    config = settings(frozen, history_within_visit=bool(seed % 2))
    stock = "one_of_a_kind" if seed < 2 else "replenishable"
    kind = MarketSettings(stock=stock, gone_after_days=(None, 2.5)[seed % 2])
    config = config.model_copy(update={"market": kind})
    tables = market(seed)
    folder = build(tmp_path, config, *tables)
    slow = SlowFeatures(config, *tables)
    manifest = FeaturesManifest.read(folder)

    catalogue = read_catalogue(folder)
    assert list(catalogue.strings("item_id")) == [item["item_id"] for item in slow.items]
    gone_at = catalogue.table["gone_at"].to_pylist()
    assert gone_at == [slow.gone_at(item) for item in slow.items]
    away = pq.read_table(folder / "away.parquet").to_pylist()
    pauses = [(i, *pause) for i, item in enumerate(slow.items) for pause in slow.pauses(item)]
    assert sorted((r["item_index"], r["gone_at"], r["back_at"]) for r in away) == sorted(pauses)
    assert list(manifest.snapshots) == slow.snapshots
    for window, split in ((0, "train"), (1, "validation"), (2, "test"), (2, "requests")):
        found = rows_of(folder, split)
        assert in_order(found) == in_order(slow.examples(window, requests=split == "requests"))
        assert found == sorted(found, key=lambda row: row["event_time"])
    for i in range(len(slow.snapshots)):
        index, age_days, popularity = read_snapshot(folder, i)
        assert set(index) == slow.live(i)
        assert list(index) == sorted(set(index))
        known = [slow.items[n]["known_at"] for n in index]
        ages = [max((slow.snapshots[i] - time) / DAY, 0) for time in known]
        np.testing.assert_allclose(age_days, ages, rtol=1e-6)
        values = dict(manifest.popularity_values)
        expected = [slow.popularity(i, n, values) for n in index]
        np.testing.assert_allclose(popularity, expected, rtol=1e-4, atol=1e-5)
    for row in pq.read_table(folder / "histories.parquet").to_pylist():
        latest = slow.latest(row["user_id"], SPLIT.end)
        assert row["item_index"] == [slow.index[e["item_id"]] for e in latest]
        assert row["event_type"] == [e["event_type"] for e in latest]
        assert row["event_time"] == [e["event_time"] for e in latest]


def test_counted_values_are_the_most_frequent_of_training_only(tmp_path: Path) -> None:
    events, items, users = market(7)
    flood = [
        {**e, "size": "LATE"}
        for e in events
        for _ in range(5)
        if e["event_time"] >= SPLIT.test_start
    ]
    folder = build(tmp_path, settings(), [*events, *flood], items, users)
    seen = Counter(
        e["size"]
        for e in events
        if e["event_time"] < SPLIT.validation_start and e["event_type"] != "view" and e["size"]
    )
    top = sorted(seen, key=lambda size: (-seen[size], size))[: SPEC.popularity_values]
    values = FeaturesManifest.read(folder).popularity_values
    assert values == {"size": tuple(top), "age": ("0", "1", "2")}
    assert len(seen) > SPEC.popularity_values


def change_future(
    rng: np.random.Generator, tables: tuple[list[Row], ...], t
) -> tuple[list[Row], ...]:
    """The same market before ``t``, and another one after it."""
    events, items, users = tables
    past = [e for e in events if e["event_time"] < t]
    future = make_events(rng, n=250, start=t)
    touched = {e["item_id"] for e in past}
    changed = []
    for item in items:
        item = dict(item)
        if item["delisted_at"] is not None and item["delisted_at"] >= t:
            item["delisted_at"] = rng.choice([None, t + 3 * DAY])
        if item["listed_at"] is not None and item["listed_at"] >= t:
            item["listed_at"] += timedelta(hours=int(rng.integers(0, 40)))
        elif item["listed_at"] is None and item["item_id"] not in touched and rng.random() < 0.5:
            item["listed_at"] = t + DAY
        changed.append(item)
    new = [{**items[0], "item_id": "new", "listed_at": t + DAY, "delisted_at": None}]
    return [*past, *future], [*changed, *new], users


def named(folder: Path, i: int) -> dict[str, tuple[float, dict[str, float]]]:
    """Age of each item, and its counts by name without the zeros."""
    manifest = FeaturesManifest.read(folder)
    spec = manifest.spec
    names = [
        f"{half}/{column}/{value}"
        for half in spec.popularity_half_lives_days
        for column, values in [
            ("", ("",)),
            *((column, manifest.popularity_values[column]) for column in spec.popularity_by),
        ]
        for value in values
    ]
    ids = read_catalogue(folder).strings("item_id")
    index, age_days, popularity = read_snapshot(folder, i)
    assert popularity.shape[1] == len(names) == manifest.popularity_size
    return {
        ids[n]: (float(age), {k: float(v) for k, v in zip(names, counts, strict=True) if v})
        for n, age, counts in zip(index, age_days, popularity, strict=True)
    }


@pytest.mark.parametrize(
    ("hours", "frozen"),
    [
        *((hours, False) for hours in (100, 11 * 24, 12 * 24, 13 * 24 + 3, 16 * 24, 17 * 24 + 9)),
        *((hours, True) for hours in (100, 13 * 24 + 3, 17 * 24 + 9)),
    ],
)
def test_no_row_depends_on_later_data(tmp_path: Path, hours: int, frozen: bool) -> None:
    t = START + timedelta(hours=hours)
    tables = market(hours)
    # Every value is counted, so that only their order can depend on all of training.
    config = settings(frozen, popularity_values=50)
    one = build(tmp_path, config, *tables, name="one")
    changed = change_future(np.random.default_rng(hours + 1), tables, t)
    two = build(tmp_path, config, *changed, name="two")

    known = [pq.read_table(f / "items.parquet").to_pylist() for f in (one, two)]
    before = [[row["item_id"] for row in rows if row["known_at"] < t] for rows in known]
    assert before[0] == before[1]
    n_rows = 0
    for split in WRITTEN:
        first, second = ([r for r in rows_of(f, split) if r["event_time"] < t] for f in (one, two))
        assert first == second
        n_rows += len(first)
    assert n_rows > 20
    times = FeaturesManifest.read(one).snapshots
    for i, (time, following) in enumerate(itertools.pairwise(times)):
        if time > t:
            break
        first, second = named(one, i), named(two, i)
        if following <= t:
            assert first.keys() == second.keys()
        for item_id in first.keys() & second.keys():
            if item_id in before[0]:
                assert first[item_id] == second[item_id]
            else:
                assert first[item_id][1] == second[item_id][1] == {}


def test_requests_are_all_visits_or_an_even_sample(tmp_path: Path) -> None:
    tables = market(2)
    everything = rows_of(build(tmp_path, settings(), *tables, name="all"), "requests")
    assert {row["event_type"] for row in everything} == {"view", "like", "purchase"}
    few = settings().model_copy(update={"max_requests": 7})
    kept = rows_of(build(tmp_path, few, *tables, name="few"), "requests")
    assert len(kept) == 7 < len(everything)
    positions = [everything.index(row) for row in kept]
    gaps = np.diff([-1, *positions])
    assert gaps.max() - gaps.min() <= 1


def test_requests_reach_back_into_earlier_windows(tmp_path: Path) -> None:
    tables = market(2)
    config = settings().model_copy(update={"request_days": 10.0})
    found = rows_of(build(tmp_path, config, *tables), "requests")
    slow = SlowFeatures(config, *tables)
    since = START + 10 * DAY
    earlier = [
        row for i in (0, 1) for row in slow.examples(i, requests=True) if row["event_time"] >= since
    ]
    assert {row["snapshot"] for row in earlier}
    assert in_order(found) == in_order(earlier + slow.examples(2, requests=True))
    assert found == sorted(found, key=lambda row: row["event_time"])


def test_events_after_a_recommendation_are_in_training_but_not_in_evaluation(
    tmp_path: Path,
) -> None:
    def with_request(row: Row, request_id: str | None) -> Row:
        return {**row, "request_id": request_id}

    organic = [with_request(row, None) for row in EACH_SPLIT]
    recommended = [with_request(event("y", day), "answer-1") for day in (1.5, 13.5, 17.5)]
    empty = with_request(event("z", 17.7), "")
    items = [item("x", 0), item("y", 0), item("z", 0)]

    def items_by_split(settings: FeatureSettings, name: str) -> dict[str, list[int]]:
        events = [*organic, *recommended, empty]
        folder = build(tmp_path, settings, events, items, USERS, name=name)
        return {split: [row["item_index"] for row in rows_of(folder, split)] for split in SPLITS}

    default = items_by_split(settings(), "default")
    assert 1 in default["train"]
    assert 1 not in default["validation"] + default["test"]
    assert 2 in default["test"]
    all_events = settings().model_copy(update={"evaluate_recommended": True})
    everything = items_by_split(all_events, "all")
    assert 1 in everything["validation"]
    assert 1 in everything["test"]


def minutes(number: float) -> float:
    """So many minutes after day 17, in days."""
    return 17 + number / (24 * 60)


def test_without_sessions_a_visit_ends_with_a_gap(tmp_path: Path) -> None:
    views = [event("y", minutes(at), "view") for at in (20, 50, 81)]
    other = event("x", minutes(60), "view", user="b")
    items = [item("x", 0), item("y", 0), item("z", 0)]
    config = settings(visit_gap_minutes=30)
    folder = build(tmp_path, config, [*EACH_SPLIT, *views, other], items, USERS)
    found = [
        (row["user_id"], row["event_type"], row["event_time"] - START - 17 * DAY)
        for row in rows_of(folder, "requests")
    ]
    assert found == [
        ("a", "purchase", timedelta(0)),
        ("b", "view", timedelta(minutes=60)),
        ("a", "view", timedelta(minutes=81)),
    ]


@pytest.mark.parametrize(
    ("view", "purchase", "known"),
    [
        pytest.param(None, None, ["z", "z", "z"], id="never known"),
        pytest.param("visit", "visit", ["z", "z", "z"], id="always known"),
        pytest.param(None, "visit", ["z", "z", "z"], id="view without"),
        pytest.param("visit", "", ["z", "z", "z"], id="purchase without"),
        pytest.param("one", "two", ["y", "z", "z", "z"], id="split by the shop"),
    ],
)
def test_a_purchase_is_not_predicted_from_its_own_visit(
    tmp_path: Path, view: str | None, purchase: str | None, known: list[str]
) -> None:
    """A view of y, then ten minutes later a purchase; z was bought before."""
    earlier = [{**event("z", day), "session_id": f"{day}"} for day in (1, 13, 16.9)]
    viewed = {**event("y", minutes(0), "view"), "session_id": view}
    bought = {**event("x", minutes(10)), "session_id": purchase}
    items = [item("x", 0), item("y", 0), item("z", 0)]
    config = settings(visit_gap_minutes=30)
    folder = build(tmp_path, config, [*earlier, viewed, bought], items, USERS)
    (found,) = (r for r in rows_of(folder, "test") if r["event_time"] == bought["event_time"])
    ids = read_catalogue(folder).strings("item_id")
    assert [ids[i] for i in found["history_item"]] == known


def test_what_visits_rest_on_is_stated(tmp_path: Path) -> None:
    rows = [*EACH_SPLIT, event("y", minutes(10), "view"), event("x", minutes(20), "view")]
    named = [{**row, "session_id": f"s{i}"} for i, row in enumerate(rows)]
    items = [item("x", 0), item("y", 0), item("z", 0)]
    for name, events, shown, states in (
        ("without", rows, "5 of 5 (100.0%); their 3 visits are assumed", ["look", "ok"]),
        ("split", named, "0 of 5 (0.0%)", ["ok", "look"]),
    ):
        config = settings(visit_gap_minutes=30)
        health = FeaturesManifest.read(
            build(tmp_path, config, events, items, USERS, name=name)
        ).health
        assert health[0].shown.startswith(shown)
        assert [check.state for check in health[:2]] == states


def test_a_changed_history_is_detected(tmp_path: Path) -> None:
    """The previous test can fail: the same comparison detects a removed earlier event."""
    events, items, users = market(3)
    one = build(tmp_path, settings(), events, items, users, name="one")
    fewer = [e for e in events if e["event_time"] != events[0]["event_time"]]
    two = build(tmp_path, settings(), fewer, items, users, name="two")
    later = [
        [r for r in rows_of(f, "test") if r["event_time"] >= SPLIT.test_start] for f in (one, two)
    ]
    snapshots = [named(f, len(FeaturesManifest.read(f).snapshots) - 1) for f in (one, two)]
    assert later[0] != later[1] or snapshots[0] != snapshots[1]


def event(item: str, day: float, kind: str = "purchase", user: str = "a") -> Row:
    time = START + day * DAY
    return {
        "user_id": user,
        "item_id": item,
        "event_type": kind,
        "event_time": time,
        "size": "S",
        "occasion": None,
        "age": None,
    }


def item(name: str, listed: float | None = None, gone: float | None = None) -> Row:
    return {
        "item_id": name,
        "brand": None,
        "price": None,
        "title": None,
        "image_embedding": [0.0, 0.0],
        "listed_at": None if listed is None else START + listed * DAY,
        "delisted_at": None if gone is None else START + gone * DAY,
    }


FOUR = ("user_id", "item_id", "event_type", "event_time")
EACH_SPLIT = [event("z", 1), event("z", 13), event("z", 17)]
USERS = [{"user_id": "a", "country": None, "height": None}]


def test_decayed_counts_by_hand(tmp_path: Path) -> None:
    config = settings(snapshot_every_days=1.0, popularity_half_lives_days=(2.0,), popularity_by=())
    events = [event("x", 0), event("x", 2), event("x", 2, "like"), event("x", 4), *EACH_SPLIT]
    folder = build(tmp_path, config, events, [item("x", -3), item("z", 0)], USERS)
    assert named(folder, 4)["x"] == (7.0, {"2.0//": pytest.approx(0.25 + 0.5 + 0.25)})
    # An event at the time of the snapshot is not counted in it.
    assert named(folder, 0)["x"] == (3.0, {})


def test_an_item_is_in_snapshots_until_it_is_sold_and_in_that_of_its_examples(
    tmp_path: Path,
) -> None:
    config = settings(snapshot_every_days=1.0)
    sold_at_snapshot, seen_after_sale = event("x", 3), event("y", 6.5, "like")
    items = [item("x", 1.2, 3), item("y", 0, 5.2), item("z", 0), item("never"), item("end", 0, 20)]
    folder = build(tmp_path, config, [sold_at_snapshot, seen_after_sale, *EACH_SPLIT], items, USERS)
    found = {name: [] for name in ("x", "y", "never", "end")}
    last = len(FeaturesManifest.read(folder).snapshots) - 1
    for i in range(last + 1):
        for name in found.keys() & named(folder, i).keys():
            found[name].append(i)
    assert found == {
        "x": [1, 2, 3],
        "y": [0, 1, 2, 3, 4, 5, 6],
        "never": [last],
        "end": list(range(last)),
    }


def live_at_the_end(folder: Path) -> set[str]:
    return {*named(folder, len(FeaturesManifest.read(folder).snapshots) - 1)}


def test_a_purchase_ends_a_listing_where_stock_is_one_of_a_kind(tmp_path: Path) -> None:
    items = [item("x", 0), item("again", 15), item("z", 0)]
    events = [event("x", 6), event("x", 9, "view"), event("again", 6), *EACH_SPLIT]
    unique = build(tmp_path, settings(), events, items, USERS, name="unique")
    assert live_at_the_end(unique) == {"again"}, "listed again on day 15"
    assert [c.shown for c in FeaturesManifest.read(unique).health if "already" in c.name] == [
        "2 of 5 (40.0%)"
    ], "z was bought three times"
    away = pq.read_table(unique / "away.parquet").to_pylist()
    assert [(row["gone_at"], row["back_at"]) for row in away] == [
        (START + 6 * DAY, START + 15 * DAY)
    ]
    again = settings().model_copy(update={"market": MarketSettings(stock="replenishable")})
    folder = build(tmp_path, again, events, items, USERS, name="again")
    assert live_at_the_end(folder) == {"x", "again", "z"}


def test_purchases_from_before_the_window_end_listings(tmp_path: Path) -> None:
    items = [item("x", -9), item("z", 0)]
    dataset = write_dataset(
        tmp_path / "d", EACH_SPLIT, items, USERS, [{k: event("x", -5)[k] for k in FOUR}]
    )
    build_features(settings(), dataset, tmp_path / "f")
    assert "x" not in live_at_the_end(tmp_path / "f")


def test_an_item_is_taken_for_gone_after_silence_until_its_next_event(tmp_path: Path) -> None:
    market = MarketSettings(stock="replenishable", gone_after_days=3)
    config = settings(snapshot_every_days=1.0).model_copy(update={"market": market})
    items = [item("x", 0), item("z", 0)]
    events = [event("x", 8.5, "view"), *EACH_SPLIT]
    folder = build(tmp_path, config, events, items, USERS)
    last = len(FeaturesManifest.read(folder).snapshots) - 1
    live = [i for i in range(last + 1) if "x" in named(folder, i)]
    assert live == [0, 1, 2, 8, 9, 10, 11]
    (ends,) = (c for c in FeaturesManifest.read(folder).health if "end is assumed" in c.name)
    assert ends.shown == "2 of 2 (100.0%): 2 without an event for 3 days"


def test_listings_that_nothing_ends_are_refused_once_most_are_silent(tmp_path: Path) -> None:
    stale = [{k: v for k, v in item(f"s{i}", 0).items() if k != "delisted_at"} for i in range(3)]
    fresh = [
        {**one, "item_id": f"f{i}", "listed_at": START + 18 * DAY} for i, one in enumerate(stale)
    ]
    sold = {**stale[0], "item_id": "z"}
    few = [stale[0], *fresh, sold]
    health = FeaturesManifest.read(
        build(tmp_path, settings(), EACH_SPLIT, few, USERS, name="few")
    ).health
    (silent,) = (check for check in health if "14 days" in check.name)
    assert (silent.shown, silent.state) == ("1 of 4 (25.0%)", "look")
    most = [*stale, fresh[0], sold]
    with pytest.raises(
        DataValidationError, match=r"75\.0%.* set features\.market\.gone_after_days"
    ):
        build(tmp_path, settings(), EACH_SPLIT, most, USERS, name="most")
    for market in (MarketSettings(gone_after_days=99), MarketSettings(stock="replenishable")):
        config = settings().model_copy(update={"market": market})
        build(tmp_path, config, EACH_SPLIT, most, USERS, name=market.stock)


def test_without_optional_columns(tmp_path: Path) -> None:
    bare = FeatureSettings()
    events = [{k: e[k] for k in list(e)[:4]} for e in EACH_SPLIT]
    dataset = write_dataset(tmp_path / "d", events, [{"item_id": "z"}], [{"user_id": "b"}])
    DatasetManifest.read(dataset).model_copy(update={"context_columns": ()}).write(dataset)
    manifest = build_features(bare, dataset, tmp_path / "f")
    assert manifest.popularity_size == 2
    assert rows_of(tmp_path / "f", "test")[0]["history_age_days"] == [4.0, 16.0]
    users = pq.read_table(tmp_path / "f/histories.parquet").to_pylist()
    assert [row["user_id"] for row in users] == ["a", "b"]
    assert users[1]["item_index"] == []


def test_like_keeps_spec_and_values_and_writes_what_an_index_needs(tmp_path: Path) -> None:
    tables = market(5)
    full = build(tmp_path, settings(), *tables)
    build_features(
        FeatureSettings(), tmp_path / "dataset-a", tmp_path / "now", like=tmp_path / "features-a"
    )
    now, then = FeaturesManifest.read(tmp_path / "now"), FeaturesManifest.read(full)
    assert (now.spec, now.popularity_values) == (then.spec, then.popularity_values)
    assert (now.vector_size, now.snapshots) == (then.vector_size, (SPLIT.end,))
    assert not (tmp_path / "now/examples").exists()
    last = len(then.snapshots) - 1
    old, new = named(full, last), named(tmp_path / "now", 0)
    assert old.keys() == new.keys()
    for item_id, (age, counts) in old.items():
        assert new[item_id][0] == age
        assert new[item_id][1] == pytest.approx(counts, rel=1e-4, abs=2e-6)


def test_wrong_column_lists_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'colour'; they have: .*brand"):
        build(tmp_path, settings(item_categorical=("colour",)), *market(0))
    assert not (tmp_path / "features-a").exists()


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"context_numeric": ("price",)}, "'price' is known only because the event happened"),
        ({"popularity_by": ("item_id",)}, "'item_id' is known only because"),
        ({"context_categorical": ("request_id",)}, "'request_id' is known only because"),
        ({"item_categorical": ("delisted_at",)}, "'delisted_at' is known only when the listing"),
        ({"static": ("like_count",)}, "static: no item or user column .*'like_count'"),
    ],
)
def test_what_is_known_only_afterwards_is_no_input(spec: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        FeatureSpec.parse(spec)


def test_numbers_and_times_that_are_not_declared_static_are_named(tmp_path: Path) -> None:
    events, items, users = market(0)
    items = [{**one, "like_count": 3.0, "seen_at": START} for one in items]
    named = {"item_categorical": ("brand", "seen_at"), "item_numeric": ("price", "like_count")}
    dataset = write_dataset(tmp_path / "d", events, items, users)
    for static, undeclared in (
        (("price", "height"), ("items.seen_at", "items.like_count")),
        (("like_count", "seen_at"), ("items.price", "users.height")),
        (("price", "height", "like_count", "seen_at"), ()),
    ):
        manifest = build_features(settings(**named, static=static), dataset, tmp_path / "f")
        assert manifest.undeclared == undeclared
        assert manifest.health[-1].state == ("look" if undeclared else "ok")


def test_user_columns_are_those_of_the_moment(tmp_path: Path) -> None:
    """A version that begins with the event itself is not known yet."""
    versions = [(None, "DE", 1.0), (13.5, "FR", 2.0), (17.0, "IT", 3.0), (25.0, "SE", 4.0)]
    users = [
        {
            "user_id": "a",
            "valid_from": None if since is None else START + since * DAY,
            "country": country,
            "height": height,
        }
        for since, country, height in versions
    ]
    events = [*EACH_SPLIT, event("z", 17.5), event("z", 17.6, user="b")]
    config = settings(static=("price",))
    folder = build(tmp_path, config, events, [item("z", 0)], users)
    manifest = FeaturesManifest.read(folder)
    assert manifest.undeclared == ()
    assert manifest.versioned == ("users.country", "users.height")
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    found = [(row["user_id"], row["country"], row["height"]) for row in rows]
    assert found == [
        *(("a", "DE", 1.0), ("a", "DE", 1.0), ("a", "FR", 2.0), ("a", "IT", 3.0)),
        ("b", None, None),
    ]
    latest = pq.read_table(folder / "histories.parquet").to_pylist()
    assert [(row["user_id"], row["country"]) for row in latest] == [("a", "IT"), ("b", None)]


def test_a_number_of_users_that_never_changes_needs_the_word(tmp_path: Path) -> None:
    """Versions alone prove nothing: it is perhaps today's number, joined to every version."""
    users = [
        {"user_id": "a", "valid_from": START + day * DAY, "country": country, "height": 1.0}
        for day, country in ((1, "DE"), (13, "FR"))
    ]
    folder = build(tmp_path, settings(static=("price",)), list(EACH_SPLIT), [item("z", 0)], users)
    manifest = FeaturesManifest.read(folder)
    assert manifest.versioned == ("users.country",)
    assert manifest.undeclared == ("users.height",)


def test_a_name_that_two_tables_share_is_refused(tmp_path: Path) -> None:
    events, items, users = market(0)
    users = [{**user, "size": "S"} for user in users]
    with pytest.raises(UsageError, match="but size would be there twice"):
        build(tmp_path, settings(user_categorical=("size",)), events, items, users)


@pytest.mark.parametrize(
    ("events", "match"),
    [
        ([event("z", 1), event("z", 13)], "no example for test .*target_events.* 2 purchase"),
        ([event("z", 1), event("z", 17)], "no example for validation"),
        ([event("z", 13), event("z", 17), event("z", 1, "view")], "no example for train .*1 view"),
        ([*EACH_SPLIT, event("ghost", 2)], "1 events are on items .* 'ghost'"),
    ],
)
def test_invalid_data_is_an_error_with_advice(
    tmp_path: Path, events: list[Row], match: str
) -> None:
    with pytest.raises(DataValidationError, match=match):
        build(tmp_path, settings(), events, [item("z", 0)], USERS)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset-a"]


def test_vectors_of_two_lengths_are_refused(tmp_path: Path) -> None:
    items = [item("z", 0), {**item("y", 0), "image_embedding": [1.0]}]
    with pytest.raises(DataValidationError, match=r"found \[1, 2\]"):
        build(tmp_path, settings(), EACH_SPLIT, items, USERS)


def test_too_little_memory_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    few = settings().model_copy(update={"memory_limit": "1MB"})
    with pytest.raises(RefitError, match=r"features\.memory_limit 1MB is too small for dataset"):
        build(tmp_path, few, *market(0))
    assert [path.name for path in tmp_path.iterdir()] == ["dataset-a"]


def test_a_torn_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", *market(0))
    (dataset / "events.parquet").write_bytes((dataset / "events.parquet").read_bytes()[:100])
    with pytest.raises(DataValidationError, match=r"dataset .* cannot be read: .*events\.parquet"):
        build_features(settings(), dataset, tmp_path / "features")


def test_features_are_replaced_and_other_folders_left_alone(tmp_path: Path) -> None:
    folder = build(tmp_path, settings(), EACH_SPLIT, [item("z", 0)], USERS)
    build_features(settings(), tmp_path / "dataset-a", folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="does not contain features"):
        build_features(settings(), tmp_path / "dataset-a", tmp_path / "mine")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"dataset-a", "features-a", "mine"}
