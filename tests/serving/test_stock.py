import json
import threading
import time
from datetime import timedelta

import pytest

from refit.ports import free_port
from serving.listings import tower_inputs
from tests.serving import tiny
from tests.serving.tiny import EARLIER, LATER, LIVE, MUCH_LATER, NEW, NOW, every_item, gone, ids

LONG_BEFORE = (tiny.AS_OF - timedelta(hours=25)).isoformat()
JUST_BEFORE = (tiny.AS_OF - timedelta(minutes=1)).isoformat()
LATEST = (tiny.AS_OF + timedelta(hours=3)).isoformat()
AN_HOUR = 2e-3
"""How much a score may change because a listing is an hour older, and its vector has 16 bits."""


def without(line: dict, name: str) -> dict:
    return {key: value for key, value in line.items() if key != name}


@pytest.fixture
def feed(tmp_path):
    def write(*changes: dict | str, name: str = "feed.jsonl") -> None:
        with (tmp_path / "stock" / name).open("a") as file:
            for change in changes:
                line = change if isinstance(change, str) else json.dumps(change) + "\n"
                file.write(line)

    return write


def test_a_sold_item_is_no_longer_recommended_and_others_are(serve, feed, until):
    recommender = serve()
    first = every_item(recommender)[0]
    feed(gone(first), gone("nobody-knows-it"), gone("item-9", LONG_BEFORE))
    until(lambda: set(every_item(recommender)) == LIVE - {first})


def test_an_item_sold_before_the_start_is_never_recommended(serve, feed):
    feed(gone("item-1"))
    assert "item-1" not in every_item(serve())


def test_a_new_listing_is_recommended_filtered_and_removed_when_sold(serve, feed, until):
    recommender = serve()
    feed(NEW)
    until(lambda: "new-1" in every_item(recommender))
    assert set(every_item(recommender)) == LIVE | {"new-1"}
    assert "new-1" in every_item(recommender, require={"size": ["M"], "price": {"max": 55}})
    assert "new-1" not in every_item(recommender, require={"size": ["L"]})
    assert "new-1" not in every_item(recommender, require={"price": {"max": 54}})
    assert "new-1" not in every_item(recommender, exclude=["new-1"])
    assert "new-1" not in every_item(recommender, user_id="user-5"), "it is their own"
    seen = [{"item_id": "new-1", "event_type": "view", "event_time": LATER}]
    told = recommender.recommend({"history": seen, "time": NOW})
    assert ids(told) != ids(recommender.recommend({"time": NOW})), "it says something about taste"
    feed(gone("new-1", MUCH_LATER))
    until(lambda: set(every_item(recommender)) == LIVE)


def test_an_item_that_is_listed_again_is_still_ineligible_if_bought_or_hidden(serve, feed, until):
    """user-29 bought it and user-4 hid it before it was gone from the bundle altogether."""
    recommender = serve()
    feed({**NEW, "item_id": "long-gone"})
    until(lambda: "long-gone" in every_item(recommender))
    shown = {
        user for user in range(30) if "long-gone" in every_item(recommender, user_id=f"user-{user}")
    }
    assert shown == set(range(30)) - {29, 4, 5}, "user-5 sells it"


def test_rules_apply_to_a_new_listing_and_are_counted(serve, feed, until):
    recommender = serve()
    feed(NEW, gone("item-1"))
    until(lambda: "new-1" in every_item(recommender))
    bought = {"item_id": "new-1", "event_type": "purchase", "event_time": NOW}
    counted = recommender.counters.total
    for request in ({"hidden": ["new-1"]}, {"exclude": ["new-1"]}, {"history": [bought]}):
        assert set(every_item(recommender, **request)) == LIVE - {"item-1"}
    for rule in ("hidden", "excluded", "bought"):
        assert counted("refit_ineligible_items", rule=rule) == 1
    assert counted("refit_ineligible_items", rule="not_live") >= 4
    prices = [{"min": NEW["price"]}, {"max": NEW["price"]}, [NEW["price"]]]
    assert all("new-1" in every_item(recommender, require={"price": p}) for p in prices)


