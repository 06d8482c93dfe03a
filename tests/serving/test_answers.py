"""Pages, batches, similar items, explanations, answers that are not personalised, buckets."""

import base64
import json
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.pages import read_cursor, write_cursor
from serving.request import RequestError
from serving.settings import RecommenderSettings
from tests.serving import tiny
from tests.serving.tiny import LIVE, NOW, every_item, ids


def sold_by(user_id):
    sellers = enumerate(tiny.ITEMS["seller_id"].to_pylist())
    return {tiny.item_id(row) for row, seller in sellers if seller and seller == user_id}


def walk(recommender, **body):
    """All pages of a list."""
    pages, cursor = [], ""
    while cursor is not None:
        answer = recommender.recommend({"k": 30, "time": NOW, **body, "cursor": cursor})
        pages.append(ids(answer))
        cursor = answer["cursor"]
    return pages


def flat(pages):
    return [item for page in pages for item in page]


def test_pages_continue_a_list_without_repeating_an_item(serve, tmp_path):
    recommender = serve()
    pages = walk(recommender, user_id="user-3")
    assert flat(pages) == every_item(recommender, user_id="user-3")
    assert [len(page) for page in pages[:-1]] == [30] * (len(pages) - 1)
    assert "cursor" not in recommender.recommend({"k": 3})
    recommender.close()
    rows = pq.read_table(tmp_path / "log", partitioning=None).to_pylist()
    starts = [row["positions"][0] for row in rows if len(row["item_ids"]) == 30]
    assert sorted(starts) == [0, 30, 60, 90, 120, 150]


def test_a_page_without_items_ends_a_list_and_is_no_answer_of_its_own(serve, tmp_path):
    recommender = serve()
    everything = every_item(recommender)
    pages = walk(recommender, k=len(everything))
    assert [len(page) for page in pages] == [len(everything), 0]
    assert recommender.counters.total("refit_empty_answers") == 0
    assert not ids(recommender.recommend({"k": 3, "exclude": everything, "time": NOW}))
    assert recommender.counters.total("refit_empty_answers") == 1
    assert recommender.counters.total("refit_requests") == 4
    recommender.close()
    rows = pq.read_table(tmp_path / "log", partitioning=None).to_pylist()
    assert sorted(len(row["item_ids"]) for row in rows) == [0, len(everything), len(everything)]


def test_pages_show_everything_once_with_exploration_caps_and_a_new_bundle(
    serve, registry, other_bundle, until
):
    recommender = serve(
        slate={"exploration": {"share": 0.5}, "caps": {"seller_id": 1}, "diversity": 0.2}
    )
    shown = flat(walk(recommender))
    assert len(shown) == len(set(shown))
    assert set(shown) == LIVE, "what gives way to a listing comes on a later page"
    first = recommender.recommend({"k": 30, "cursor": ""})
    tiny.promote(registry, other_bundle)
    until(lambda: recommender.snapshot.bundle_id == other_bundle.bundle_id)
    second = recommender.recommend({"k": 30, "cursor": first["cursor"]})
    assert second["bundle_id"] != first["bundle_id"]
    assert not set(ids(first)) & set(ids(second))


def test_a_cursor_is_read_back_or_refused():
    assert read_cursor(None) == read_cursor("") == ()
    shown = ["a", "ö", "x" * 256]
    assert read_cursor(write_cursor(shown)) == tuple(shown)
    assert write_cursor([str(n) for n in range(10_000)]) is None

    def forge(value):
        return base64.urlsafe_b64encode(zlib.compress(value.encode())).decode()

    whole = write_cursor(shown)
    bomb = base64.urlsafe_b64encode(zlib.compress(b"[" + b" " * (1 << 26))).decode()
    for text in (
        "ö",
        "?",
        "AAAA",
        whole[:-8],
        whole[:-4] + "AAAA",
        forge("{}"),
        forge("[1]"),
        forge('["\\ud800"]'),
        forge("[" * 100_000),
        bomb,
        forge(json.dumps(["a"] * 10_001)),
    ):
        with pytest.raises(RequestError, match="cursor"):
            read_cursor(text)


