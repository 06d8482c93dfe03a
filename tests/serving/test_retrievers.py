import json
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from refit.errors import RefitError, UsageError
from refit.ports import free_port
from serving.pool import Found
from serving.retrieval import share_places
from serving.settings import RecommenderSettings
from tests.serving import tiny
from tests.serving.tiny import AS_OF, ITEMS, LIVE, NOW, ids

PAST = {"event_type": "like", "event_time": (AS_OF - timedelta(days=1)).isoformat()}


def only(name, **more):
    return {"retrieval": {"retrievers": {name: 1}, **more}}


def ask(recommender, **body):
    return ids(recommender.recommend({"time": NOW, "k": 500, **body}))


def sold_by(*sellers):
    names = ITEMS["seller_id"].to_pylist()
    return {tiny.item_id(row) for row in range(tiny.N_LIVE) if names[row] in sellers}


def test_popular_is_the_fallback_of_the_towers(serve):
    party = {"context": {"occasion": "party"}, "k": 12}
    dead = {"model_server": f"127.0.0.1:{free_port()}"}
    assert ask(serve(**only("popular")), **party) == ask(serve(**dead), **party)


def test_followed_has_items_of_sellers_whose_items_were_liked_or_bought(serve):
    recommender = serve(**only("followed"))
    # user-7 bought item-7 of user-7 and liked item-8; the views of item-9 and item-10 do not count.
    assert set(ask(recommender, user_id="user-3")) == sold_by("user-4") - {"item-3"}
    history = [{"item_id": "item-51", **PAST}]
    shown = ask(recommender, history=history)
    assert set(shown) == sold_by("user-11")
    query = recommender.recommend({"time": NOW, "history": history})
    assert ids(query) == shown[:10], "the nearest come first"
    assert ask(recommender) == [], "nobody is followed"


def test_fresh_has_what_was_listed_lately(serve, tmp_path, until):
    recommender = serve(**only("fresh", fresh_days=3))
    assert ask(recommender) == [], "the bundle does not know when its items were listed"
    (tmp_path / "stock" / "feed.jsonl").write_text(json.dumps(tiny.NEW) + "\n")
    until(lambda: ask(recommender) == ["new-1"])
    late = (datetime.fromisoformat(NOW) + timedelta(days=5)).isoformat()
    assert ask(recommender, time=late) == []


def test_similar_has_what_is_most_like_the_latest_items(serve, bundle):
    recommender = serve(**only("similar", similar_to=1))
    shown = ask(recommender, history=[{"item_id": "item-70", **PAST}], k=5)
    learned = np.load(bundle.index / "vectors.npy")[:, :11]
    learned /= np.linalg.norm(learned, axis=1, keepdims=True)
    # The items of the tiny bundle do not have unit length in the learned part.
    scores = np.load(bundle.index / "vectors.npy")[:, :11] @ learned[70]
    scores[70] = -np.inf
    assert shown == [tiny.item_id(row) for row in np.argsort(-scores, kind="stable")[:5]]


@pytest.mark.parametrize("name", ["towers", "popular", "similar", "fresh", "followed"])
def test_no_retriever_returns_what_the_rules_forbid(serve, tmp_path, until, name):
    recommender = serve(**only(name))
    lines = [tiny.NEW, tiny.gone("item-51"), tiny.gone("item-100")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "stock" / "feed.jsonl").write_text(text)
    until(lambda: len(recommender.snapshot.stock) == tiny.N_LIVE - 1)
    rng = np.random.default_rng(3)
    shown = 0
    for _ in range(30):
        size, user = rng.choice(["S", "M"]), f"user-{rng.integers(0, 29)}"
        body = {
            "user_id": user,
            "exclude": [tiny.item_id(row) for row in rng.integers(0, 200, 20)],
            "hidden": [tiny.item_id(row) for row in rng.integers(0, 200, 5)],
            "require": {"size": [size]},
        }
        allowed = LIVE - {"item-51", "item-100"} | {"new-1"}
        allowed -= {*body["exclude"], *body["hidden"], user.replace("user", "item")}
        allowed -= sold_by(user) | ({"item-60"} if user == "user-4" else set())
        if user == "user-5":
            allowed -= {"new-1"}
        sizes = dict(zip(ITEMS["item_id"].to_pylist(), ITEMS["size"].to_pylist(), strict=True))
        allowed = {item for item in allowed if (sizes | {"new-1": "M"})[item] == size}
        found = ask(recommender, **body)
        assert set(found) <= allowed
        assert len(found) == len(set(found))
        shown += len(found)
    assert shown


class Picks:
    """A retriever of another package, which returns more than it may."""

    @staticmethod
    def retrieve(search):
        rows = np.array([3, -1, 7, 100_000, 11])
        return Found(rows, np.arange(5, dtype=np.float32))


class Broken:
    @staticmethod
    def retrieve(search):
        raise ZeroDivisionError


def test_a_retriever_of_another_package_is_named_by_its_dotted_name(serve):
    recommender = serve(**only("tests.serving.test_retrievers:Picks"))
    assert ask(recommender, exclude=["item-7"]) == ["item-3", "item-11"]
    with pytest.raises(UsageError, match="unknown retriever 'tower': did you mean 'towers'"):
        RecommenderSettings.parse({"registry": "r", "log_folder": "l", **only("tower")})
    with pytest.raises(RefitError, match="test_retrievers:Broken' failed"):
        serve(**only("tests.serving.test_retrievers:Broken"))


def test_the_weight_of_popularity_is_that_of_its_part_of_the_score(serve, bundle):
    body = {"user_id": "user-3", "time": NOW, "k": 500, "explain": True}
    whole = {i["item_id"]: i["why"] for i in serve().recommend(body)["items"]}
    for weight in (0.0, 0.5):
        answer = serve(retrieval={"popularity": weight}).recommend(body)
        assert len(answer["items"]) == len(whole)
        for item in answer["items"]:
            parts = whole[item["item_id"]]
            expected = parts["learned"] + weight * parts["popularity"]
            assert item["score"] == pytest.approx(expected, abs=1e-5)
            why = item["why"]
            assert why["learned"] + why["popularity"] == pytest.approx(item["score"], abs=1e-5)
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)


def test_places_are_shared_evenly_and_go_to_others_where_one_has_nothing():
    pool = SimpleNamespace(item_id=str)

    def found(*rows):
        return Found(np.array(rows, dtype=np.int64), np.array(rows, dtype=np.float32))

    lists = {"a": found(*range(20)), "b": found(0, 30, 31), "c": found()}
    weights = {"a": 2, "b": 1, "c": 1}
    shared = share_places(pool, lists, weights, 10)
    assert len(set(shared.rows.tolist())) == 10
    assert shared.rows[[s == "a" for s in shared.sources]].tolist() == list(range(8))
    assert shared.sources == ("a", "b", "a", "a", "b", "a", "a", "a", "a", "a")
    alone = share_places(pool, {"a": lists["a"]}, {"a": 1}, 5)
    assert alone.rows.tolist() == list(range(5))
    equal = share_places(pool, {"a": found(*range(50)), "b": found(*range(50, 99))}, weights, 9)
    assert [equal.sources[i : i + 3].count("b") for i in (0, 3, 6)] == [1, 1, 1]