def test_a_new_listing_is_ranked_by_its_vector(serve, feed, until):
    """The tiny tower reads id, age, popularity and picture: listed again, it keeps its score."""
    recommender = serve()
    before = recommender.recommend({"k": 500})["items"]
    feed(without(NEW, "image_embedding") | {"item_id": before[3]["item_id"], "price": 1.0})
    cheap = {"price": {"max": 1.5}}
    until(lambda: every_item(recommender, require=cheap) == [before[3]["item_id"]])
    after = recommender.recommend({"k": 500})["items"]
    assert [item["item_id"] for item in after] == [item["item_id"] for item in before]
    assert after[3]["score"] == pytest.approx(before[3]["score"], abs=AN_HOUR)


def test_the_latest_change_counts_in_any_order_of_the_files(serve, feed, until):
    feed(gone("item-1", MUCH_LATER), name="a.jsonl")
    feed({**NEW, "item_id": "item-1"}, NEW, name="b.jsonl")
    recommender = serve()
    until(lambda: "new-1" in every_item(recommender))
    assert "item-1" not in every_item(recommender)


def test_invalid_lines_become_dead_letters_with_a_reason_and_stop_nothing(
    serve, feed, until, tmp_path
):
    bad = {
        "no json at all\n": "not JSON",
        '"text"\n': "valid dictionary",
        "[" * 100_000 + "\n": "not JSON",
        json.dumps({"item_id": "x", "change": "stolen", "at": LATER}) + "\n": "change",
        json.dumps({"item_id": "x", "change": "delisted"}) + "\n": "at",
        json.dumps({**NEW, "item_id": "a", "price": "cheap"}) + "\n": "price",
        json.dumps({**NEW, "item_id": "b", "brand": 7}) + "\n": "brand",
        json.dumps({**NEW, "item_id": "c", "image_embedding": [1]}) + "\n": "image_embedding",
        json.dumps({**NEW, "item_id": "d", "listed_at": "then"}) + "\n": "listed_at",
        json.dumps({**NEW, "item_id": "e", "price": float("nan")}) + "\n": "price",
    }
    recommender = serve()
    feed(*bad, "\n", NEW)
    until(lambda: "new-1" in every_item(recommender))
    assert recommender.counters.total("refit_stock_dead_letters") == len(bad)
    (kept,) = (tmp_path / "log" / "stock_dead_letters").glob("*.jsonl")
    reasons = [json.loads(line)["reason"] for line in kept.read_text().splitlines()]
    for expected in bad.values():
        assert any(expected in reason for reason in reasons), (expected, reasons)


def test_an_incomplete_line_is_read_once_it_is_complete(serve, feed, until):
    recommender = serve()
    line = json.dumps(gone("item-1")) + "\n"
    feed(line[:20])
    feed(gone("item-2"), name="other.jsonl")
    until(lambda: "item-2" not in every_item(recommender))
    assert "item-1" in every_item(recommender)
    feed(line[20:])
    until(lambda: "item-1" not in every_item(recommender))
    assert recommender.counters.total("refit_stock_dead_letters") == 0


def test_without_a_tower_listings_wait_and_sold_items_are_still_removed(serve, feed, until):
    feed(NEW, gone("item-1"))
    recommender = serve(model_server=f"127.0.0.1:{free_port()}")
    shown = every_item(recommender)
    assert "item-1" not in shown
    assert "new-1" not in shown
    until(lambda: recommender.counters.total("refit_stock_embedding_failures") > 1)


def test_a_swap_keeps_the_changes_of_the_feed(serve, feed, registry, other_bundle, until):
    recommender = serve()
    feed(gone("item-1"), NEW)
    until(lambda: "new-1" in every_item(recommender))
    tiny.promote(registry, other_bundle)
    until(lambda: recommender.snapshot.bundle_id == other_bundle.bundle_id)
    assert set(every_item(recommender)) == LIVE - {"item-1"} | {"new-1"}


def change(item_id: str, kind: str, at: str = LATER, **attributes: object) -> dict:
    return {"item_id": item_id, "change": kind, "at": at, **attributes}


