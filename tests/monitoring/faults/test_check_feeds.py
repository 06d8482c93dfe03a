"""Every named fault is found and rightly named in its first window; true changes are not faults."""

import dataclasses
import types
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from monitoring.closings import Closing
from monitoring.faults import FAULTS, PREFIX, load_fault
from monitoring.faults.causes import FOLLOWS_FROM, find_quarantines, name_faults
from monitoring.faults.check import check_feeds
from monitoring.faults.known import read_listings, write_known
from monitoring.faults.signs.stale import count_windows
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData
from refit.dataset import EVENTS_FILE, ITEMS_FILE
from refit.drift import DriftState, Window
from refit.errors import DataValidationError
from refit.prediction import PREDICTION_SCHEMA
from simulation.feed_faults import FeedFault, encode_again
from simulation.marketplace import Marketplace
from tests.monitoring.quality.feeds import answer

SMALL = {"days": 22, "n_shoppers": 500, "listings_per_day": 150.0, "visits_per_day": 500.0}
KNOWN_DAYS = 18
SETTINGS = MeasureSettings()
TIME = pa.timestamp("us", tz="UTC")


class Feeds:
    """A simulated market's feeds, the reference of their first days, and exports of later ones."""

    def __init__(self, folder, changes=(), without=None, request_ids=False):
        market = Marketplace({**SMALL, "changes": list(changes)})
        self.folder, self.start = folder, market.settings.starts_at
        self.tables = {
            "events": market.events_table(),
            "items": market.items_table(),
            "users": market.users_table(),
        }
        for name, columns in (without or {}).items():
            self.tables[name] = self.tables[name].drop_columns(columns)
        if request_ids:
            ids = pa.array([f"r{i}" for i in range(self.tables["events"].num_rows)])
            place = self.tables["events"].column_names.index("request_id")
            self.tables["events"] = self.tables["events"].set_column(place, "request_id", ids)
        end = self.day(KNOWN_DAYS)
        dataset, known = folder / "dataset", folder / "reference"
        for name, file in (("events", EVENTS_FILE), ("items", ITEMS_FILE)):
            (dataset / file).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(self.until(name, end), dataset / file)
        known.mkdir()
        write_known(known, dataset, Window(start=self.start, end=end), SETTINGS)
        manifest = types.SimpleNamespace(embedding_version="towers")
        self.reference = Reference(known, manifest)

    def day(self, number):
        return self.start + timedelta(days=number)

    def window(self, number):
        return Window(start=self.day(number), end=self.day(number + 1))

    def until(self, name, now):
        column = {"events": "event_time", "items": "listed_at"}[name]
        table = self.tables[name]
        if column not in table.column_names:
            return table
        return table.filter(pc.less(table[column], pa.scalar(now, TIME)))

    def export(self, number, *faults, again=False):
        """What is exported at the end of a day."""
        now = self.day(number + 1)
        tables = {name: self.until(name, now) for name in ("events", "items")}
        tables["users"] = self.tables["users"]
        true = tables["items"]
        for fault in faults:
            tables = fault(tables, now)
        for name in ("events", "items"):
            pq.write_table(tables[name], self.folder / f"{name}.parquet")
        reencoded = None
        if again:
            known = read_listings(self.reference.folder).column("item_id").to_pylist()
            reencoded = self.folder / "again.parquet"
            pq.write_table(encode_again(true, known, faults, now), reencoded)
        paths = {name: self.folder / f"{name}.parquet" for name in ("events", "items")}
        return MonitoredData(log=self.folder, reencoded=reencoded, **paths)

    def check(self, number, *faults, again=False, windows=None, closings=()):
        data = self.export(number, *faults, again=again)
        asked = windows or [self.window(number)]
        settings = SETTINGS.model_copy(update={"closings": tuple(closings)})
        return list(check_feeds(settings, self.reference, data, asked))


@pytest.fixture(scope="module")
def feeds(tmp_path_factory):
    return Feeds(tmp_path_factory.mktemp("feeds"))


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """Feeds whose events name answers."""
    return Feeds(tmp_path_factory.mktemp("answering"), request_ids=True)


