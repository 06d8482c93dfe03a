"""The search in an engine answers as the search in this process does."""

from datetime import datetime

import numpy as np
import pytest

from refit.ports import free_port
from refit.predicates import (
    SELLER,
    AllOf,
    AnyOf,
    Between,
    ListedAfter,
    Not,
    OneOf,
    UnderShown,
)
from serving.candidates import IndexRows, RequestQuery
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.engines.engine import EngineFailure
from serving.engines.remote import FEW, SPARE, RemoteSearch
from serving.fresh import FreshListings
from serving.matching import find_matches
from serving.pool import Pool
from serving.request import Request
from serving.towers import Breaker, Fallback
from tests.serving import tiny
from tests.serving.engines.brute_force import BruteForce
from tests.serving.tiny import ids

NOW = datetime.fromisoformat(tiny.NOW)


@pytest.fixture(scope="module")
def catalogue(bundle):
    return Catalogue(bundle)


class Searching:
    """A pool that is searched in an engine, beside one that is searched in this process."""

    def __init__(self, catalogue, engine, request, gone=None, most=2000):
        self.counters, self.engine = Counters(), engine
        self.remote = RemoteSearch(engine, catalogue, self.counters, most, Breaker(3, 60.0))
        fresh = FreshListings(catalogue).view()
        self.embedded = Pool(catalogue, fresh, gone, request, NOW)
        self.pool = Pool(catalogue, fresh, gone, request, NOW, remote=self.remote)
        engine.pool = self.embedded
        self.remote.open()

    def total(self, name):
        return self.counters.total(name)


def make_query(seed):
    return np.random.default_rng(seed).normal(size=tiny.D).astype(np.float32)


def random_request(rng):
    require = {}
    if rng.random() < 0.5:
        require["size"] = rng.choice(["S", "M", "L", "XXL"], 2).tolist()
    if rng.random() < 0.3:
        require["price"] = {"min": float(rng.uniform(5, 60))}
    return Request(
        user_id=f"user-{rng.integers(0, 29)}",
        require=require,
        exclude=[tiny.item_id(row) for row in rng.integers(0, 250, rng.integers(0, 60)).tolist()],
    )


CONDITIONS = (
    None,
    OneOf(SELLER, ("user-4", "user-5")),
    Between("price", 20.0, 80.0),
    AnyOf((ListedAfter(0), UnderShown(0.3))),
    AllOf((Not(OneOf("brand", ("acne",))), UnderShown(0.9))),
)


@pytest.mark.parametrize("few", [0, FEW])
@pytest.mark.parametrize("knows_conditions", [True, False])
def test_it_finds_what_the_search_in_this_process_finds(
    catalogue, knows_conditions, few, monkeypatch
):
    monkeypatch.setattr("serving.engines.remote.FEW", few)
    rng = np.random.default_rng(0)
    for number in range(60):
        gone = rng.random(catalogue.n_live) < 0.1
        engine = BruteForce(lambda condition: knows_conditions)
        searching = Searching(catalogue, engine, random_request(rng), gone)
        condition = CONDITIONS[number % len(CONDITIONS)]
        query, k = make_query(number), int(rng.integers(1, 40))
        expected = searching.embedded.search(query, k, condition)
        found = searching.pool.search(query, k, condition)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-6)


def test_it_is_told_which_items_where_few_may_be_shown(catalogue):
    engine = BruteForce(lambda condition: False)
    assert catalogue.n_live <= FEW
    searching = Searching(catalogue, engine, Request(require={"size": ["M"]}))
    found = searching.pool.search(make_query(1), 500)
    ((_, told),) = engine.asked
    assert isinstance(told, OneOf)
    assert told.column == "item_id"
    assert len(told.values) == len(found.rows) == np.count_nonzero(searching.embedded.eligible)
    nothing = Searching(catalogue, engine, Request(require={"size": ["XXL"]}))
    assert len(nothing.pool.search(make_query(1), 10).rows) == 0
    assert len(engine.asked) == 1, "nothing may be shown: nothing is asked"


