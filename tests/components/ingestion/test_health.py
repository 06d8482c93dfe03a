"""The health page: each check on a tiny market, with the value that it must measure."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from components.ingestion.health.settings import HealthSettings
from refit.errors import DataValidationError, UsageError
from refit.health import HealthCheck

from .conftest import DAY_0


@pytest.fixture
def find(shop):
    def find(name: str, topic: str = "events", **settings) -> HealthCheck:
        """Ingest the shop and return one line of its health page."""
        if not shop.out.exists():
            shop.ingest(**settings)
        checks = json.loads((shop.out / "health.json").read_text())["checks"]
        [found] = [c for c in checks if c["name"] == name and c["topic"] == topic]
        assert found.pop("state") == HealthCheck.parse(found).state
        return HealthCheck.parse(found)

    return find


def test_the_page_is_written_and_its_lines_are_in_the_manifest(shop, make_events):
    shop.write("events", make_events())
    manifest = shop.ingest()
    page = (shop.out / "health.html").read_text()
    written = json.loads((shop.out / "health.json").read_text())
    assert len(manifest.health) == len(written["checks"]) > 30
    assert all(check.shown.split("'")[0] in page for check in manifest.health)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert written["events_per_day"]["2024-03-01"] == 1


def test_ids_are_escaped_on_the_page(shop, make_events):
    shop.write("events", make_events(user_id="<b>robot</b>"))
    shop.ingest()
    page = (shop.out / "health.html").read_text()
    assert "&lt;b&gt;robot" in page
    assert "<b>robot" not in page


# Times


def test_first_last_event_and_gaps(shop, make_events, find):
    events = [e for e in make_events() if e["event_time"].day not in (4, 5, 9)]
    shop.write("events", events)
    assert find("first and last event").shown == (
        "2024-03-01 12:00 to 2024-03-12 12:00 UTC, 12 days"
    )
    gaps = find("days without events")
    assert gaps.measured == 3 / 12
    assert gaps.shown == "3 of 12 (25.0%); the longest gap is 2 days, from 2024-03-04"
    assert gaps.state == "look"
    assert find("last event before the end of the window").measured == 19.5  # as_of is 1 April


def test_the_busiest_day_is_compared_with_the_median_day(shop, make_events, find):
    rush = [{"event_time": DAY_0 + timedelta(seconds=s)} for s in range(1, 30)]
    shop.write("events", make_events(*rush))
    busiest = find("busiest day")
    assert (busiest.measured, busiest.state) == (30.0, "look")
    assert busiest.shown == "30 events on 2024-03-01, 30.0 times the median day"


def test_a_sparse_test_window(shop, make_events, find):
    further = [{"event_time": DAY_0 + timedelta(hours=h)} for h in range(1, 13)]
    shop.write("events", make_events(*further))
    fall = find("events per day in test", end="2024-03-13")
    # Train: 19 events from 1 March 12:00 to 8 March; test: 3 events on 3 days.
    assert fall.measured == pytest.approx(1 - 1 / (19 / 6.5))
    users = find("users in test")
    assert users.measured == pytest.approx(0.98 / 3**0.5)
    assert (fall.state, users.state) == ("look", "look")


def test_dates_without_a_time_are_noticed(shop, make_events, find):
    shop.write("events", make_events({"event_time": DAY_0 + timedelta(hours=3, minutes=1)}))
    spike = find("events at one time of day")
    assert spike.measured == 12 / 13
    assert spike.shown == "12 of 13 (92.3%) at 12:00:00 UTC"
    assert spike.state == "look"


def test_times_rounded_to_the_hour_are_noticed(shop, make_events, find):
    hours = [{"event_time": DAY_0 + timedelta(hours=h)} for h in (1, 2, 3)]
    shop.write("events", make_events(*hours, {"event_time": DAY_0 + timedelta(minutes=7)}))
    rounded = find("other events at full hours")
    assert (rounded.measured, rounded.state) == (3 / 4, "look")


def test_event_types_are_counted(shop, make_events, find):
    shop.write("events", make_events({"event_type": "like"}))
    types = find("event types")
    assert types.shown == "view 12, like 1"
    assert types.state == "look"  # there is no purchase


# Whose events


def test_events_without_a_known_item_are_counted(shop, make_events, items, find):
    shop.write("events", make_events({"item_id": "I4.0"}, {"item_id": "zz"}))
    shop.write("items", items)
    line = find("events without a known item")
    assert line.measured == 2 / 14
    assert "; the events have 'I4.0', the items 'i4'; 1 of 2 (50.0%) of the ids" in line.advice


@pytest.mark.parametrize("spell", ["00{}", "{}.0", " {} ", "{} "])
def test_no_event_with_a_known_user_stops_the_run_with_the_page(shop, make_events, spell):
    events = [e | {"user_id": str(i % 4 + 1)} for i, e in enumerate(make_events())]
    shop.write("events", events)
    shop.write("users", [{"user_id": spell.format(n), "age": n} for n in range(1, 5)])
    with pytest.raises(DataValidationError) as stopped:
        shop.ingest()
    message = str(stopped.value)
    assert "stop  events: events without a known user: 12 of 12 (100.0%)" in message
    assert f"; the events have '1', '2', '3', the users {spell.format(1)!r}, " in message
    assert "stop  events: users known in another spelling only: 4 of 4 (100.0%)" in message
    assert "health:\n      unknown_users: {stop: null}" in message
    assert not shop.out.exists()
    [place] = shop.out.parent.glob("dataset.rejected-*")
    assert f"The health page of the data is {place}/health.html" in message
    assert "12 of 12" in (place / "health.html").read_text()


def test_users_with_features(shop, make_events, find):
    shop.write("events", make_events())  # three events of each of u0 to u3
    users = [("u0", 30, "NO"), ("u1", None, " "), ("u2", None, "SE"), ("x", 1, "NO")]
    shop.write("users", [{"user_id": u, "age": a, "country": c} for u, a, c in users])
    assert find("events without a known user").measured == 3 / 12
    assert find("events of users without features").measured == 6 / 12
    assert find("users without an event", "users").measured == 1 / 4


def test_null_like_ids_are_counted_and_named(shop, make_events, find):
    strange = [
        {"user_id": u, "item_id": i} for u, i in (("NULL", "i1"), ("nan", "-"), ("NULL", "\\N"))
    ]
    strange = [s | {"event_time": DAY_0 + timedelta(minutes=n)} for n, s in enumerate(strange)]
    shop.write("events", make_events(*strange))
    line = find("user_id spelled like a null")
    assert line.measured == 3 / 15
    assert line.shown == "3 of 15 (20.0%): 'NULL' 2, 'nan' 1"
    assert line.state == "look"
    # Rejected with its user: '-' may be an id, and is rejected for no other reason.
    assert find("item_id spelled like a null").shown == "1 of 15 (6.7%): '\\\\N' 1"
    assert shop.ingest_again(null_values=[]).counts["events"].kept == 15
    assert find("item_id spelled like a null").shown == "2 of 15 (13.3%): '-' 1, '\\\\N' 1"
    assert find("item_id spelled like a null", "items").measured == 2 / 7


def test_a_quarter_of_null_like_ids_stops_the_run(shop, make_events):
    events = [e | {"user_id": "undefined" if i % 2 else "u"} for i, e in enumerate(make_events())]
    shop.write("events", events)
    for null_values in (None, []):
        with pytest.raises(DataValidationError, match=r"6 of 12 .*'undefined' 6") as stopped:
            shop.ingest(health={"largest_user": {"stop": None}}, null_values=null_values)
        assert "null_like_ids: {stop: null}" in str(stopped.value)


def _add_a_bot(n):
    return [
        {
            "user_id": "bot",
            "item_id": f"i{i % 5}",
            "event_time": DAY_0 + timedelta(days=9, seconds=i),
        }
        for i in range(n)
    ]


def test_the_largest_user_is_named_in_train_and_in_test(shop, make_events, find):
    shop.write("events", make_events(*_add_a_bot(7)))
    everywhere = find("largest user")
    assert everywhere.shown == "'bot': 7 of 19 (36.8%)"
    assert everywhere.state == "look"
    assert find("largest user in train").shown == "'u0': 2 of 7 (28.6%)"
    assert find("largest user in test").shown == "'bot': 7 of 10 (70.0%)"


def test_a_bot_stops_the_run_unless_its_days_are_capped(shop, make_events, find):
    shop.write("events", make_events(*_add_a_bot(300)))
    with pytest.raises(DataValidationError, match="'bot': 300 of 312"):
        shop.ingest(health={})
    counts = shop.ingest(health={}, max_user_events_per_day=5).counts["events"]
    assert (counts.rows_in, counts.kept, counts.capped) == (312, 17, 295)
    kept = [r["event_time"] for r in shop.read("events") if r["user_id"] == "bot"]
    assert kept == [DAY_0 + timedelta(days=9, seconds=s) for s in range(5)]  # the earliest
    over = shop.read_rejected("events_over_cap")
    assert len(over) == 295
    assert {r["reason"] for r in over} == {"user_id: more than 5 events of a user in a day"}
    assert find("events over the cap").shown == (
        "295 of 312 (94.6%), of more than 5 of one user and day"
    )


def test_purchases_over_the_cap_still_count_for_eligibility(shop, make_events):
    bot = [e | {"event_type": "purchase"} for e in _add_a_bot(4)]
    shop.write("events", make_events(*bot))
    shop.ingest(max_user_events_per_day=3)
    [earlier] = shop.read("earlier")
    assert earlier["event_time"] == DAY_0 + timedelta(days=9, seconds=3)
    assert earlier["user_id"] == "bot"


def test_a_cap_that_nobody_reaches_changes_nothing(shop, make_events):
    shop.write("events", make_events())
    assert shop.ingest(max_user_events_per_day=1).counts["events"].capped == 0
    assert not (shop.out / "rejected" / "events_over_cap.parquet").exists()


def test_the_largest_seller_is_named(shop, make_events, items, find):
    shop.write("events", make_events())  # i0 and i1 have three events each, the others two
    sellers = ["s1", "s1", "s2", None, None]
    shop.write("items", [i | {"seller_id": s} for i, s in zip(items, sellers, strict=True)])
    line = find("largest seller")
    assert line.shown == "'s1': 6 of 8 (75.0%)"
    assert line.state == "look"


@pytest.mark.parametrize(
    ("times", "measured", "said"), [(1, 0.0, "one_of_a_kind"), (2, 1.0, "replenishable")]
)
def test_items_bought_more_than_once(shop, make_events, find, times, measured, said):
    bought = [
        {"event_type": "purchase", "item_id": item, "event_time": DAY_0 + timedelta(hours=h)}
        for item in ("i0", "i1")
        for h in range(times)
    ]
    shop.write("events", make_events(*bought))
    line = find("items bought more than once", "items")
    assert line.measured == measured
    assert f"features.market.stock: {said}" in line.advice


def test_visits_that_are_none(shop, make_events, find):
    hours = [{"event_time": DAY_0 + timedelta(hours=h)} for h in (1, 30)]
    visits = [f"v{n}" for n in range(12)] + ["v0", "v0"]
    events = [e | {"session_id": v} for e, v in zip(make_events(*hours), visits, strict=True)]
    shop.write("events", events)
    assert find("visits with one event").measured == 11 / 12
    assert find("visits longer than a day").measured == 1 / 12
    assert find("visits of several users").shown == "1 of 12 (8.3%)"  # u0 and u3


def test_items_without_an_event(shop, make_events, items, find):
    shop.write("events", make_events())
    shop.write("items", [*items, {"item_id": "i9", "price": 1.0}])
    assert find("items without an event", "items").measured == 1 / 6


# Rows and columns


def test_duplicates_and_rejected_rows(shop, make_events, find):
    shop.write("events", make_events({"user_id": None}, {"event_type": "buy"}) + make_events())
    duplicates = find("duplicates")
    assert (duplicates.measured, duplicates.state) == (12 / 26, "look")
    rejected = find("rejected rows")
    assert rejected.shown == "2 of 26 (7.7%): user_id: missing 1; event_type: unknown event type 1"
    assert rejected.state == "look"


def test_more_rejected_rows_than_allowed_are_marked_stop(shop, make_events):
    shop.write("events", make_events({"user_id": None}))
    with pytest.raises(DataValidationError, match="1 of 13 rows"):
        shop.ingest(max_rejected={"events": 0.05})
    [place] = shop.out.parent.glob("dataset.rejected-*")
    checks = json.loads((place / "health.json").read_text())["checks"]
    states = {c["state"] for c in checks if c["name"] == "rejected rows"}
    assert states == {"stop"}


def test_rows_outside_the_window(shop, make_events, find):
    shop.write("events", make_events())
    assert find("rows outside the window", start="2024-03-04").shown == "3 of 12 (25.0%)"


def test_absent_tables_and_columns_say_what_follows(shop, make_events, find):
    shop.write("events", make_events())
    for topic, name in (
        *(("items", "table"), ("users", "table"), ("events", "session_id")),
        *(("items", "seller_id"), ("items", "listed_at"), ("items", "delisted_at")),
        *(("items", "price"), ("items", "category_1")),
    ):
        line = find(name, topic)
        assert (line.measured, line.state) == (1.0, "look"), name
        assert line.advice, name
    for topic, name in (("events", "request_id"), ("items", "brand"), ("items", "image_embedding")):
        line = find(name, topic)
        assert (line.shown, line.state) == ("absent", "ok"), name
        assert line.advice, name


def test_columns_that_are_mostly_null_count_as_missing(shop, make_events, items, find):
    shop.write("events", make_events())
    values = [
        {"category_1": c, "title": t, "image_embedding": v, "delisted_at": d}
        for c, t, v, d in (
            ("coat", "red", [0.1, 0.2], DAY_0 + timedelta(days=11)),
            ("", None, [0.0, 0.0], None),
            (None, " ", None, None),
            (" ", "blue", [0.0, 1.0], None),
            ("hat", None, None, None),
        )
    ]
    shop.write("items", [i | v for i, v in zip(items, values, strict=True)])
    category = find("category_1", "items")
    assert category.shown == "no value in 3 of 5 (60.0%)"
    assert category.state == "look"
    assert find("items without text", "items").measured == 3 / 5
    assert find("image_embedding", "items").measured == 3 / 5
    sold = find("delisted_at", "items")
    assert (sold.measured, sold.state) == (4 / 5, "ok")  # live items have none


def test_prices_and_currencies(shop, make_events, items, find):
    shop.write("events", make_events())
    shop.write("items", [i | {"currency": c} for i, c in zip(items, "AAABB", strict=True)])
    assert find("currencies", "items").shown == "A 3, B 2"
    assert find("currencies", "items").state == "look"
    assert find("prices of zero", "items").measured == 0.0


def test_prices_without_a_currency(shop, make_events, find):
    shop.write("events", make_events())
    shop.write("items", [{"item_id": f"i{n}", "price": float(n > 1)} for n in range(5)])
    assert find("currencies", "items").state == "look"
    assert find("prices of zero", "items").measured == 2 / 5


def test_events_outside_the_lifetime_of_their_item(shop, make_events, find):
    shop.write("events", make_events())  # of i0 on days 0, 5, 10; of i1 on days 1, 6, 11
    lives = {"i0": (1, 6), "i1": (1, 11)}
    rows = [{"item_id": f"i{n}", "listed_at": None, "delisted_at": None} for n in range(5)]
    for row in rows:
        if row["item_id"] in lives:
            days = (DAY_0 + timedelta(days=day) for day in lives[row["item_id"]])
            row["listed_at"], row["delisted_at"] = days
    shop.write("items", rows)
    assert find("events before the listing").shown == "1 of 6 (16.7%)"
    assert find("events after the delisting").shown == "1 of 6 (16.7%)"


def test_events_that_are_all_before_the_listing_stop_the_run(shop, make_events):
    shop.write("events", make_events())
    exported = datetime(2024, 3, 20, tzinfo=UTC)
    shop.write("items", [{"item_id": f"i{n}", "listed_at": exported} for n in range(5)])
    with pytest.raises(DataValidationError, match="events before the listing: 12 of 12"):
        shop.ingest()


def test_constant_columns_are_named(shop, make_events, items, find):
    shop.write("events", make_events(surface="home", price=2.0))
    vector = {"image_embedding": [0.5, 0.5]}
    shop.write("items", [i | vector | {"size": i["item_id"], "brand": "b"} for i in items])
    assert find("constant columns").shown == "price, surface"
    assert find("constant columns", "items").shown == "brand, image_embedding"


# Thresholds


def test_one_threshold_keeps_the_default_of_the_other():
    limits = HealthSettings.parse({"unknown_users": {"look": 0.2}, "largest_user": {"stop": None}})
    assert (limits.unknown_users.look, limits.unknown_users.stop) == (0.2, 0.95)
    assert (limits.largest_user.look, limits.largest_user.stop) == (0.1, None)
    assert limits.duplicates == HealthSettings().duplicates


def test_a_threshold_can_stop_a_run(shop, make_events):
    shop.write("events", make_events())
    with pytest.raises(DataValidationError, match="stop  events: session_id: absent"):
        shop.ingest(health={"missing_column": {"stop": 1}, "largest_user": {"stop": None}})


def test_the_largest_user_of_a_handful_of_events_stops_nothing(shop, make_events, find):
    shop.write("events", make_events(user_id="ann"))
    assert find("largest user").shown == "'ann': 12 of 12 (100.0%)"
    assert find("largest user").state == "look"


def test_an_unknown_check_is_an_error(shop, make_events):
    shop.write("events", make_events())
    with pytest.raises(UsageError, match=r"health\.duplicate: unknown name"):
        shop.ingest(health={"duplicate": {"look": 1}})


def test_ids_in_several_spellings_and_rounded_ids(shop, make_events, find):
    users = ["ann", " ann", "ann\u00a0", "n\u00e9e", "ne\u0301e", "7", "7.0", "x"]
    events = [e | {"user_id": users[i % 8]} for i, e in enumerate(make_events())]
    events[0]["item_id"] = "1.23E+11"
    shop.write("events", events)
    assert find("user_id in several spellings").shown == "4 of 8 (50.0%)"
    assert find("user_id in scientific notation").measured == 0.0
    assert find("item_id in scientific notation", "items").measured == 1 / 6
    assert find("item_id in scientific notation", "items").state == "look"
