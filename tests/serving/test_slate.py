import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import chisquare

from refit.errors import UsageError
from refit.prediction import EXPLORATION
from serving.launch import _seldon_parameters
from serving.query import Query
from serving.request import Request
from serving.retrieval import Candidates, Search
from serving.settings import RecommenderSettings
from serving.slate import choose, compose
from serving.stage_settings import RetrievalSettings, SlateSettings
from tests.serving import tiny
from tests.serving.tiny import AS_OF, ITEMS, NOW, ids

SELLERS = dict(zip(ITEMS["item_id"].to_pylist(), ITEMS["seller_id"].to_pylist(), strict=True))
BRANDS = dict(zip(ITEMS["item_id"].to_pylist(), ITEMS["brand"].to_pylist(), strict=True))


def most(values):
    return max(map(values.count, set(values)))


def test_caps_hold_for_sellers_and_columns_and_no_seller_is_no_seller(serve):
    recommender = serve(slate={"caps": {"seller_id": 1, "brand": 4}, "candidates": 20})
    items = ids(recommender.recommend({"k": 12}))
    sellers = [SELLERS[i] for i in items if SELLERS[i] is not None]
    assert len(items) == 12
    assert most(sellers) == 1
    assert most([BRANDS[i] for i in items]) <= 4
    free = ids(serve().recommend({"k": 12}))
    assert most([SELLERS[i] for i in free if SELLERS[i]]) > 1
    assert items[0] == free[0]


def test_caps_give_way_where_they_would_leave_places_empty(serve):
    recommender = serve(slate={"caps": {"brand": 1}})
    items = ids(recommender.recommend({"k": 500, "require": {"brand": ["acne", "cos"]}}))
    assert len(items) == 100
    assert {BRANDS[i] for i in items[:2]} == {"acne", "cos"}


def test_a_column_to_cap_must_be_there(serve):
    with pytest.raises(UsageError, match=r"slate.caps: .* no column 'colour' .* brand"):
        serve(slate={"caps": {"colour": 1}})


def test_diversity_trades_order_for_difference():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    vectors[1:8] = vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = {d: choose(50, 8, d, vectors, [], []) for d in (0.0, 0.3, 0.9)}
    assert lists[0.0] == list(range(8))
    likeness = {d: np.triu(vectors[c] @ vectors[c].T, 1).mean() for d, c in lists.items()}
    assert likeness[0.0] > likeness[0.3] > likeness[0.9]
    assert all(chosen[0] == 0 for chosen in lists.values())
    assert all(len(set(chosen)) == 8 for chosen in lists.values())


def test_what_diversity_gives_up_is_measured(serve):
    recommender = serve(slate={"diversity": 0.9})
    chosen = recommender.recommend({"k": 4})["items"]
    best = serve().recommend({"k": 4})["items"]
    assert len({BRANDS[item["item_id"]] for item in chosen}) == 4, "the content is the brand's"
    given_up = recommender.counters.total("refit_slate_given_up")
    means = [np.mean([item["score"] for item in items]) for items in (best, chosen)]
    assert given_up == pytest.approx(means[0] - means[1], abs=1e-5)
    assert given_up > 0


def search_in(serve, k, exclude=()):
    recommender = serve()
    request = Request(k=k, exclude=list(exclude))
    now = AS_OF
    snapshot = recommender.snapshot
    pool = snapshot.find_pool(request, now)
    query = Query(np.random.default_rng(1).normal(size=tiny.D).astype(np.float32))
    search = Search(request, now, k, query, pool, RetrievalSettings())
    found = pool.recommend(query, k)
    return search, Candidates(found.rows, found.scores, ("towers",) * len(found.rows))


