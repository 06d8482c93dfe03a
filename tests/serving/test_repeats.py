"""Items of a history whose scores the query tower raises or lowers."""

import json
from datetime import datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.exposure import answer_again
from serving.stage_settings import SlateSettings
from tests.serving import tiny
from tests.serving.tiny import LIVE, NOW, ids

ANN = {"user_id": "user-50", "time": NOW}


@pytest.fixture(scope="module")
def bundle(root):
    """Of a query tower that adds to the scores of the items of a history, in process too."""
    model = tiny.make_model(root / "repeating", 0, in_process=True, repeats=True)
    return tiny.make_bundle(root / "repeating-bundles", model)


def ago(days, item="item-0", kind="view"):
    time = datetime.fromisoformat(NOW) - timedelta(days=days)
    return {"item_id": item, "event_type": kind, "event_time": time.isoformat()}


HISTORY = [
    ago(1, "item-10"),
    ago(1.5, "item-199"),
    ago(3, "item-10"),  # twice: both add up
    ago(3.25, "item-77"),
    ago(30, "item-42"),
]
ADDED = {"item-10": 2.5 + 0.5, "item-199": 2.0, "item-77": 0.25, "item-42": -26.5}


@pytest.mark.parametrize("query_tower", ["model_server", "in_process"])
@pytest.mark.parametrize("k", [1, 2, 5, 198, 199, 500])
def test_scores_are_those_of_all_items_by_hand(serve, bundle, query_tower, k):
    recommender = serve(query_tower=query_tower)
    request = {**ANN, "history": HISTORY, "k": k, "explain": True}
    vectors = np.load(bundle.index / "vectors.npy")
    found = recommender.recommend(request)["items"]
    (query,) = embed(recommender, request)
    assert query.repeats == pytest.approx(ADDED, abs=1e-4)
    scores = {tiny.item_id(row): float(vectors[row] @ query.vector) for row in range(tiny.N_LIVE)}
    for item, added in ADDED.items():
        scores[item] += added
    best = sorted(scores, key=lambda item: -scores[item])[:k]
    assert [item["item_id"] for item in found] == best
    assert [item["score"] for item in found] == pytest.approx([scores[i] for i in best], abs=1e-4)
    for item in found:
        why = item["why"]
        assert why["repeats"] == pytest.approx(ADDED.get(item["item_id"], 0.0), abs=1e-4)
        parts = why["learned"] + why["popularity"] + why["repeats"]
        assert parts == pytest.approx(item["score"], abs=1e-4)


def embed(recommender, request):
    from serving.request import parse_request

    parsed = parse_request(request)
    return recommender.snapshot.embed([(parsed, datetime.fromisoformat(NOW))], 5)


def test_a_batch_keeps_each_history_to_its_own_request(serve):
    recommender = serve()
    bodies = [{**ANN, "history": history} for history in (HISTORY[:1], [], HISTORY[1:2])]
    together = recommender.recommend({"requests": bodies})["answers"]
    assert [ids(one) for one in together] == [ids(recommender.recommend(one)) for one in bodies]
    assert ids(together[0])[0] == "item-10"
    assert ids(together[2])[0] == "item-199"


def test_what_may_not_be_shown_stays_hidden_whatever_is_added(serve):
    recommender = serve()
    body = {**ANN, "history": HISTORY, "k": 500}
    shown = ids(recommender.recommend({**body, "exclude": ["item-10"], "hidden": ["item-77"]}))
    assert set(shown) == LIVE - {"item-10", "item-77"}
    assert shown[0] == "item-199"
    assert shown[-1] == "item-42"
    sizes = dict(
        zip(tiny.ITEMS["item_id"].to_pylist(), tiny.ITEMS["size"].to_pylist(), strict=True)
    )
    wanted = sizes["item-10"]
    shown = ids(recommender.recommend({**body, "require": {"size": [wanted]}}))
    assert {sizes[item] for item in shown} == {wanted}
    assert shown[0] == "item-10"


def test_retrievers_of_a_part_of_the_items_find_only_theirs(serve):
    recommender = serve(retrieval={"retrievers": {"followed": 1}})
    history = [ago(1, "item-51", "like"), ago(1, "item-3", "view")]
    shown = ids(recommender.recommend({**ANN, "history": history, "k": 500}))
    sellers = tiny.ITEMS["seller_id"].to_pylist()
    assert {sellers[int(item[5:])] for item in shown} == {sellers[51]}
    assert shown[0] == "item-51"


def test_a_listing_newer_than_the_bundle_is_found_again(serve, tmp_path, until):
    recommender = serve()
    edited = {**tiny.NEW, "item_id": "item-10", "price": 20.0}
    lines = "".join(json.dumps(line) + "\n" for line in (tiny.NEW, edited))
    (tmp_path / "stock" / "feed.jsonl").write_text(lines)
    until(lambda: len(recommender.snapshot.stock.fresh) == 2)
    history = [ago(0.5, "new-1"), *HISTORY]
    shown = ids(recommender.recommend({**ANN, "history": history, "k": 500}))
    assert shown[:3] == ["new-1", "item-10", "item-199"] or shown[:3] == [
        "item-10",
        "new-1",
        "item-199",
    ]
    assert len(shown) == len(set(shown)) == tiny.N_LIVE + 1
    (tmp_path / "stock" / "feed.jsonl").open("a").write(
        json.dumps(tiny.gone("new-1", tiny.MUCH_LATER)) + "\n"
    )
    until(lambda: len(recommender.snapshot.stock) == tiny.N_LIVE)
    shown = ids(recommender.recommend({**ANN, "history": history, "k": 500}))
    assert set(shown) == LIVE


def test_the_log_holds_what_was_added_and_answers_again_with_it(serve, bundle, tmp_path):
    recommender = serve()
    answers = [recommender.recommend({"user_id": f"user-{n}", "time": NOW}) for n in range(5)]
    recommender.recommend({"personalised": False, "time": NOW})
    recommender.close()
    (file,) = (tmp_path / "log").rglob("*.parquet")
    table = pq.read_table(file).sort_by("user_id").to_pylist()
    # The history of user 3, on the day after the bundle, is 2, 3, 4 and 5 days old.
    of_third = dict(zip(table[3]["repeat_item_ids"], table[3]["repeat_scores"], strict=True))
    assert of_third == {"item-6": 1.5, "item-5": 0.5, "item-4": -0.5, "item-3": -1.5}
    assert table[-1]["repeat_item_ids"] is None
    (again,) = answer_again(bundle, tmp_path / "log", {"served": SlateSettings()}).values()
    assert sorted(one.item_ids for one in again) == sorted(map(ids, answers))