def test_it_asks_for_more_where_rules_remove_what_was_found(catalogue, monkeypatch):
    monkeypatch.setattr("serving.engines.remote.FEW", 0)
    best = np.argsort(-(np.asarray(catalogue.index.vectors) @ make_query(2)))
    excluded = [tiny.item_id(row) for row in best[:60].tolist()]
    searching = Searching(catalogue, BruteForce(), Request(exclude=excluded))
    found = searching.pool.search(make_query(2), 10)
    assert found.rows.tolist() == best[60:70].tolist()
    assert searching.engine.asked[0][0] == 10 + SPARE
    assert searching.total("refit_search_refills") == len(searching.engine.asked) - 1 >= 1
    assert searching.total("refit_search_removed_items") == 60
    assert searching.total("refit_search_short_answers") == 0
    bounded = Searching(catalogue, BruteForce(), Request(exclude=excluded), most=64)
    assert len(bounded.pool.search(make_query(2), 10).rows) == 4
    assert bounded.total("refit_search_short_answers") == 1


def test_what_was_sold_is_not_returned_though_the_engine_still_has_it(catalogue, monkeypatch):
    monkeypatch.setattr("serving.engines.remote.FEW", 0)
    gone = np.zeros(catalogue.n_live, dtype=np.bool_)
    first = int(Searching(catalogue, BruteForce(), Request()).pool.search(make_query(3), 1).rows[0])
    gone[first] = True
    searching = Searching(catalogue, BruteForce(), Request(), gone)
    assert first not in searching.pool.search(make_query(3), 50).rows.tolist()


def test_what_the_engine_has_lost_makes_a_short_answer_that_is_counted(catalogue):
    engine = BruteForce()
    engine.removed = {tiny.item_id(row) for row in range(150)}
    searching = Searching(catalogue, engine, Request())
    assert len(searching.pool.search(make_query(4), 100).rows) == 50
    assert searching.total("refit_search_short_answers") == 1


def test_an_engine_that_has_nothing_of_what_may_be_shown_has_failed(catalogue):
    engine = BruteForce()
    engine.removed = {tiny.item_id(row) for row in range(200)}
    searching = Searching(catalogue, engine, Request())
    with pytest.raises(EngineFailure) as raised:
        searching.pool.search(make_query(4), 10)
    assert raised.value.reason is Fallback.SEARCH_EMPTY


def test_no_condition_says_more_than_the_rules(catalogue):
    rng = np.random.default_rng(5)
    for _ in range(50):
        request = random_request(rng)
        fresh = FreshListings(catalogue).view()
        query = RequestQuery(catalogue, fresh, request, NOW)
        eligible = catalogue.rules.find_eligible(IndexRows(catalogue, None), query).eligible[0]
        condition = catalogue.rules.to_predicate(query)
        meets = find_matches(catalogue, fresh, condition)
        assert not np.any(eligible & ~meets)
        sellers = tiny.ITEMS["seller_id"].to_pylist()[: catalogue.n_live]
        own = np.array([seller == request.user_id for seller in sellers])
        assert not np.any(meets & own)


def test_an_engine_that_fails_is_left_alone_for_a_moment(catalogue):
    engine = BruteForce()
    searching = Searching(catalogue, engine, Request())
    engine.failure = EngineFailure(Fallback.SEARCH_SLOW, "too slow")
    for reason in (*[Fallback.SEARCH_SLOW] * 3, Fallback.SEARCH_BREAKER_OPEN):
        with pytest.raises(EngineFailure) as raised:
            searching.pool.search(make_query(6), 5)
        assert raised.value.reason is reason
    assert len(engine.asked) == 3
    failures = searching.counters.total("refit_search_failures", reason="search_slow")
    assert failures == 3


def test_popularity_answers_while_no_node_answers(serve):
    address = [f"127.0.0.1:{free_port()}"]
    engine = {"weaviate": {"http": address, "grpc": address}}
    recommender, popular = serve(engine=engine), serve(retrieval={"retrievers": {"popular": 1}})
    request = {"context": {"occasion": "party"}, "k": 12, "time": tiny.NOW, "user_id": "user-3"}
    answer = recommender.recommend(request)
    assert answer["fallback"] == "search_not_loaded"
    assert ids(answer) == ids(popular.recommend(request))
    assert recommender.counters.total("refit_fallbacks", reason="search_not_loaded") == 1
    assert recommender.similar({"item_id": "item-7"})["fallback"] == "search_not_loaded"
    assert recommender.status()["search"].startswith("the engine does not hold")
    recommender.snapshot.remote.is_open = True  # it was there before, and went away
    answer = recommender.recommend(request)
    assert answer["fallback"] == "search_unreachable"
    assert ids(answer) == ids(popular.recommend(request))