def test_a_sale_that_the_data_learned_of_too_late_takes_the_listing_off(serve, feed):
    feed(change("item-1", "sold", EARLIER), change("item-2", "listed", EARLIER, price=1.0))
    feed(change("item-3", "sold", EARLIER), name="b.jsonl")
    feed(change("item-3", "relisted", JUST_BEFORE), name="a.jsonl")
    assert set(every_item(serve())) == LIVE - {"item-1"}


def test_a_listing_that_is_withdrawn_and_listed_again_is_shown_again(serve, feed, until):
    recommender = serve()
    before = recommender.recommend({"k": 500})["items"]
    feed(change("item-1", "withdrawn"), NEW, change("new-1", "sold", MUCH_LATER))
    until(lambda: set(every_item(recommender)) == LIVE - {"item-1"})
    feed(change("item-1", "relisted", MUCH_LATER))
    feed(change("new-1", "relisted", LATEST, price=50.0))
    until(lambda: set(every_item(recommender)) == LIVE | {"new-1"})
    assert every_item(recommender, require={"price": [50.0], "brand": ["acne"]}) == ["new-1"]
    scores = {item["item_id"]: item["score"] for item in recommender.recommend({"k": 500})["items"]}
    assert {item["item_id"]: item["score"] for item in before}.items() <= scores.items()


def test_an_edit_changes_what_it_says_and_keeps_the_rest(serve, feed, until):
    """Of a listing of the bundle and of one that is newer: attributes, popularity, picture, age."""
    recommender = serve()
    feed(NEW)
    until(lambda: "new-1" in every_item(recommender))
    before = {item["item_id"]: item["score"] for item in recommender.recommend({"k": 500})["items"]}
    feed(*(change(item_id, "changed", MUCH_LATER, price=1.0) for item_id in ("item-40", "new-1")))
    cheap = {"price": {"max": 1.0}}
    until(lambda: set(every_item(recommender, require=cheap)) == {"item-40", "new-1"})
    after = recommender.recommend({"k": 500})["items"]
    assert set(before) == {item["item_id"] for item in after}
    for item in after:
        assert item["score"] == pytest.approx(before[item["item_id"]], abs=AN_HOUR)
    brand = tiny.ITEMS["brand"][40].as_py()
    assert every_item(recommender, require=cheap | {"brand": [brand]}, user_id="user-5") == [
        "item-40"
    ]


def test_a_picture_that_is_told_replaces_the_one_that_was_known(serve, feed, until):
    recommender = serve()
    before = {item["item_id"]: item["score"] for item in recommender.recommend({"k": 500})["items"]}
    feed(change("item-40", "changed", price=1.0, image_embedding=[3.0, -3.0, 3.0]))
    until(lambda: every_item(recommender, require={"price": {"max": 1.0}}) == ["item-40"])
    after = {item["item_id"]: item["score"] for item in recommender.recommend({"k": 500})["items"]}
    assert abs(after["item-40"] - before["item-40"]) > 10 * AN_HOUR


def test_a_change_that_comes_before_its_listing_is_not_lost(serve, feed, until):
    recommender = serve()
    feed(change("new-1", "changed", MUCH_LATER, price=1.0), name="a.jsonl")
    feed(gone("item-1"))
    until(lambda: "item-1" not in every_item(recommender))
    assert "new-1" not in every_item(recommender)
    feed(NEW, name="b.jsonl")
    until(lambda: every_item(recommender, require={"price": {"max": 1.0}}) == ["new-1"])


def test_a_listing_that_cannot_be_embedded_is_refused_and_may_be_completed(
    serve, feed, until, tmp_path
):
    recommender = serve()
    bad = {
        "image_embedding: missing": without(NEW, "image_embedding"),
        "seller_id: missing": without(NEW, "seller_id") | {"item_id": "new-2"},
        "not known": change("long-gone", "relisted"),
        "price: negative": NEW | {"item_id": "new-3", "price": -5},
        "is in the future": NEW | {"item_id": "new-4", "at": "2099-01-01T00:00:00Z"},
    }
    feed(*bad.values())
    recommender = serve(allow_replay=False)
    total = recommender.counters.total
    until(lambda: total("refit_stock_dead_letters") == len(bad))
    assert set(ids(recommender.recommend({"k": 500}))) == LIVE
    letters = (tmp_path / "log" / "stock_dead_letters").glob("*.jsonl")
    reasons = "\n".join(path.read_text() for path in letters)
    assert all(reason in reasons for reason in bad)
    feed(change("new-1", "changed", MUCH_LATER, image_embedding=[0.1, 0.2, 0.3]))
    until(lambda: set(ids(recommender.recommend({"k": 500}))) == LIVE | {"new-1"})


