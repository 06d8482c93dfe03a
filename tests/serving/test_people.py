"""What people did since the bundle was built takes part in the next answer."""

import json
from datetime import timedelta

import numpy as np
import pytest

from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.feeds.activity import ActivityEvent
from serving.feeds.feed import Line, Position
from serving.feeds.settings import PeopleSettings
from serving.people import LivePeople
from tests.serving import tiny
from tests.serving.tiny import LATER, NEW, NOW, every_item, ids

ANY = Line(b"", Position("a", 0))
EARLIEST = (tiny.AS_OF - timedelta(hours=30)).isoformat()


def at(minutes: float) -> str:
    return (tiny.AS_OF + timedelta(minutes=minutes)).isoformat()


def did(user: str, item: str, kind: str = "view", time: str = LATER, **more: object) -> dict:
    return {"user_id": user, "item_id": item, "event_type": kind, "event_time": time, **more}


@pytest.fixture
def people(bundle):
    return LivePeople(Catalogue(bundle), None, Counters(), PeopleSettings(people=3, events=4))


def add(people: LivePeople, *events: dict) -> None:
    for event in events:
        people._add(ActivityEvent.model_validate(event), ANY)


def test_events_are_the_same_in_any_order_and_however_often_they_come(people, bundle):
    events = [did("u", f"i{n}", "view" if n % 2 else "like", at(n)) for n in range(1, 5)]
    events += [did("u", "i9", "hide", at(9)), did("u", "i8", "purchase", at(3))]
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = LivePeople(Catalogue(bundle), None, Counters(), PeopleSettings(events=5))
        add(other, *(events[i] for i in (*rng.permutation(6), *rng.integers(0, 6, 9))))
        recent = other.of("u")
        assert sorted(recent.item_ids) == ["i1", "i2", "i3", "i4", "i8"]
        assert list(recent.times) == sorted(recent.times, reverse=True)
        assert (recent.bought, recent.hidden) == (["i8"], ["i9"])


def test_events_of_one_time_and_what_is_past_a_bound_do_not_depend_on_order(bundle, monkeypatch):
    monkeypatch.setattr("serving.people.MOST_LISTED", 2)
    events = [did("u", f"i{n % 4}", kind) for n, kind in enumerate(("view", "like") * 4)]
    events += [did("u", f"b{n}", "purchase", at(n)) for n in range(1, 5)]
    rng, catalogue, found = np.random.default_rng(0), Catalogue(bundle), []
    for _ in range(20):
        other = LivePeople(catalogue, None, Counters(), PeopleSettings(events=5))
        add(other, *(events[i] for i in rng.permutation(len(events))))
        recent = other.of("u")
        found.append((list(recent.item_ids), list(recent.types), sorted(recent.bought)))
    assert all(one == found[0] for one in found)
    assert found[0][2] == ["b3", "b4"]


def test_the_latest_events_of_the_latest_people_are_kept_and_what_is_dropped_is_counted(people):
    add(people, *(did("u", f"i{n}", time=at(n)) for n in range(9)))
    assert people.of("u").item_ids == ["i8", "i7", "i6", "i5"]
    add(people, did("v", "i"), did("w", "i"), did("u", "i", time=at(99)), did("x", "i"))
    assert len(people) == 3
    assert not people.of("v").item_ids
    assert people.of("u").item_ids[0] == "i"
    assert people._counters.total("refit_activity_people_dropped") == 1


def test_what_was_long_before_the_bundle_and_what_was_only_shown_does_not_count(people):
    add(people, did("u", "i", "purchase", EARLIEST), did("u", "j", "impression", seen=True))
    assert len(people) == 0
    assert people.of(None) is people.of("nobody")


@pytest.fixture
def activity(tmp_path):
    def write(*events: dict) -> None:
        (tmp_path / "activity").mkdir(exist_ok=True)
        with (tmp_path / "activity" / "a.jsonl").open("a") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)

    return write


@pytest.fixture
def serve_live(serve, tmp_path):
    feeds = {"activity": str(tmp_path / "activity"), "stock": str(tmp_path / "stock")}

    def make(**settings: object):
        return serve(feeds=feeds, **settings)

    return make


def answer(recommender, user: str = "user-3", **request: object) -> dict:
    items = recommender.recommend({"user_id": user, "k": 500, "time": NOW, **request})["items"]
    return {item["item_id"]: item["score"] for item in items}


def stored(user: int) -> list[dict]:
    kinds = ("view", "view", "like", "purchase")
    times = [(tiny.AS_OF - timedelta(days=d)).isoformat() for d in (1, 2, 3, 4)]
    rows = (user + 3, user + 2, user + 1, user)
    return [
        {"item_id": f"item-{row}", "event_type": kind, "event_time": time}
        for row, kind, time in zip(rows, kinds, times, strict=True)
    ]


def test_an_event_joins_the_stored_history_as_if_the_request_had_given_both(
    serve_live, activity, until
):
    recommender = serve_live()
    before = answer(recommender)
    activity(did("user-3", "item-77", "like"), did("new-user", "item-78"))
    until(lambda: answer(recommender) != before)
    live = {"item_id": "item-77", "event_type": "like", "event_time": LATER}
    assert answer(recommender) == answer(recommender, history=[live, *stored(3)])
    live = {"item_id": "item-78", "event_type": "view", "event_time": LATER}
    assert answer(recommender, "new-user") == answer(recommender, "new-user", history=[live])
    assert answer(recommender, history=[]) == answer(recommender, "user-3", history=[])