def unchecked(results):
    left = [r for r in results if r.state is DriftState.NOT_CHECKED]
    assert all(r.why and r.value is None for r in left)
    return {r.name.removeprefix(PREFIX) for r in left}


def drop(table, *columns):
    """An export without some columns."""
    return lambda tables, now: {**tables, table: tables[table].drop_columns(list(columns))}


def found_in(results):
    return {r.name.removeprefix(PREFIX) for r in name_faults(results)}


FOUND = [
    ("items.price/scale", {"name": "number_scaled"}),
    ("items.price/scale", {"name": "number_scaled", "factor": 11.2}),
    ("items.price/scale", {"name": "number_scaled", "share": 0.25}),
    ("items.price/scale", {"name": "number_scaled", "share": 0.15, "factor": 4.3}),
    ("items.price/scale", {"name": "number_scaled", "factor": 0.5}),
    ("items.price/rewritten", {"name": "number_scaled", "whole": True}),
    ("items.price/impossible", {"name": "number_overflows"}),
    ("items.category_1/renamed", {"name": "values_renamed"}),
    ("items.category_2/renamed", {"name": "values_renamed", "words": "translated"}),
    ("items.brand/missing", {"name": "null_spelled"}),
    ("items.size/missing", {"name": "column_null", "column": "size", "share": 0.2}),
    ("items.image_embedding/missing", {"name": "column_null", "column": "image_embedding"}),
    ("items.title/cut", {"name": "text_cut"}),
    ("items.title/garbled", {"name": "text_garbled"}),
    ("items.brand/swapped", {"name": "columns_swapped"}),
    ("items/stale", {"name": "feed_stale"}),
    ("events.surface/stopped", {"name": "source_stopped"}),
    ("items/lost", {"name": "rows_lost"}),
    ("events/silent", {"name": "rows_late"}),
    ("items/doubled", {"name": "rows_doubled", "new_ids": True}),
    ("events/doubled", {"name": "rows_doubled", "table": "events"}),
    ("events/replayed", {"name": "rows_replayed"}),
    ("events/clock", {"name": "clock_shifted", "hours": 3.0}),
    ("events/ahead", {"name": "clock_ahead"}),
    ("items.image_embedding/encoder", {"name": "encoder_replaced"}),
    ("items.image_embedding/encoder", {"name": "encoder_half_rolled"}),
    ("items.image_embedding/vectors_repeated", {"name": "vectors_zero"}),
]


@pytest.mark.parametrize(("expected", "fault"), FOUND, ids=[name for name, _ in FOUND])
def test_a_fault_is_named_in_its_first_window(feeds, expected, fault):
    values = dict(fault)
    if expected.startswith("items.category_2"):
        values["column"] = "category_2"
    since = feeds.day(KNOWN_DAYS + 1)
    named = found_in(feeds.check(KNOWN_DAYS + 1, FeedFault(since=since, **values)))
    assert expected in named
    tables = {name.split("/")[0].split(".")[0] for name in named}
    assert tables == {expected.split("/")[0].split(".")[0]}


def break_new_rows(column, change):
    """A fault that gives other values to the rows of one column from a time on."""

    def broken(since):
        def export(tables, now):
            items = tables["items"]
            new = pc.greater_equal(items["listed_at"], pa.scalar(since, TIME))
            cells = items[column].combine_chunks()
            kind, place = cells.type, items.column_names.index(column)
            values = iter(change(cells.filter(new.combine_chunks()).to_pylist()))
            both = zip(cells.to_pylist(), new.to_pylist(), strict=True)
            cells = [next(values) if hit else old for old, hit in both]
            return {**tables, "items": items.set_column(place, column, pa.array(cells, kind))}

        return export

    return broken


@pytest.mark.parametrize(
    ("expected", "column", "change"),
    [
        ("items.brand/unrelated", "brand", lambda v: v[1:] + v[:1]),
        ("items.price/unrelated", "price", lambda v: v[1:] + v[:1]),
        ("items.title/garbled", "title", lambda v: [t.replace(" ", "&nbsp;") for t in v]),
        ("items.seller_id/constant", "seller_id", lambda v: ["system"] * len(v)),
        ("items.seller_id/renamed", "seller_id", lambda v: [f"s/{s}" for s in v]),
        ("items.price/impossible", "price", lambda v: [0.0] * 10 + v[10:]),
    ],
)
def test_values_that_no_market_writes_are_named(feeds, expected, column, change):
    broken = break_new_rows(column, change)(feeds.day(KNOWN_DAYS + 1))
    assert expected in found_in(feeds.check(KNOWN_DAYS + 1, broken))