@pytest.mark.parametrize(
    ("share", "under_shown", "first_slot", "exclude_all"),
    [(0.3, 0.2, 0, 0), (0.5, 1.0, 2, 0), (0.4, 0.2, 1, 37), (0.3, 0.0, 0, 0)],
    ids=["many listings", "a cut", "fewer listings than slots", "no listing"],
)
def test_logged_probabilities_are_those_of_10_000_replays(
    serve, share, under_shown, first_slot, exclude_all
):
    """Of every item in every slot: a chi-square test of its counts, at 1e-4 for each slot."""
    k, n = 6, 10_000
    exploration = {
        "share": share,
        "under_shown": under_shown,
        "first_slot": first_slot,
        "listings": 30,
    }
    settings = SlateSettings.parse({"exploration": exploration})
    search, candidates = search_in(serve, k)
    if exclude_all:
        least = np.flatnonzero(search.catalogue.least_popular(under_shown))
        shown = set(candidates.rows.tolist())
        gone = [r for r in least.tolist() if r not in shown][:exclude_all]
        search, candidates = search_in(serve, k, [tiny.item_id(row) for row in gone])
    counts = [{} for _ in range(k)]
    logged = [{} for _ in range(k)]
    explored = 0
    for number in range(n):
        slate = compose(settings, search, candidates, k, f"r{number}")
        assert len(set(slate.rows)) == k
        for slot, (row, source) in enumerate(zip(slate.rows, slate.sources, strict=True)):
            counts[slot][row] = counts[slot].get(row, 0) + 1
            logged[slot].setdefault(row, slate.propensities[slot])
            assert logged[slot][row] == slate.propensities[slot], "always the same"
            explored += source == EXPLORATION
            assert (source == EXPLORATION) == (row != candidates.rows[slot])
    for slot in range(k):
        rows = sorted(logged[slot])
        expected = np.array([logged[slot][row] for row in rows]) * n
        assert expected.sum() == pytest.approx(n, rel=1e-9), "every item was seen"
        if len(rows) == 1:
            assert logged[slot] == {int(candidates.rows[slot]): 1.0}
            continue
        assert slot >= first_slot
        assert chisquare([counts[slot][row] for row in rows], expected).pvalue > 1e-4
    listings = len({row for rows in logged for row in rows} - set(candidates.rows.tolist()))
    drawn = min(listings, k - first_slot)
    assert (listings == 0) == (under_shown == 0)
    assert explored == pytest.approx(n * share * drawn, rel=0.05)


def test_slots_of_one_answer_are_drawn_independently_but_never_show_a_listing_twice(serve):
    search, candidates = search_in(serve, 4)
    settings = SlateSettings.parse({"exploration": {"share": 0.5, "listings": 4}})
    both = 0
    for number in range(4000):
        sources = compose(settings, search, candidates, 4, str(number)).sources
        both += sources[0] == sources[1] == EXPLORATION
    assert both == pytest.approx(1000, abs=130)


def test_an_answer_that_explores_can_be_replayed_and_is_logged(serve, tmp_path):
    settings = {"exploration": {"share": 0.5, "first_slot": 1}}
    recommender = serve(slate=settings)
    body = {"k": 10, "time": NOW, "request_id": "again"}
    answers = [recommender.recommend(body) for _ in range(3)]
    assert answers[0]["items"] == answers[1]["items"] == answers[2]["items"]
    others = [ids(recommender.recommend({**body, "request_id": str(n)})) for n in range(5)]
    assert len(set(map(tuple, others))) == 5
    recommender.recommend({**body, "personalised": False})
    other_salt = serve(slate={"exploration": {**settings["exploration"], "salt": "other"}})
    assert ids(other_salt.recommend(body)) != ids(answers[0])
    recommender.close()
    rows = pq.read_table(tmp_path / "log", partitioning=None).to_pylist()
    row = next(r for r in rows if r["request_id"] == "again" and not r["fallback"])
    assert row["item_ids"] == ids(answers[0])
    assert row["positions"] == list(range(10))
    assert set(row["sources"]) == {"towers", EXPLORATION}
    assert row["propensities"][0] == 1
    for source, propensity in zip(row["sources"][1:], row["propensities"][1:], strict=True):
        # 40 of 200 items are under-shown; those among the ten best are none of the listings.
        least = 0.5 / 40 <= propensity <= 0.5 / 30
        assert least if source == EXPLORATION else propensity == pytest.approx(0.5)
    plain = next(r for r in rows if r["fallback"] == "not_personalised")
    assert plain["propensities"] is None
    assert set(plain["sources"]) == {"popular"}


def test_sections_of_settings_reach_the_server_as_text():
    settings = RecommenderSettings.parse(
        {"registry": "r", "log_folder": "l", "slate": {"caps": {"seller_id": 2}, "diversity": 0.2}}
    )
    parameters = {one["name"]: one for one in _seldon_parameters(settings)}
    assert parameters["slate"]["type"] == "STRING"
    flat = {"registry": "r", "log_folder": "l"}
    flat |= {name: parameters[name]["value"] for name in ("slate", "retrieval", "experiment")}
    assert RecommenderSettings.parse(flat) == settings
    with pytest.raises(UsageError, match="diversty"):
        RecommenderSettings.parse({**flat, "slate": '{"diversty": 0.1}'})
    with pytest.raises(UsageError, match="must be a JSON object"):
        RecommenderSettings.parse({**flat, "slate": "{"})


def test_an_earlier_version_drew_the_same_people():
    from serving.experiment import draw_person

    digest = hashlib.sha256(b"refit:user-1").digest()
    assert draw_person("user-1", "refit") == pytest.approx(int.from_bytes(digest[:8]) / 2**64)
