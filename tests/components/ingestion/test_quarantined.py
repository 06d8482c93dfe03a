"""Days in quarantine: what is left out, what stays, and what is said about it."""

from datetime import UTC, datetime, timedelta

import pytest

from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.purpose import learn_from, serve_from
from components.ingestion.settings import IngestSettings
from refit.errors import DataValidationError, UsageError
from refit.quarantine import Quarantine
from tests.components.ingestion.conftest import DAY_0

BROKEN_PRICES = {
    "quarantine_id": "items-20240304T0000",
    "table": "items",
    "start": "2024-03-04",
    "end": "2024-03-05",
    "reason": "prices in cents",
}
DOUBLED = {
    "quarantine_id": "events-20240305T0000",
    "table": "events",
    "start": "2024-03-05",
    "end": "2024-03-06",
    "reason": "events come twice",
}


@pytest.fixture
def stocked(shop, make_events, items):
    """A shop with one item listed each day from the second of March on."""
    for number, item in enumerate(items):
        item["listed_at"] = DAY_0 + timedelta(days=number)
    shop.write("items", items)
    shop.write("events", make_events())
    return shop


def find_line(manifest, topic):
    (line,) = [c for c in manifest.health if (c.topic, c.name) == (topic, "in quarantine")]
    return line


def test_items_of_the_period_are_left_out_with_the_events_on_them(stocked):
    manifest = stocked.ingest(quarantined=[BROKEN_PRICES])
    assert [item["item_id"] for item in stocked.read("items")] == ["i0", "i1", "i2", "i4"]
    (left_out,) = stocked.read_rejected("items_quarantined")
    assert (left_out["item_id"], left_out["reason"]) == ("i3", "quarantined: prices in cents")
    on_it = stocked.read_rejected("events_quarantined")
    assert {row["item_id"] for row in on_it} == {"i3"}
    assert {row["reason"] for row in on_it} == {"quarantined: the item is in quarantine"}
    counts = manifest.counts
    assert (counts["items"].quarantined, counts["items"].kept) == (1, 4)
    assert (counts["events"].quarantined, counts["events"].kept) == (2, 10)
    assert counts["items"].rejected == counts["events"].rejected == 0
    assert [days.quarantine_id for days in manifest.quarantined] == ["items-20240304T0000"]


def test_events_of_the_period_are_left_out(stocked):
    manifest = stocked.ingest(quarantined=[DOUBLED])
    (left_out,) = stocked.read_rejected("events_quarantined")
    assert left_out["reason"] == "quarantined: events come twice"
    assert left_out["event_time"] == datetime(2024, 3, 5, 12, tzinfo=UTC)
    assert manifest.counts["events"].quarantined == 1
    assert not (stocked.out / "rejected" / "items_quarantined.parquet").exists()


def test_a_period_without_an_end_lasts(stocked):
    open_ended = BROKEN_PRICES | {"end": None}
    stocked.ingest(quarantined=[open_ended])
    assert [item["item_id"] for item in stocked.read("items")] == ["i0", "i1", "i2"]


def test_what_is_broken_within_the_period_counts_against_no_limit(shop, make_events):
    broken = [{"user_id": None, "event_time": DAY_0 + timedelta(days=4)}] * 6
    shop.write("events", make_events(*broken))
    limits = {"max_rejected": {"events": 0.0}}
    with pytest.raises(DataValidationError, match="user_id: missing"):
        shop.ingest(**limits)
    counts = shop.ingest_again(quarantined=[DOUBLED], **limits).counts["events"]
    assert (counts.rejected, counts.quarantined, counts.rows_in) == (0, 7, 18)


def test_purchases_and_hides_still_count_for_the_eligibility_rules(stocked, make_events):
    on_the_day = {"event_time": DAY_0 + timedelta(days=4, hours=1)}
    stocked.write(
        "events",
        make_events(
            {"event_type": "purchase", "item_id": "i1", **on_the_day},
            {"event_type": "hide", "item_id": "i2", **on_the_day},
            {"event_type": "purchase", "item_id": "i3"},
        ),
    )
    stocked.ingest(quarantined=[BROKEN_PRICES, DOUBLED])
    found = [(row["event_type"], row["item_id"]) for row in stocked.read("earlier")]
    assert sorted(found) == [("hide", "i2"), ("purchase", "i1"), ("purchase", "i3")]


def test_of_items_in_versions_the_broken_versions_are_left_out(shop, make_events):
    on_day = datetime(2024, 3, 4, 6, tzinfo=UTC)
    rows = [
        # Listed before; changed on the day; and one whose end is stated on the day.
        {"item_id": "i0", "listed_at": DAY_0, "valid_from": DAY_0, "price": 10.0},
        {"item_id": "i0", "listed_at": DAY_0, "valid_from": on_day, "price": 1000.0},
        {"item_id": "i1", "listed_at": DAY_0, "valid_from": DAY_0, "price": 11.0},
        {
            "item_id": "i1",
            "listed_at": DAY_0,
            "valid_from": on_day,
            "price": 1100.0,
            "delisted_at": on_day,
        },
        # Listed on the day, and changed later.
        {"item_id": "i2", "listed_at": on_day, "valid_from": on_day, "price": 1200.0},
        {
            "item_id": "i2",
            "listed_at": on_day,
            "valid_from": on_day + timedelta(days=2),
            "price": 12.0,
        },
        *({"item_id": f"i{n}", "listed_at": DAY_0, "valid_from": DAY_0} for n in (3, 4)),
    ]
    shop.write("items", [{"delisted_at": None, "price": 5.0} | row for row in rows])
    shop.write("events", make_events())
    shop.ingest(quarantined=[BROKEN_PRICES])
    found = {item["item_id"]: item for item in shop.read("items")}
    assert (found["i0"]["price"], found["i1"]["delisted_at"]) == (10.0, on_day)
    assert set(found) == {"i0", "i1", "i3", "i4"}
    assert len(shop.read_rejected("items_quarantined")) == 3