def test_a_batch_is_answered_as_its_requests_are(serve):
    recommender = serve()
    bodies = [
        {"user_id": f"user-{n}", "k": 4 + n, "time": NOW, "context": {"occasion": occasion}}
        for n, occasion in enumerate(("party", "work", None, "party"))
    ]
    together = recommender.recommend({"requests": bodies})["answers"]
    for body, answer in zip(bodies, together, strict=True):
        alone = recommender.recommend(body)
        assert ids(answer) == ids(alone)
        scores = [[item["score"] for item in one["items"]] for one in (answer, alone)]
        np.testing.assert_allclose(*scores, rtol=1e-5)
    assert recommender.counters.total("refit_requests") == 8
    for bad, named in (
        ({"requests": []}, "requests"),
        ({"requests": [{"k": 0}]}, "requests.0.k"),
        ({"requests": [{"use": 1}]}, r"requests.0.use: unknown name; known names: user_id"),
        ({"requests": [{}], "k": 3}, "k: unknown name; known names: requests"),
        ({"requests": [{}] * 101}, "requests"),
    ):
        with pytest.raises(RequestError, match=named):
            recommender.recommend(bad)


def test_one_call_embeds_a_batch_and_one_failure_has_all_fall_back(serve, monkeypatch):
    recommender = serve()
    calls = []
    predict = recommender._towers.predict

    def count(*arguments):
        calls.append(arguments)
        return predict(*arguments)

    monkeypatch.setattr(recommender._towers, "predict", count)
    recommender.recommend({"requests": [{"user_id": f"user-{n}"} for n in range(20)]})
    assert len(calls) == 1
    monkeypatch.setattr(recommender._breaker, "allows", lambda: False)
    answers = recommender.recommend({"requests": [{}, {"personalised": False}]})["answers"]
    assert [answer["fallback"] for answer in answers] == ["breaker_open", "not_personalised"]


def test_similar_items_are_about_an_item_and_not_about_a_person(serve, bundle, tmp_path):
    recommender = serve()
    answer = recommender.similar({"item_id": "item-70", "k": 20, "require": {"size": ["M", "S"]}})
    learned = np.load(bundle.index / "vectors.npy")[:, :11]
    scores = learned @ (learned[70] / np.linalg.norm(learned[70]))
    sizes = tiny.ITEMS["size"].to_pylist()
    order = [r for r in np.argsort(-scores, kind="stable") if sizes[r] in ("M", "S") and r != 70]
    assert ids(answer) == [tiny.item_id(row) for row in order[:20]]
    assert answer["fallback"] is None
    recommender.close()
    (row,) = pq.read_table(tmp_path / "log", partitioning=None).to_pylist()
    assert (row["fallback"], row["user_id"], row["query_embedding"]) == (
        "similar_items",
        None,
        None,
    )
    assert set(row["sources"]) == {"similar"}
    assert recommender.counters.total("refit_fallbacks") == 0


def test_similar_items_of_what_is_sold_new_or_unknown(serve, tmp_path, until):
    recommender = serve()
    # item-202 is sold, and only its content is known: that of its brand.
    toteme = {tiny.item_id(r) for r in range(tiny.N_LIVE) if tiny.BRANDS[r % 4] == "toteme"}
    assert set(ids(recommender.similar({"item_id": "item-202", "k": 50}))) == toteme
    unknown = recommender.similar({"item_id": "nothing", "k": 5})
    assert unknown["fallback"] == "unknown_item"
    assert ids(unknown) == [f"item-{row}" for row in range(50, 55)]
    assert recommender.counters.total("refit_fallbacks", reason="unknown_item") == 1
    (tmp_path / "stock" / "feed.jsonl").write_text(json.dumps(tiny.NEW) + "\n")
    until(lambda: len(recommender.snapshot.stock) > tiny.N_LIVE)
    known = recommender.recommend({"item_id": "new-1", "k": 5})
    assert known["items"] == recommender.similar({"item_id": "new-1", "k": 5})["items"]
    assert known["fallback"] is None
    assert "new-1" not in ids(known)
    pages = [recommender.similar({"item_id": "item-1", "k": 90, "cursor": ""})]
    while pages[-1]["cursor"]:
        cursor = pages[-1]["cursor"]
        pages.append(recommender.similar({"item_id": "item-1", "k": 90, "cursor": cursor}))
    shown = [item for page in pages for item in ids(page)]
    assert sorted(shown) == sorted((LIVE | {"new-1"}) - {"item-1"})
    for body, named in (({}, "item_id"), ({"item_id": "x", "user_id": "u"}, "user_id: unknown")):
        with pytest.raises(RequestError, match=named):
            recommender.similar(body)