def test_a_bundle_without_counts_and_pictures_keeps_the_vectors_of_edited_listings(
    serve, feed, until, monkeypatch
):
    """One that an earlier version of Refit built; what is filtered by changes all the same."""
    monkeypatch.setattr("serving.listings.has_live_features", lambda _: False)
    recommender = serve()
    before = recommender.recommend({"k": 500})["items"]
    feed(change("item-40", "changed", price=1.0))
    until(lambda: every_item(recommender, require={"price": {"max": 1.0}}) == ["item-40"])
    after = recommender.recommend({"k": 500})["items"]
    assert [item["item_id"] for item in after] == [item["item_id"] for item in before]
    scores = [item["score"] for item in after]
    assert scores == pytest.approx([item["score"] for item in before], abs=1e-6)


def test_a_restart_and_a_second_server_know_what_the_first_knew(serve, feed, until):
    first = serve()
    feed(gone("item-1"), NEW, change("item-40", "changed", price=1.0))
    until(lambda: set(every_item(first)) == LIVE - {"item-1"} | {"new-1"})
    until(lambda: "item-40" in every_item(first, require={"price": {"max": 1.0}}))
    assert serve().recommend({"k": 500})["items"] == first.recommend({"k": 500})["items"]


def test_sales_are_applied_while_listings_wait_for_a_slow_tower(serve, feed, until, monkeypatch):
    recommender = serve()
    slow = threading.Event()

    def wait(*_: object) -> dict:
        slow.set()
        time.sleep(5)
        return {}

    monkeypatch.setattr(recommender._towers, "predict", wait)
    feed(NEW)
    assert slow.wait(10)
    started = time.monotonic()
    feed(gone("item-1"))
    until(lambda: recommender.snapshot.stock.gone is not None)
    assert time.monotonic() - started < 2


def test_a_listing_that_is_sold_while_it_is_embedded_is_not_shown(serve, feed, until, monkeypatch):
    recommender = serve()
    predict, embedded = recommender._towers.predict, []

    def sell(name: str, inputs: dict, timeout: float) -> dict:
        if "item_id" in inputs and not embedded:
            feed(change("new-1", "sold", MUCH_LATER))
            until(lambda: recommender.snapshot.stock._states["new-1"].on_sale is False)
            embedded.append(name)
        return predict(name, inputs, timeout)

    monkeypatch.setattr(recommender._towers, "predict", sell)
    feed(NEW)
    until(lambda: embedded)
    time.sleep(0.5)
    assert set(every_item(recommender)) == LIVE


def test_one_line_that_nobody_can_digest_holds_up_no_other(serve, feed, until):
    recommender = serve()
    bad = [NEW | {"item_id": f"bad-{n}", "brand": text} for n, text in enumerate(("\ud800", 7))]
    feed(*bad, NEW | {"item_id": "bad-2", "price": 10**400}, NEW)
    until(lambda: "new-1" in every_item(recommender))
    assert set(every_item(recommender, require={"brand": ["acne"]})) <= LIVE | {"new-1"}
    assert recommender.counters.total("refit_stock_dead_letters") == 3
    feed(gone("new-1") | {"brand": 7, "seller_id": None, "image_embedding": [1]})
    until(lambda: set(every_item(recommender)) == LIVE)