def test_a_whole_table_is_in_quarantine_with_its_rows_without_a_time(stocked, items):
    items[0]["listed_at"] = None
    stocked.write("items", items)
    rewritten = BROKEN_PRICES | {"start": "1970-01-01", "end": "2024-03-02"}
    manifest = stocked.ingest(quarantined=[BROKEN_PRICES])
    assert "i0" in {item["item_id"] for item in stocked.read("items")}
    manifest = stocked.ingest_again(quarantined=[rewritten])
    assert {item["item_id"] for item in stocked.read("items")} == {"i1", "i2", "i3", "i4"}
    assert find_line(manifest, "items").shown.startswith("the whole table: 1 of 5")


def test_the_health_page_says_what_it_costs_and_how_it_ends(stocked):
    manifest = stocked.ingest(quarantined=[BROKEN_PRICES, DOUBLED])
    line = find_line(manifest, "items")
    assert line.shown == "1 day since 2024-03-04: 1 of 5 (20.0%) rows left out: prices in cents 1"
    assert line.state == "look"
    assert "refit quarantine release items-20240304T0000 --reason REASON" in line.advice
    shown = find_line(manifest, "events").shown
    assert shown.endswith("rows left out: events come twice 1; the item is in quarantine 2")
    assert "prices in cents" in (stocked.out / "health.html").read_text()


def test_periods_without_rows_are_named_and_ok(stocked):
    manifest = stocked.ingest(quarantined=[BROKEN_PRICES | {"start": "2024-03-04T20:00"}])
    assert find_line(manifest, "items").state == "ok"
    assert manifest.counts["items"].quarantined == 0
    assert not (stocked.out / "rejected" / "items_quarantined.parquet").exists()


@pytest.mark.parametrize("days", [("2024-03-10", None), ("2024-03-10", "2024-03-12")])
def test_a_split_that_is_mostly_in_quarantine_ends_the_run(stocked, days):
    start, end = days
    with pytest.raises(DataValidationError) as error:
        stocked.ingest(quarantined=[DOUBLED | {"start": start, "end": end}])
    for words in (
        "most of test (2024-03-10",
        "events are in quarantine (events: events come twice)",
        "refit quarantine release events-20240305T0000",
        "test_days",
    ):
        assert words in str(error.value)


def test_when_every_event_is_in_quarantine_the_error_says_so(stocked):
    with pytest.raises(DataValidationError, match=r"no event is left.*are in quarantine"):
        stocked.ingest(quarantined=[DOUBLED | {"start": "2024-01-01", "end": None}])


def test_items_without_a_time_cannot_be_left_out(shop, make_events, items):
    shop.write("items", items)
    shop.write("events", make_events())
    with pytest.raises(DataValidationError, match=r"no listed_at.*release"):
        shop.ingest(quarantined=[BROKEN_PRICES])


def test_without_an_items_table_its_quarantine_leaves_nothing_out(shop, make_events):
    shop.write("events", make_events())
    assert shop.ingest(quarantined=[BROKEN_PRICES]).counts["events"].quarantined == 0


def test_a_period_needs_an_end_after_its_start():
    with pytest.raises(UsageError, match="start < end"):
        IngestSettings.parse(
            {
                "source": "simulated",
                "validation_days": 1,
                "test_days": 1,
                "quarantined": [DOUBLED | {"end": "2024-03-05"}],
            }
        )


def make(quarantine_id, table="items", day=4, **more):
    start = datetime(2024, 3, day, tzinfo=UTC)
    return Quarantine(
        quarantine_id=quarantine_id, table=table, start=start, reason="broken", **more
    )


def test_a_run_that_trains_leaves_out_what_is_in_force(shop, make_events):
    shop.write("events", make_events())
    settings = IngestSettings(
        source="files",
        path=str(shop.source),
        end=datetime(2024, 3, 13, tzinfo=UTC),
        validation_days=1,
        test_days=1,
    )
    released = make("q3").model_copy(update={"released_at": DAY_0, "released_by": "ana"})
    in_force = [make("q2"), make("q1", day=3), released]
    others = [make("q4", table="log"), make("q5", day=13)]  # not read, and after the window
    learning = learn_from(settings, [*in_force, *others])
    assert [days.quarantine_id for days in learning.quarantined] == ["q1", "q2"]
    assert learn_from(learning, in_force) == learning
    assert IngestSettings.parse(learning.model_dump(mode="json")) == learning
    assert serve_from(learning) == learn_from(settings, others) == settings
    first = fingerprint_source(settings)
    assert fingerprint_source(learning) != first == fingerprint_source(serve_from(learning))