def some(rows, change):
    """Every so many values changed, such as half of them for 2."""
    return lambda values: [change(v) if i % rows == 0 else v for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("expected", "column", "change"),
    [
        ("items.colour/unrelated", "colour", some(2, lambda v: "black")),
        ("items.brand/unrelated", "brand", some(2, lambda v: "Normont")),
        ("items.title/unrelated", "title", some(2, lambda v: "A listing without a title")),
        ("items.category_1/contradicts", "category_1", some(2, lambda v: "women")),
        ("items.price/scale", "price", some(3, lambda v: 9.99)),
        ("items.price/scale", "price", lambda v: [*v[1 : len(v) // 2], v[0], *v[len(v) // 2 :]]),
        ("items.title/cut", "title", some(3, lambda v: v[:20])),
        (
            "items.image_embedding/vectors_repeated",
            "image_embedding",
            some(5, lambda v: [*v[:-1], np.nan]),
        ),
        (
            "items.image_embedding/vectors_repeated",
            "image_embedding",
            some(5, lambda v: [np.inf, *v[1:]]),
        ),
        (
            "items.image_embedding/vectors_scaled",
            "image_embedding",
            some(5, lambda v: [1e3 * x for x in v]),
        ),
        (
            "items.image_embedding/vectors_scaled",
            "image_embedding",
            some(1, lambda v: list(v / np.linalg.norm(v))),
        ),
    ],
)
def test_a_fault_of_some_rows_is_named(feeds, expected, column, change):
    broken = break_new_rows(column, change)(feeds.day(KNOWN_DAYS + 1))
    assert expected in found_in(feeds.check(KNOWN_DAYS + 1, broken))


def test_an_encoder_that_grew_noisy_is_named(feeds):
    random = np.random.default_rng(0)
    noisy = some(1, lambda v: list(np.array(v) + 0.7 * random.normal(size=len(v))))
    broken = break_new_rows("image_embedding", noisy)(feeds.day(KNOWN_DAYS + 1))
    assert "items.image_embedding/encoder" in found_in(feeds.check(KNOWN_DAYS + 1, broken))


def test_values_that_one_category_writes_in_another_way_are_renamed(feeds):
    def export(tables, now):
        items = tables["items"]
        new = pc.greater_equal(items["listed_at"], pa.scalar(feeds.day(KNOWN_DAYS), TIME))
        hit = pc.and_(new, pc.equal(items["category_2"], "women shoes"))
        sizes = pc.if_else(
            hit, pc.binary_join_element_wise("UK", items["size"], " "), items["size"]
        )
        place = items.column_names.index("size")
        return {**tables, "items": items.set_column(place, "size", sizes)}

    (found,) = name_faults(feeds.check(KNOWN_DAYS, export))
    assert found.name == "feed:items.size/renamed"


def change_events(feeds, change):
    """What is found when the events of the last day are changed, given as rows."""

    def export(tables, now):
        events, last = tables["events"], feeds.day(KNOWN_DAYS)
        old = pc.less(events["event_time"], pa.scalar(last, TIME))
        new = events.filter(pc.invert(old)).to_pylist()
        changed = pa.Table.from_pylist(change(new), schema=events.schema)
        return {**tables, "events": pa.concat_tables([events.filter(old), changed])}

    return name_faults(feeds.check(KNOWN_DAYS, export))


@pytest.mark.parametrize("kind", ["view", "purchase"])
def test_events_of_a_type_that_are_sent_twice_within_seconds_are_doubled(feeds, kind):
    later = timedelta(seconds=1.5)

    def send_again(rows):
        again = [{**r, "event_time": r["event_time"] + later} for r in rows]
        return [*rows, *(r for r in again if r["event_type"] == kind)]

    (found,) = change_events(feeds, send_again)
    assert found.name == "feed:events/doubled"
    assert f"50% of the events '{kind}'" in found.detail


def test_a_robot_is_named(feeds):
    (found,) = change_events(feeds, some(3, lambda row: {**row, "user_id": "robot"}))
    assert found.name == "feed:events.user_id/constant"


@pytest.mark.parametrize("ends", [None, timedelta(hours=1)])
def test_ends_of_listings_that_do_not_fit_what_people_do_are_named(feeds, ends):
    def export(tables, now):
        items, since = tables["items"], pa.scalar(feeds.day(KNOWN_DAYS), TIME)
        listed, gone = items["listed_at"], items["delisted_at"]
        soon = pc.add(listed, pa.scalar(ends or timedelta(0)))
        wrong = pa.scalar(None, TIME) if ends is None else soon
        new = pc.greater_equal(gone if ends is None else listed, since)
        place = items.column_names.index("delisted_at")
        changed = pc.if_else(pc.fill_null(new, False), wrong, gone)
        return {**tables, "items": items.set_column(place, "delisted_at", changed)}

    (found,) = name_faults(feeds.check(KNOWN_DAYS + 2, export))
    assert found.name == "feed:items.delisted_at/outlived"


def test_purchases_that_are_none_are_named(feeds):
    exchanged = {"like": "purchase", "purchase": "like"}

    def exchange(tables, now):
        events = tables["events"]
        old = pc.less(events["event_time"], pa.scalar(feeds.day(KNOWN_DAYS), TIME)).to_pylist()
        kinds = zip(events["event_type"].to_pylist(), old, strict=True)
        new = [kind if before else exchanged.get(kind, kind) for kind, before in kinds]
        place = events.column_names.index("event_type")
        return {**tables, "events": events.set_column(place, "event_type", pa.array(new))}

    named = found_in(feeds.check(KNOWN_DAYS + 2, exchange))
    assert named == {"events.event_type/outlived"}


def test_visits_that_are_cut_in_pieces_are_named(feeds):
    (found,) = change_events(
        feeds, lambda rows: [{**row, "session_id": f"v{i}"} for i, row in enumerate(rows)]
    )
    assert found.name == "feed:events.session_id/splintered"
    assert "times less often than before" in found.detail


@pytest.mark.parametrize("name", ["splintered", "outlived"])
def test_a_sign_that_has_too_few_rows_is_not_ok(feeds, name):
    def keep_few(tables, now):
        old = pc.less(tables["events"]["event_time"], pa.scalar(feeds.day(KNOWN_DAYS - 3), TIME))
        events = tables["events"]
        recent = events.filter(pc.invert(old)).slice(0, 10)
        return {**tables, "events": pa.concat_tables([events.filter(old), recent])}

    results = [r for r in feeds.check(KNOWN_DAYS, keep_few) if r.statistic == name]
    assert {r.state for r in results} <= {DriftState.NOT_CHECKED, DriftState.INSUFFICIENT_DATA}
    assert all(r.why for r in results)
    assert results


def test_a_column_of_another_type_is_named(feeds):
    def export(tables, now):
        items = tables["items"]
        place = items.column_names.index("price")
        text = pc.cast(items["price"], pa.string())
        return {**tables, "items": items.set_column(place, "price", text)}

    assert found_in(feeds.check(KNOWN_DAYS, export)) == {"items.price/retyped"}


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        ("encoder_replaced", "encoder", "replaced"),
        ("encoder_half_rolled", "encoder", "half rolled out"),
        ("vectors_scaled", "vectors_scaled", "2 times as long"),
        ("vectors_zero", "vectors_repeated", "zeros"),
        ("vectors_shuffled", "vectors_shuffled", "another listing"),
    ],
)
def test_listings_that_are_encoded_again_show_the_encoder(feeds, fault, expected, words):
    broken = FeedFault(name=fault, since=feeds.day(KNOWN_DAYS))
    named = name_faults(feeds.check(KNOWN_DAYS, broken, again=True))
    assert [r.name for r in named] == [f"feed:items.image_embedding/{expected}"]
    assert words in named[0].detail


def test_events_without_the_views_before_them_are_lost(feeds):
    def export(tables, now):
        events, random = tables["events"], np.random.default_rng(0)
        old = pc.less(events["event_time"], pa.scalar(feeds.day(KNOWN_DAYS), TIME))
        kept = random.random(events.num_rows) < 0.7
        return {**tables, "events": events.filter(pc.or_(old, pa.array(kept)))}

    named = name_faults(feeds.check(KNOWN_DAYS, export))
    assert [r.name for r in named] == ["feed:events/lost"]
    assert "has no view by them before" in named[0].detail


def test_the_days_before_are_those_before_a_planned_closing(feeds):
    first, last = KNOWN_DAYS - 1, KNOWN_DAYS + 2
    days = {"first": feeds.day(first).date(), "last": feeds.day(last).date()}

    def export(tables, now):
        events, items = tables["events"], tables["items"]
        random = np.random.default_rng(0)
        low, high = (pa.scalar(feeds.day(n), TIME) for n in (first, last + 1))
        before = pc.less(events["event_time"], low)
        kept = pa.array(random.random(events.num_rows) < 0.7)
        after = pc.and_(pc.greater_equal(events["event_time"], high), kept)
        listed = items["listed_at"]
        closed = pc.and_(pc.greater_equal(listed, low), pc.less(listed, high))
        return {
            **tables,
            "events": events.filter(pc.or_(before, after)),
            "items": items.filter(pc.invert(closed)),
        }

    undeclared = feeds.check(last + 1, export)
    assert "events/lost" in unchecked(undeclared)
    declared = feeds.check(last + 1, export, closings=[Closing(**days)])
    assert "feed:events/lost" in {r.name for r in declared if r.state is DriftState.DRIFT}
    assert not {"events/lost", "events/early", "items/lost"} & unchecked(declared)


def answer_events(
    feeds, named=lambda row: True, hours=lambda row: 0.0, before=True, other=lambda row: row
):
    """Every event follows from an answer of a minute before; on the last day not all say so.

    Args:
        feeds: The feeds; ``log.parquet`` is written below their folder.
        named: Whether the event of a row of the last day names its answer.
        hours: How far its time is off.
        before: Whether the events of the days before name theirs.
        other: The row whose answer the event of a row of the last day names.
    """

    def export(tables, now):
        events, last = tables["events"].to_pylist(), feeds.day(KNOWN_DAYS)
        answers = []
        for i, row in enumerate(events):
            at = row["event_time"] - timedelta(minutes=1)
            answers.append(answer(f"r{i}", at, row["user_id"], item_ids=[row["item_id"]]))
            is_new = row["event_time"] >= last
            answered = other(i) if is_new else i
            row["request_id"] = f"r{answered}" if (named(i) if is_new else before) else None
            row["event_time"] += timedelta(hours=hours(i) if is_new else 0.0)
        path = feeds.folder / "log.parquet"
        pq.write_table(pa.Table.from_pylist(answers, schema=PREDICTION_SCHEMA), path)
        return {**tables, "events": pa.Table.from_pylist(events, schema=tables["events"].schema)}

    data = feeds.export(KNOWN_DAYS, export)
    data = dataclasses.replace(data, log=feeds.folder / "log.parquet")
    return name_faults(check_feeds(SETTINGS, feeds.reference, data, [feeds.window(KNOWN_DAYS)]))


def test_events_that_do_not_name_their_answers_are_named(feeds):
    assert answer_events(feeds) == []
    found = answer_events(feeds, named=lambda row: row % 5)
    assert [r.name for r in found] == ["feed:events.request_id/unattributed"]
    assert "20% of the events" in found[0].detail


def test_events_that_have_long_named_no_answers_are_compared_with_the_reference(answering):
    (found,) = answer_events(answering, named=lambda row: False, before=False)
    assert found.name == "feed:events.request_id/unattributed"
    assert "though those of the reference do" in found.detail


def test_events_that_name_other_peoples_answers_are_named(feeds):
    (found,) = answer_events(feeds, other=lambda row: row - 40 if row % 4 == 0 else row)
    assert found.name == "feed:events.request_id/misattributed"
    assert "name an answer that another person got" in found.detail


@pytest.mark.parametrize("hours", [2.0, -5.0])
def test_a_clock_that_is_off_for_some_events_is_seen_beside_their_answers(feeds, hours):
    found = answer_events(feeds, hours=lambda row: 0.0 if row % 5 else hours)
    assert [r.name for r in found] == ["feed:events.request_id/clock"]
    assert f"{abs(hours):g} hours {'after' if hours > 0 else 'before'}" in found[0].detail


def test_calm_days_have_no_fault(feeds):
    for number in (KNOWN_DAYS, KNOWN_DAYS + 3):
        results = feeds.check(number, again=number % 2 == 0)
        assert {r.state for r in results} == {DriftState.OK, DriftState.NOT_CHECKED}
        assert unchecked(results) == {
            "items.description/missing",
            "events.request_id/clock",
            "events.request_id/misattributed",
            "events.request_id/unattributed",
        }
    assert {r.statistic for r in results} <= set(FAULTS.names())


@pytest.mark.parametrize(
    ("change", "strength"),
    [("new_category_wave", 1.0), ("price_inflation", 2.0), ("new_sellers_flood", 1.0)],
)
def test_a_change_of_the_market_is_no_fault(tmp_path, change, strength):
    feeds = Feeds(tmp_path, [{"name": change, "day": KNOWN_DAYS, "strength": strength}])
    for number in (KNOWN_DAYS, KNOWN_DAYS + 1):
        assert found_in(feeds.check(number, again=True)) == set()


def test_what_was_never_there_is_not_checked_and_says_why(tmp_path):
    feeds = Feeds(tmp_path, without={"items": ["listed_at", "price"], "events": ["request_id"]})
    results = feeds.check(KNOWN_DAYS)
    assert not found_in(results)
    assert {r.state for r in results} == {DriftState.OK, DriftState.NOT_CHECKED}
    assert unchecked(results) == {
        *(f"items/{name}" for name in ("ahead", "clock", "doubled", "lost", "replayed")),
        *("items/silent", "items/stale", "items/impossible", "items/scale"),
        *("items.description/missing", "items.price/missing", "events/early"),
        *("events.request_id/clock", "events.request_id/unattributed"),
        "events.request_id/misattributed",
    }
    why = {r.name.removeprefix(PREFIX): r.why for r in results}
    assert why["events.request_id/unattributed"] == (
        "no request_id column in events: whether events name their answers is not checked"
    )
    assert why["items/stale"].startswith("no listed_at column in items: whether rows stay away")
    assert why["items/scale"] == "no column of the items can show it"
    assert why["items.price/missing"] == "no price column in items: nothing is checked of it"


@pytest.mark.parametrize(
    ("table", "column"), [("items", "price"), ("items", "listed_at"), ("items", "image_embedding")]
)
def test_a_column_that_is_gone_is_a_fault(feeds, table, column):
    named = feeds.check(KNOWN_DAYS, drop(table, column))
    assert f"{table}.{column}/missing" in found_in(named)


def test_request_ids_that_are_gone_are_a_fault(answering):
    gone = answering.check(KNOWN_DAYS, drop("events", "request_id"))
    assert found_in(gone) == {"events.request_id/missing"}
    assert "events.request_id/unattributed" in unchecked(gone)


def test_a_column_that_is_new_is_not_checked(feeds):
    def export(tables, now):
        items, new = tables["items"], pa.array(["x"] * tables["items"].num_rows)
        for name in ("material", *"abcdef"):
            items = items.append_column(name, new)
        return {**tables, "items": items}

    results = feeds.check(KNOWN_DAYS, export)
    assert "items/missing" in unchecked(results)
    (why,) = (r.why for r in results if r.name == "feed:items/missing")
    assert why.startswith("the items of the reference have no a, b, c, d, e and 2 more: nothing")
    assert not found_in(results)


def test_a_window_that_is_not_checked_for_its_fault_does_not_end_a_quarantine(feeds):
    since = feeds.day(KNOWN_DAYS)
    first = feeds.check(KNOWN_DAYS, FeedFault(name="rows_lost", since=since))
    later = [
        r.model_copy(
            update={"window": feeds.window(KNOWN_DAYS + 1), "state": DriftState.NOT_CHECKED}
            if r.name == "feed:items/lost"
            else {"window": feeds.window(KNOWN_DAYS + 1), "state": DriftState.OK}
        )
        for r in first
    ]
    (quarantine,) = find_quarantines([*first, *later])
    assert quarantine.end is None
    mended = [r.model_copy(update={"state": DriftState.OK}) for r in later]
    (ended,) = find_quarantines([*first, *mended])
    assert ended.end == first[0].window.end


def test_a_quarantine_covers_the_days_of_a_fault_and_ends_with_them(feeds):
    windows = [feeds.window(KNOWN_DAYS + back) for back in range(4)]
    broken = FeedFault(name="column_null", since=windows[1].start, days=2.0)
    results = feeds.check(KNOWN_DAYS + 3, broken, windows=windows)
    (quarantine,) = find_quarantines(results, "alert")
    assert (quarantine.table, quarantine.start, quarantine.end) == (
        "items",
        windows[1].start,
        windows[2].end,
    )
    assert "brand is missing in 100%" in quarantine.reason
    (lasting,) = find_quarantines([r for r in results if r.window.start < windows[3].start])
    assert lasting.end is None
    mended = broken.model_copy(update={"mended": True})
    assert find_quarantines(feeds.check(KNOWN_DAYS + 3, mended, windows=windows)) == []


def test_a_window_that_cannot_be_checked_does_not_end_a_quarantine(feeds):
    since = feeds.day(KNOWN_DAYS)
    results = feeds.check(KNOWN_DAYS, FeedFault(name="column_null", since=since))
    unread = DataValidationError("the file is torn")
    data = MonitoredData(log=feeds.folder, unreadable={"items": unread})
    later = list(check_feeds(SETTINGS, feeds.reference, data, [feeds.window(KNOWN_DAYS + 1)]))
    own = [r for r in later if r.subject == "feed:items"]
    assert {r.state for r in own} == {DriftState.INSUFFICIENT_DATA}
    assert "the file is torn" in own[0].why
    (quarantine,) = find_quarantines([*results, *later])
    assert quarantine.end is None


def test_a_fault_of_the_whole_table_concerns_all_its_rows(feeds):
    broken = FeedFault(name="number_scaled", since=feeds.day(KNOWN_DAYS), whole=True)
    (quarantine,) = find_quarantines(feeds.check(KNOWN_DAYS, broken))
    assert quarantine.start.year == 1970
    assert "100 times as much" in quarantine.reason


def test_what_is_left_out_is_not_checked(feeds):
    settings = SETTINGS.model_copy(
        update={"faults": SETTINGS.faults.model_copy(update={"left_out": ("feed:items*",)})}
    )
    results = check_feeds(
        settings, feeds.reference, feeds.export(KNOWN_DAYS), [feeds.window(KNOWN_DAYS)]
    )
    assert results
    assert all(r.subject.startswith("feed:events") for r in results)


def test_a_reference_without_feeds_is_not_ok(feeds, tmp_path):
    reference = Reference(tmp_path, feeds.reference.manifest)
    results = check_feeds(SETTINGS, reference, feeds.export(KNOWN_DAYS), [feeds.window(KNOWN_DAYS)])
    assert {r.state for r in results} == {DriftState.INSUFFICIENT_DATA}


def test_faults_that_follow_are_faults():
    names = set(FAULTS.names())
    assert FOLLOWS_FROM.keys() <= names
    following = {name for follow in FOLLOWS_FROM.values() for name in follow}
    assert {name.split("/")[-1] for name in following} <= names
    for name in names:
        fault = load_fault(name)
        assert fault.unit
        assert fault.advice.action
        assert set(fault.tables) <= {"items", "events"}


def make_counted_feed(rows, start, length):
    """A feed whose reference has so many rows a day, in a window without rows."""
    known = types.SimpleNamespace(counts=np.array(rows)[:, None], days=100 + np.arange(len(rows)))
    return types.SimpleNamespace(known=known, start=float(start), days=float(length))


CLOSED_ONCE_A_WEEK = [200.0, 200.0, 200.0, 200.0, 200.0, 200.0, 0.0] * 4


@pytest.mark.parametrize(
    ("start", "length", "expected"), [(128, 7, 1200), (128, 1, 200), (134, 1, 0)]
)
def test_a_feed_is_not_away_because_a_shop_is_closed_once_a_week(start, length, expected):
    feed = make_counted_feed(CLOSED_ONCE_A_WEEK, start, length)
    assert count_windows(feed, feed.known.counts.sum(axis=1)).min() == expected