def test_a_listing_of_which_no_input_can_be_made_holds_up_no_other(serve, feed, until, monkeypatch):
    def refuse(features, drafts):
        if any(draft.item_id == "bad" for draft in drafts):
            raise ValueError("nobody can make this an input")
        return tower_inputs(features, drafts)

    monkeypatch.setattr("serving.stock.tower_inputs", refuse)
    recommender = serve()
    feed(*(NEW | {"item_id": name} for name in ("new-1", "new-2", "bad", "new-3")))
    until(lambda: set(every_item(recommender)) == LIVE | {"new-1", "new-2", "new-3"})
    assert recommender.counters.total("refit_stock_dead_letters") == 1


def test_what_was_said_before_the_index_does_not_come_back_with_an_edit(serve, feed, until):
    recommender = serve()
    feed(change("item-40", "changed", EARLIER, price=1.0, brand="nobody"))
    feed(change("item-40", "changed", size="XL"))
    until(lambda: every_item(recommender, require={"size": ["XL"]}) == ["item-40"])
    assert not every_item(recommender, require={"brand": ["nobody"]})
    brand, price = (tiny.ITEMS[name][40].as_py() for name in ("brand", "price"))
    same = {"size": ["XL"], "brand": [brand], "price": [price]}
    assert every_item(recommender, require=same) == ["item-40"]


def test_an_edit_keeps_the_popularity_of_a_listing(serve, feed, until):
    recommender = serve()
    popular = {"personalised": False, "k": 10}
    before = recommender.recommend(popular)["items"]
    feed(change("item-50", "changed", price=1.0))
    until(lambda: every_item(recommender, require={"price": {"max": 1.0}}) == ["item-50"])
    assert recommender.recommend(popular)["items"] == before


def test_histories_have_a_listing_that_has_ended_also_of_a_server_that_never_showed_it(
    serve, feed, until
):
    recommender = serve()
    feed(NEW | {"brand": "arket"})
    until(lambda: "new-1" in every_item(recommender))
    seen = [{"item_id": "new-1", "event_type": "view", "event_time": LATER}]

    def answer(one):
        return one.recommend({"history": seen, "time": NOW, "k": 500, "exclude": ["new-1"]})

    expected = answer(recommender)["items"]
    assert expected != recommender.recommend({"time": NOW, "k": 500})["items"]
    feed(gone("new-1", MUCH_LATER))
    until(lambda: set(every_item(recommender)) == LIVE)
    late = serve()
    until(lambda: answer(late)["items"] == expected)
    assert answer(recommender)["items"] == expected
    about = recommender.similar({"item_id": "new-1", "k": 3})
    assert about["fallback"] is None
    assert late.similar({"item_id": "new-1", "k": 3})["items"] == about["items"]


def test_what_has_ended_is_forgotten_past_a_bound_and_never_shown_again(
    serve, feed, until, tmp_path
):
    def at(minute: int) -> str:
        return (tiny.AS_OF + timedelta(minutes=minute)).isoformat()

    recommender = serve(feeds={"stock": str(tmp_path / "stock"), "ended_listings": 3})
    stock = recommender.snapshot.stock
    feed(*(change(f"unknown-{n}", "changed", at(90), price=1.0) for n in range(50)))
    for n in range(8):
        feed(NEW | {"item_id": f"new-{n}", "at": at(10 * n)}, gone(f"new-{n}", at(10 * n + 5)))
    feed(gone("item-1"), NEW | {"item_id": "last", "at": at(80)})
    until(lambda: set(every_item(recommender)) == LIVE - {"item-1"} | {"last"})
    until(lambda: not stock._waiting)
    kept = {"new-5", "new-6", "new-7", "item-1", "last"}
    assert set(stock._states) == kept
    assert set(stock._content) <= kept
    assert recommender.counters.total("refit_stock_forgotten_listings") == 55
    late = [NEW | {"item_id": name, "at": at(1)} for name in ("new-0", "new-7", "unknown-1")]
    feed(*late, gone("new-1", at(1)), change("item-1", "relisted", at(1)))
    until(lambda: recommender.counters.total("refit_stock_dead_letters") == 2)
    assert set(every_item(recommender)) == LIVE - {"item-1"} | {"last"}
    feed(NEW | {"item_id": "new-0", "at": LATEST})
    until(lambda: set(every_item(recommender)) == LIVE - {"item-1"} | {"last", "new-0"})