def test_what_is_bought_or_hidden_is_not_shown_again_at_once(serve_live, activity, until):
    recommender = serve_live()
    assert {"item-50", "item-51", "item-52"} <= set(every_item(recommender, user_id="user-3"))
    activity(
        did("user-3", "item-50", "purchase"),
        did("user-3", "item-51", "hide"),
        did("user-3", "item-52", "not_interested"),
        did("user-3", "nobody-knows-it", "hide"),
    )
    until(lambda: not {"item-50", "item-51", "item-52"} & set(answer(recommender)))
    assert "item-50" in every_item(recommender, user_id="user-4")
    shown = every_item(recommender, user_id="user-3", history=[])
    assert not {"item-50", "item-51", "item-52"} & set(shown), "rules hold whatever is given"


def test_the_running_visit_is_read_only_where_towers_or_settings_say_so(
    serve_live, activity, until
):
    as_trained, always = serve_live(), serve_live(people={"running_visit": "always"})
    before = answer(as_trained)
    minute_ago = (tiny.AS_OF + timedelta(days=1, minutes=-1)).isoformat()
    activity(did("user-3", "item-77", "like", minute_ago))
    until(lambda: answer(always) != before)
    until(lambda: len(as_trained.snapshot.people) == 1)
    assert answer(as_trained) == before
    next_visit = (tiny.AS_OF + timedelta(days=1, hours=2)).isoformat()
    given = {"item_id": "item-77", "event_type": "like", "event_time": minute_ago}
    assert answer(as_trained, time=next_visit) == answer(
        as_trained, time=next_visit, history=[given, *stored(3)]
    )


def test_a_replay_knows_nothing_of_what_came_later(serve_live, activity, until):
    recommender = serve_live()
    early = (tiny.AS_OF + timedelta(minutes=30)).isoformat()
    before = answer(recommender, time=early)
    activity(did("user-3", "item-77"), did("user-3", "item-50", "hide"))
    until(lambda: "item-50" not in answer(recommender))
    assert answer(recommender, time=early) == before


def test_retrievers_and_explanations_know_what_a_person_did_lately(serve_live, activity, until):
    followed = serve_live(retrieval={"retrievers": {"followed": 1}})
    similar = serve_live(retrieval={"retrievers": {"similar": 1}, "similar_to": 1})
    towers = serve_live()
    before = answer(followed)
    activity(did("user-3", "item-51", "like"))
    until(lambda: answer(followed) != before)
    sellers = tiny.ITEMS["seller_id"].to_pylist()
    assert {sellers[int(item[5:])] for item in answer(followed)} == {"user-4", "user-11"}
    until(lambda: len(similar.snapshot.people) == len(towers.snapshot.people) == 1)
    about = ids(similar.similar({"item_id": "item-51"}))
    assert next(iter(answer(similar))) == next(i for i in about if sellers[int(i[5:])] != "user-3")
    later = (tiny.AS_OF + timedelta(days=1)).isoformat()
    asked = {"user_id": "user-3", "time": later, "explain": True, "k": 50}
    nearest = [i["why"]["nearest"] for i in towers.recommend(asked)["items"]]
    assert "item-51" in {one["item_id"] for items in nearest for one in items}


def test_a_view_of_a_listing_newer_than_the_bundle_counts(serve, activity, until, tmp_path):
    feeds = {"activity": str(tmp_path / "activity"), "stock": str(tmp_path / "stock")}
    (tmp_path / "stock" / "a.jsonl").write_text(json.dumps(NEW) + "\n")
    recommender = serve(feeds=feeds)
    assert "new-1" in answer(recommender)
    before = answer(recommender)
    activity(did("user-3", "new-1"))
    until(lambda: answer(recommender) != before)


def test_a_restart_and_a_swap_know_what_was_known(
    serve_live, activity, until, registry, other_bundle
):
    first = serve_live()
    activity(did("user-3", "item-77"), did("user-3", "item-50", "hide"))
    until(lambda: "item-50" not in answer(first))
    assert answer(serve_live()) == answer(first)
    tiny.promote(registry, other_bundle)
    until(lambda: first.snapshot.bundle_id == other_bundle.bundle_id)
    assert "item-50" not in answer(first)
    assert first.snapshot.people.of("user-3").item_ids == ["item-77"]


def test_a_line_that_breaks_the_contract_is_a_dead_letter(serve_live, activity, until, tmp_path):
    recommender = serve_live()
    bad = {
        "user_id": did("", "i"),
        "item_id: holds control or invisible characters": did("u", "i\u200b"),
        "event_type": did("u", "i", "stare"),
        "event_time: before 1990": did("u", "i", time="1970-01-01T00:00:00Z"),
        "price: negative": did("u", "i", price=-5),
        "seen": did("u", "i", "impression", seen="yes"),
    }
    activity(*bad.values(), did("user-3", "item-50", "hide"))
    until(lambda: "item-50" not in answer(recommender))
    assert recommender.counters.total("refit_activity_dead_letters") == len(bad)
    (kept,) = (tmp_path / "log" / "activity_dead_letters").glob("*.jsonl")
    assert all(reason in kept.read_text() for reason in bad)
    assert ids(recommender.recommend({"user_id": "u"}))