def test_an_answer_that_is_not_personalised_is_the_same_for_everybody_but_for_the_rules(serve):
    recommender = serve(holdout_share=0.5)
    bodies = [
        {"user_id": user, "context": context, "history": [], "k": 20, "personalised": False}
        for user in ("user-29", None, "somebody")
        for context in ({"occasion": "party"}, {"age": 40}, {})
    ]
    answers = [recommender.recommend(body) for body in bodies]
    expected = [f"item-{row}" for row in range(50, 80)]
    for body, answer in zip(bodies, answers, strict=True):
        own = sold_by(body["user_id"])
        assert ids(answer) == [item for item in expected if item not in own][:20]
        assert answer["fallback"] == "not_personalised"
    assert recommender.counters.total("refit_fallbacks") == 0
    assert recommender.counters.total("refit_not_personalised_answers") == 9
    hidden = recommender.recommend({"personalised": False, "hidden": ["item-50"], "k": 1})
    assert ids(hidden) == ["item-51"]


def test_an_explanation_adds_up_to_the_score_and_names_the_history(serve):
    recommender = serve()
    body = {"user_id": "user-3", "time": NOW, "k": 15, "explain": True}
    answer = recommender.recommend(body)
    assert "why" not in recommender.recommend({**body, "explain": False})["items"][0]
    for item in answer["items"]:
        why = item["why"]
        assert why["learned"] + why["popularity"] + why["repeats"] == pytest.approx(
            item["score"], abs=1e-5
        )
        assert why["source"] == "towers"
        # The content of the tiny bundle is that of the brand.
        near = {near["item_id"]: near["likeness"] for near in why["nearest"]}
        assert set(near) <= {"item-3", "item-4", "item-5", "item-6"}
        same = [i for i in near if int(i[5:]) % 4 == int(item["item_id"][5:]) % 4]
        assert all(near[i] == pytest.approx(1, abs=1e-5) for i in same)
        assert why["nearest"] == sorted(why["nearest"], key=lambda one: -one["likeness"])
    nobody = recommender.recommend({"personalised": False, "explain": True, "k": 1})["items"][0]
    assert nobody["why"] == {
        "source": "popular",
        "learned": None,
        "popularity": None,
        "repeats": None,
        "nearest": [],
    }


def test_people_stay_in_their_bucket_and_its_settings_hold_for_them(serve, tmp_path):
    experiment = {
        "buckets": {
            "control": {"share": 0.4},
            "popular": {"share": 0.4, "retrieval": {"retrievers": {"popular": 1}}},
        }
    }
    recommender = serve(experiment=experiment)
    people = [f"shopper-{n}" for n in range(200)]
    for person in people + people[:20]:
        recommender.recommend({"user_id": person, "k": 2})
    recommender.recommend({"k": 2})
    recommender.close()
    rows = pq.read_table(tmp_path / "log", partitioning=None).to_pylist()
    buckets = {person: {r["bucket"] for r in rows if r["user_id"] == person} for person in people}
    assert all(len(found) == 1 for found in buckets.values())
    names = [next(iter(found)) for found in buckets.values()]
    for name, share in (("control", 0.4), ("popular", 0.4), (None, 0.2)):
        assert names.count(name) == pytest.approx(200 * share, abs=30)
    assert {(r["bucket"] == "popular", r["sources"][0]) for r in rows} == {
        (True, "popular"),
        (False, "towers"),
    }
    assert [r["bucket"] for r in rows if r["user_id"] is None] == [None]


def test_the_shares_of_buckets_are_at_most_one():
    from refit.errors import UsageError

    buckets = {"a": {"share": 0.7}, "b": {"share": 0.5}}
    with pytest.raises(UsageError, match=r"add up to 1.2"):
        RecommenderSettings.parse(
            {"registry": "r", "log_folder": "l", "experiment": {"buckets": buckets}}
        )
