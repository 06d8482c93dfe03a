import json

import pytest

from serving.processes import free_port
from tests.serving import tiny
from tests.serving.tiny import EARLIER, LATER, LIVE, MUCH_LATER, NEW, NOW, every_item, gone, ids


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
    feed(gone(first), gone("nobody-knows-it"), gone("item-9", EARLIER))
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
    seen = [{"item_id": "new-1", "event_type": "view", "event_time": NOW}]
    assert ids(recommender.recommend({"history": seen})) != ids(recommender.recommend({})), (
        "it says something about taste"
    )
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
    """The tiny item tower knows an item by its id alone: listed again, it keeps its score."""
    recommender = serve()
    before = recommender.recommend({"k": 500})["items"]
    feed({**NEW, "item_id": before[3]["item_id"], "price": 1.0})
    cheap = {"price": {"max": 1.5}}
    until(lambda: every_item(recommender, require=cheap) == [before[3]["item_id"]])
    after = recommender.recommend({"k": 500})["items"]
    assert [item["item_id"] for item in after] == [item["item_id"] for item in before]
    assert after[3]["score"] == pytest.approx(before[3]["score"], rel=1e-5)


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
