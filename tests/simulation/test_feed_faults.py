"""Each fault changes what it says and nothing else, from its day on."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from refit.errors import UsageError
from simulation.feed_faults import (
    ENCODER_FAULTS,
    FAULTS,
    ID_COLUMNS,
    NULL_WORDS,
    TIME_COLUMNS,
    FeedFault,
    Feeds,
    encode_again,
)
from simulation.marketplace import Marketplace

MARKET = Marketplace({"days": 12, "n_shoppers": 300, "listings_per_day": 60, "visits_per_day": 150})
SINCE = MARKET.settings.starts_at + timedelta(days=9)
NOW = MARKET.now
ROWS_CHANGE = {
    "feed_stale",
    "source_stopped",
    "rows_lost",
    "rows_late",
    "rows_doubled",
    "rows_replayed",
}


@pytest.fixture(scope="module")
def feeds() -> Feeds:
    return {
        "events": MARKET.events_table(),
        "items": MARKET.items_table(),
        "users": MARKET.users_table(),
    }


def fault(name: str, **more: Any) -> FeedFault:
    return FeedFault.model_validate({"name": name, "since": SINCE, **more})


def rows(table: pa.Table, time_column: str, since: datetime | None = None) -> pd.DataFrame:
    frame = table.to_pandas()
    return frame if since is None else frame[frame[time_column] >= since]


def pair(feeds: Feeds, made: FeedFault, now: datetime = NOW) -> tuple[pd.DataFrame, pd.DataFrame]:
    """True and exported rows from the day of the fault on, side by side."""
    time = TIME_COLUMNS[made.table]
    hit = rows(feeds[made.table], time)[time] >= SINCE
    exported = made(feeds, now)[made.table].to_pandas()
    return rows(feeds[made.table], time)[hit], exported[hit.to_numpy()]


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_changes_before_the_fault(feeds: Feeds, name: str) -> None:
    made = fault(name)
    assert made(feeds, SINCE - timedelta(hours=1)) is feeds
    exported = made(feeds, NOW)
    for table in feeds:
        if table != made.table:
            assert exported[table] is feeds[table]
    time = TIME_COLUMNS[made.table]
    before, after = (t[made.table].to_pandas() for t in (feeds, exported))
    before, after = (t[t[time] < SINCE].reset_index(drop=True) for t in (before, after))
    if name == "feed_stale":  # what is sold afterwards is unknown
        before, after = (t.drop(columns="delisted_at") for t in (before, after))
    pd.testing.assert_frame_equal(before, after)


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - ROWS_CHANGE))
def test_only_the_columns_of_the_fault_change(feeds: Feeds, name: str) -> None:
    made = fault(name)
    before, after = pair(feeds, made) if not name.startswith("clock") else (None, None)
    if before is None:
        exported = made(feeds, NOW)["events"]
        assert exported.num_rows == feeds["events"].num_rows
        drop, key = "event_time", ["user_id", "item_id", "event_type", "session_id"]
        tables = [t.drop_columns(drop).to_pandas() for t in (feeds["events"], exported)]
        tables = [t.sort_values(key).reset_index(drop=True) for t in tables]
        pd.testing.assert_frame_equal(*tables)
        return
    assert made(feeds, NOW)[made.table].schema == feeds[made.table].schema
    columns = [made.column, made.other] if made.other else [made.column]
    pd.testing.assert_frame_equal(before.drop(columns=columns), after.drop(columns=columns))
    for column in columns:
        old, new = before[column].astype(str), after[column].astype(str)
        assert (old != new).mean() == pytest.approx(made.share, abs=0.12) or (
            name == "number_overflows"
        )


@pytest.mark.parametrize("name", FAULTS)
def test_later_exports_hit_the_same_rows(feeds: Feeds, name: str) -> None:
    made, early = fault(name), NOW - timedelta(days=1)
    if name == "rows_late":
        return
    time = TIME_COLUMNS[made.table]
    cut = {n: t for n, t in feeds.items() if n == "users"}
    for table, column in TIME_COLUMNS.items():
        frame = feeds[table].to_pandas()
        cut[table] = feeds[table].filter(pa.array((frame[column] < early).to_numpy()))
    before, after = (
        made(f, now)[made.table].to_pandas() for f, now in ((cut, early), (feeds, NOW))
    )
    if name == "clock_ahead":
        before, after = (t[t[time] < NOW] for t in (before, after))
    ids = ["item_id"] if made.table == "items" else ["user_id", "item_id", "event_type", time]
    day = (SINCE, SINCE + timedelta(days=1))
    before, after = (
        t[(t[time] >= day[0]) & (t[time] < day[1])].sort_values(ids).reset_index(drop=True)
        for t in (before, after)
    )
    if made.table == "items":
        before, after = (t.drop(columns="delisted_at") for t in (before, after))
    pd.testing.assert_frame_equal(before, after)


def test_a_number_in_another_unit(feeds: Feeds) -> None:
    before, after = pair(feeds, fault("number_scaled"))
    assert np.allclose(after.price, 100 * before.price)
    before, after = pair(feeds, fault("number_scaled", factor=11.4, share=0.3))
    ratio = np.round(after.price / before.price, 1)
    assert set(ratio) == {1.0, 11.4}
    assert (ratio == 11.4).mean() == pytest.approx(0.3, abs=0.1)


def test_a_number_that_overflows(feeds: Feeds) -> None:
    before, after = pair(feeds, fault("number_overflows"))
    small = before.price < 32.767
    assert np.allclose(after.price[small], before.price[small])
    assert after.price.max() <= 32.767
    assert (after.price[~small] < before.price[~small]).all()
    assert (after.price < 0).any()


@pytest.mark.parametrize(
    ("words", "example"), [("upper", "WOMEN"), ("prefixed", "cat/women"), ("translated", "nemowe")]
)
def test_renamed_values_keep_their_shares(feeds: Feeds, words: str, example: str) -> None:
    before, after = pair(feeds, fault("values_renamed", words=words))
    assert example in set(after.category_1)
    assert not set(before.category_1) & set(after.category_1)
    counts = [sorted(t.category_1.value_counts()) for t in (before, after)]
    assert counts[0] == counts[1]


def test_spelled_nulls(feeds: Feeds) -> None:
    before, after = pair(feeds, fault("null_spelled", column="colour"))
    changed = before.colour != after.colour
    assert set(after.colour[changed]) == set(NULL_WORDS)
    assert changed.mean() == pytest.approx(0.2, abs=0.1)


def test_nulls_that_are_mended_after_three_days(feeds: Feeds) -> None:
    made = fault("column_null", days=2.0, mended=True)
    during = made(feeds, SINCE + timedelta(days=1))["items"].to_pandas()
    assert during.brand[during.listed_at >= SINCE].isna().any()
    assert made(feeds, SINCE + timedelta(days=2)) is feeds
    stays = fault("column_null", days=2.0)(feeds, NOW)["items"].to_pandas()
    hit = (stays.listed_at >= SINCE) & (stays.listed_at < SINCE + timedelta(days=2))
    assert (stays.brand.isna() == hit).all()


def test_lost_request_ids_are_a_fault_of_events(feeds: Feeds) -> None:
    made = fault("column_null", table="events", column="session_id")
    _, after = pair(feeds, made)
    assert after.session_id.isna().all()
    assert made.feed == "events.session_id"


def test_a_whole_table_in_another_unit(feeds: Feeds) -> None:
    after = fault("number_scaled", whole=True)(feeds, NOW)["items"].to_pandas()
    assert np.allclose(after.price, 100 * feeds["items"].to_pandas().price)


def test_text(feeds: Feeds) -> None:
    before, after = pair(feeds, fault("text_cut", length=5))
    assert (after.title == before.title.str[:5]).all()
    before, after = pair(feeds, fault("text_garbled"))
    assert not set("".join(after.title)) & set("".join(before.title))


def test_swapped_columns(feeds: Feeds) -> None:
    before, after = pair(feeds, fault("columns_swapped", column="colour", other="size"))
    assert (after.colour == before["size"]).all()
    assert (after["size"] == before.colour).all()


def test_a_stale_table_stays_as_it_was(feeds: Feeds) -> None:
    after = fault("feed_stale")(feeds, NOW)["items"].to_pandas()
    assert (after.listed_at < SINCE).all()
    assert not (after.delisted_at >= SINCE).any()
    back = fault("feed_stale", days=1.0)(feeds, NOW)["items"]
    assert back.equals(feeds["items"])


def test_a_stopped_source(feeds: Feeds) -> None:
    after = rows(fault("source_stopped")(feeds, NOW)["events"], "event_time", SINCE)
    before = rows(feeds["events"], "event_time", SINCE)
    assert set(before.surface) == {"home", "search"}
    assert set(after.surface) == {"home"}
    assert len(after) == (before.surface == "home").sum()
    made = fault("source_stopped", table="items", by="country", value="DE")
    left = rows(made(feeds, NOW)["items"], "listed_at", SINCE)
    country = feeds["users"].to_pandas().set_index("user_id").country
    assert set(left.seller_id.map(country)) == {"FR", "NL", "ES", "IT"}


def test_lost_and_late_rows(feeds: Feeds) -> None:
    lost = rows(fault("rows_lost")(feeds, NOW)["items"], "listed_at", SINCE)
    before = rows(feeds["items"], "listed_at", SINCE)
    assert 0.3 < len(lost) / len(before) < 0.7
    late = fault("rows_late")(feeds, NOW)["events"].to_pandas()
    events = feeds["events"].to_pandas()
    assert late.event_time.max() < NOW - timedelta(hours=6)
    assert len(late) == (events.event_time < NOW - timedelta(hours=6)).sum()


def test_a_doubled_feed(feeds: Feeds) -> None:
    n = len(rows(feeds["items"], "listed_at", SINCE))
    for new_ids in (False, True):
        after = fault("rows_doubled", new_ids=new_ids)(feeds, NOW)["items"].to_pandas()
        assert len(after) == feeds["items"].num_rows + n
        assert after.item_id.is_unique == new_ids


def test_a_replayed_feed(feeds: Feeds) -> None:
    after = fault("rows_replayed")(feeds, NOW)["events"].to_pandas()
    events = feeds["events"].to_pandas()
    source = events[(events.event_time >= SINCE - timedelta(days=7))]
    source = source[source.event_time < SINCE - timedelta(days=6)]
    for day in range(3):
        start = SINCE + timedelta(days=day)
        replayed = after[
            (after.event_time >= start) & (after.event_time < start + timedelta(days=1))
        ]
        assert sorted(replayed.item_id) == sorted(source.item_id)
    assert after.event_time.is_monotonic_increasing


def test_clocks(feeds: Feeds) -> None:
    made = fault("clock_shifted", by="surface", value="search", hours=3.0)
    before, after = (t["events"].to_pandas() for t in (feeds, made(feeds, NOW)))
    for surface, hours in (("home", 0.0), ("search", 3.0)):
        times = [
            np.sort(t[t.surface == surface].event_time.astype("int64")) for t in (before, after)
        ]
        late = before[before.surface == surface].event_time >= SINCE
        moved = (times[1].sum() - times[0].sum()) / late.sum() / 3.6e9
        assert moved == pytest.approx(hours, abs=0.01)
    ahead = fault("clock_ahead")(feeds, NOW)["events"].to_pandas()
    future = ahead.event_time > NOW
    assert 0.01 < future.sum() / (before.event_time >= SINCE).sum() < 0.3
    assert ahead[future].user_id.nunique() < before.user_id.nunique() / 5


def vectors(table: pa.Table) -> np.ndarray:
    return np.stack(table["image_embedding"].to_pylist())


def test_vectors(feeds: Feeds) -> None:
    before, after = pair(feeds, fault("vectors_scaled", factor=3.0))
    old = np.stack(before.image_embedding)
    assert np.allclose(np.stack(after.image_embedding), 3.0 * old)
    _, after = pair(feeds, fault("vectors_zero"))
    assert not np.stack(after.image_embedding).any()
    _, after = pair(feeds, fault("vectors_shuffled"))
    new = np.stack(after.image_embedding)
    assert np.allclose(np.sort(new.sum(axis=1)), np.sort(old.sum(axis=1)))
    assert not np.isclose(new, old).all(axis=1).any()
    _, after = pair(feeds, fault("encoder_replaced"))
    new = np.stack(after.image_embedding)
    assert np.allclose(np.linalg.norm(new, axis=1), np.linalg.norm(old, axis=1), rtol=1e-4)
    assert abs(((new * old).sum(axis=1) / (old**2).sum(axis=1)).mean()) < 0.5


@pytest.mark.parametrize("name", ENCODER_FAULTS)
def test_known_listings_that_are_encoded_again_show_a_fault_of_the_encoder(
    feeds: Feeds, name: str
) -> None:
    items, made = feeds["items"], fault(name)
    known = items["item_id"].to_pylist()[:80]
    stored = vectors(items.slice(0, 80))
    for now, changed in ((SINCE - timedelta(days=1), 0.0), (NOW, made.share)):
        again = encode_again(items, known, [made], now)
        assert again["item_id"].to_pylist() == known
        different = ~np.isclose(vectors(again), stored, atol=1e-6).all(axis=1)
        assert different.mean() == pytest.approx(changed, abs=0.15)
    assert np.allclose(vectors(encode_again(items, known, [fault("number_scaled")], NOW)), stored)


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"name": "prise_scaled"}, "known faults"),
        ({"name": "text_cut", "table": "events"}, "is a fault of items"),
        ({"name": "values_renamed", "words": "lower"}, "choose from upper"),
    ],
)
def test_invalid_faults_are_named(values: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        FeedFault.model_validate({"since": SINCE, **values})


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"name": "column_null", "column": "prize"}, "has no column 'prize'"),
        ({"name": "number_scaled", "column": "brand"}, "does not hold numbers"),
        ({"name": "text_cut", "column": "price"}, "does not hold text"),
        ({"name": "source_stopped", "by": "planet"}, "by must be a column"),
        ({"name": "vectors_zero", "column": "title"}, "does not hold vectors"),
    ],
)
def test_a_fault_of_another_table_is_an_error(
    feeds: Feeds, values: dict[str, Any], advice: str
) -> None:
    with pytest.raises(UsageError, match=advice):
        fault(**values)(feeds, NOW)


def test_every_fault_says_what_a_person_sees() -> None:
    assert set(ID_COLUMNS) == set(TIME_COLUMNS)
    for note in FAULTS.values():
        assert note.does.endswith(".")
        assert note.sign.endswith(".")
