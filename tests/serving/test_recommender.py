import json
import shutil
import socket
import threading
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from refit.errors import RefitError, UsageError
from refit.files import read_json, write_json
from refit.ports import free_port
from refit.prediction import HOLDOUT
from refit.registry import Registry
from serving.experiment import is_held_out
from serving.request import RequestError
from serving.towers import TowerClient
from tests.serving import tiny
from tests.serving.tiny import ITEMS, LIVE, NOW, PRICES, every_item, ids


def before(minutes: float) -> str:
    """The time so many minutes before the request."""
    return (datetime.fromisoformat(NOW) - timedelta(minutes=minutes)).isoformat()


def sold_by(user_id: str) -> set[str]:
    sellers = ITEMS["seller_id"].to_pylist()
    return {tiny.item_id(row) for row, seller in enumerate(sellers) if seller == user_id}


def with_labels(column: str, *labels: str) -> set[str]:
    values = ITEMS[column].to_pylist()
    return {tiny.item_id(r) for r in range(tiny.N_LIVE) if values[r] in labels}


def test_the_answer_is_the_exact_ranking_of_the_towers(serve, bundle, model):
    recommender = serve()
    answer = recommender.recommend({"user_id": "user-29", "context": {"occasion": "party"}, "k": 7})
    vectors = np.load(bundle.index / "vectors.npy")
    # user-29 did nothing: the tiny query tower sees the occasion only.
    import tensorflow as tf

    tower = tf.saved_model.load(str(model / "query_tower" / "1"))
    length = tiny.SPEC.history_length
    query = tower.signatures["serving_default"](
        context_occasion=tf.constant(["party"]),
        context_age=tf.constant([np.nan], tf.float32),
        user_city=tf.constant(["Lund"]),
        history_content=tf.zeros((1, length, tiny.C)),
        history_event_type=tf.constant([[""] * length]),
        history_age_days=tf.zeros((1, length)),
    )["embedding"].numpy()[0]
    scores = vectors @ query
    allowed = [r for r in np.argsort(-scores) if tiny.item_id(r) not in sold_by("user-29")]
    assert ids(answer) == [tiny.item_id(row) for row in allowed[:7]]
    np.testing.assert_allclose(
        [item["score"] for item in answer["items"]], scores[allowed[:7]], rtol=1e-5
    )
    assert answer["bundle_id"] == bundle.bundle_id
    assert answer["fallback"] is None


def test_sold_own_bought_and_excluded_items_are_never_returned(serve):
    recommender = serve()
    own, bought = sold_by("user-3"), {"item-3"}
    history = [{"item_id": "item-150", "event_type": "purchase", "event_time": NOW}]
    shown = every_item(recommender, user_id="user-3", exclude=["item-7", "nothing"])
    assert set(shown) == LIVE - own - bought - {"item-7"}
    shown = every_item(recommender, user_id="user-3", history=history)
    assert set(shown) == LIVE - own - bought - {"item-150"}


def test_a_purchase_is_not_forgotten_when_the_history_is_full(serve):
    """The histories of the bundle are short; that of the request is shorter still."""
    views = [
        {"item_id": f"item-{row}", "event_type": "view", "event_time": NOW} for row in range(60, 90)
    ]
    assert "item-3" not in every_item(serve(), user_id="user-3", history=views)


def test_hidden_items_are_never_returned(serve):
    recommender = serve()
    own, bought, hidden = sold_by("user-4"), {"item-4"}, {"item-60"}
    history = [{"item_id": "item-61", "event_type": "hide", "event_time": NOW}]
    shown = every_item(recommender, user_id="user-4", hidden=["item-62"], history=history)
    assert set(shown) == LIVE - own - bought - hidden - {"item-61", "item-62"}
    assert set(every_item(recommender, user_id="user-4")) == LIVE - own - bought - hidden
    assert set(every_item(recommender, hidden=["item-62"])) == LIVE - {"item-62"}


def test_a_hide_is_not_part_of_the_history(serve):
    recommender = serve()
    hide = {"item_id": "item-100", "event_type": "hide", "event_time": before(60)}
    with_hide = recommender.recommend({"history": [hide], "time": NOW})
    assert ids(with_hide) == ids(recommender.recommend({"hidden": ["item-100"], "time": NOW}))


def test_every_price_is_within_the_bounds_that_it_makes_itself(serve):
    recommender = serve()
    for item_id in sorted(LIVE):
        price = PRICES[item_id]
        for wanted in ({"min": price}, {"max": price}, {"min": price, "max": price}, [price]):
            body = json.loads(json.dumps({"k": 500, "require": {"price": wanted}}))
            assert item_id in ids(recommender.recommend(body))


def test_each_rule_counts_what_it_removed(serve):
    recommender = serve()
    own = sold_by("user-4") & LIVE
    request = {"user_id": "user-4", "exclude": ["item-60", "item-61"], "require": {"size": ["M"]}}
    shown = every_item(recommender, **request)
    removed = {
        rule: recommender.counters.total("refit_ineligible_items", rule=rule)
        for rule in recommender.snapshot.catalogue.rules.names
    }
    assert {name: n for name, n in removed.items() if name != "required_attributes"} == {
        "not_live": 0,
        "own_listing": len(own),
        "bought": 0,  # item-4 is their own as well
        "hidden": 1,
        "excluded": 1,
    }
    assert sum(removed.values()) == tiny.N_LIVE - len(shown)


def test_required_attributes_hold_and_k_items_are_returned_whenever_they_exist(serve):
    recommender = serve()
    require = {"size": ["M", "XXL"], "brand": ["acne", "cos"], "price": {"min": 20, "max": 60.5}}
    expected = with_labels("size", "M") & with_labels("brand", "acne", "cos")
    expected = {item for item in expected if 20 <= PRICES[item] <= 60.5}
    assert len(expected) > 3
    assert set(every_item(recommender, require=require)) == expected
    few = recommender.recommend({"k": 3, "require": require})
    assert ids(few) == every_item(recommender, require=require)[:3]


def test_a_missing_attribute_never_matches(serve):
    shown = every_item(serve(), require={"category_1": ["dress"]})
    assert set(shown) == with_labels("category_1", "dress") != LIVE


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"context": {"occasion": 3}}, "context.occasion: must be text"),
        ({"context": {"age": "old"}}, "context.age: must be a number"),
        ({"require": {"colour": ["red"]}}, "known ones: brand, category_1, price, size"),
        ({"require": {"seller_id": ["user-1"]}}, "unknown attribute"),
        ({"require": {"size": {"min": 1}}}, "require.size: must be a list of texts"),
        ({"require": {"size": [1]}}, "require.size: must be a list of texts"),
        ({"require": {"price": ["cheap"]}}, "require.price"),
        ({"k": 0}, "k"),
    ],
)
def test_a_request_that_does_not_fit_the_bundle_is_refused(serve, body, named):
    recommender = serve()
    with pytest.raises(RequestError, match=named):
        recommender.recommend(body)
    assert recommender.counters.total("refit_bad_requests") == 1


def test_time_is_accepted_only_if_replay_is_allowed(serve):
    with pytest.raises(RequestError, match="allow_replay"):
        serve(allow_replay=False).recommend({"time": NOW})


def test_the_history_of_a_request_replaces_the_stored_one(serve):
    recommender = serve()
    # Of other brands than user-1's own history.
    history = [
        {"item_id": "item-100", "event_type": "view", "event_time": before(60)},
        {"item_id": "unheard-of", "event_type": "view", "event_time": before(60)},
    ]
    stored = recommender.recommend({"user_id": "user-1", "time": NOW})
    given = recommender.recommend({"user_id": "user-1", "time": NOW, "history": history})
    alone = recommender.recommend({"time": NOW, "history": history[:1], "exclude": ["item-1"]})
    none = recommender.recommend({"user_id": "user-1", "time": NOW, "history": []})
    assert ids(stored) != ids(given) != ids(none)
    own = sold_by("user-1")
    assert [i for i in ids(alone) if i not in own] == [i for i in ids(given) if i in ids(alone)]


@pytest.mark.parametrize(
    ("minutes", "kept"),
    [((), 0), ((5,), 0), ((5, 34), 0), ((5, 36), 1), ((31, 40), 2), ((0, 29, 58, 90), 1)],
)
def test_the_running_visit_is_not_part_of_the_history(serve, minutes, kept):
    """As in training; 30 minutes of inactivity end a visit."""
    recommender = serve()
    history = [
        {"item_id": f"item-{100 + i}", "event_type": "purchase", "event_time": before(ago)}
        for i, ago in enumerate(minutes)
    ]
    without = history[len(history) - kept :]
    bought = [past["item_id"] for past in history]
    body = {"k": 500, "time": NOW, "exclude": bought}
    answer = recommender.recommend({**body, "history": history})
    assert answer["items"] == recommender.recommend({**body, "history": without})["items"]
    if without:
        assert answer["items"] != recommender.recommend({**body, "history": []})["items"]
    shown = ids(recommender.recommend({"k": 500, "time": NOW, "history": history}))
    assert not {*bought} & {*shown}, "what was bought a minute ago is not shown again"


def test_every_answer_is_logged(serve, tmp_path, bundle):
    recommender = serve()
    answer = recommender.recommend(
        {"user_id": "user-1", "context": {"occasion": "party"}, "time": NOW, "request_id": "mine"}
    )
    recommender.close()
    row = pq.read_table(tmp_path / "log" / "date=2026-03-02", partitioning=None).to_pylist()[0]
    assert row["request_id"] == answer["request_id"] == "mine"
    assert row["bundle_id"] == bundle.bundle_id
    assert row["embedding_version"] == bundle.manifest.embedding_version
    assert row["item_ids"] == ids(answer)
    assert json.loads(row["context"]) == {"occasion": "party"}
    assert row["time"].isoformat() == NOW
    assert np.linalg.norm(row["query_embedding"]) == pytest.approx(1, rel=1e-5)
    assert row["fallback"] is None


def test_a_share_of_people_always_gets_popularity(serve, tmp_path):
    recommender = serve(holdout_share=0.2)
    people = [f"user-{n}" for n in range(100)]
    held = [p for p in people if is_held_out(p, 0.2, "refit")]
    assert 10 <= len(held) <= 30
    assert held != [p for p in people if is_held_out(p, 0.2, "other")]
    assert set(held) <= {p for p in people if is_held_out(p, 0.3, "refit")}, "a larger share adds"
    assert not any(is_held_out(p, 0.0, "refit") for p in people)
    model = next(p for p in people if p not in held)
    for user, reason in ((held[0], "holdout"), (model, None), (None, None), (held[0], "holdout")):
        assert recommender.recommend({"user_id": user})["fallback"] == reason
    recommender.close()
    rows = pq.read_table(tmp_path / "log", partitioning=None).to_pylist()
    logged = [row for row in rows if row["fallback"] == HOLDOUT]
    assert [row["user_id"] for row in logged] == [held[0]] * 2
    assert all(row["query_embedding"] is None and row["item_ids"] for row in logged)
    assert recommender.counters.total("refit_holdout_answers") == 2
    assert recommender.counters.total("refit_fallbacks") == 0


def test_without_a_tower_popularity_in_context_answers(serve):
    recommender = serve(model_server=f"127.0.0.1:{free_port()}", breaker_seconds=60)
    party = {"user_id": "user-29", "context": {"occasion": "party"}, "k": 12}
    own = sold_by("user-29")
    answer = recommender.recommend(party)
    at_parties = [tiny.item_id(r) for r in range(10) if tiny.item_id(r) not in own]
    assert answer["fallback"] == "tower_unreachable"
    assert ids(answer)[: len(at_parties)] == at_parties
    assert ids(answer)[len(at_parties)] in ("item-50", "item-51"), "then what is popular over all"
    for _ in range(5):
        answer = recommender.recommend({"context": {"age": 40}, "k": 1})
    assert ids(answer) == ["item-42"], "a number is counted by its bin"
    assert answer["fallback"] == "breaker_open", "a dead tower does not cost the deadline"
    assert recommender.counters.total("refit_fallbacks", reason="tower_unreachable") == 3
    assert recommender.counters.total("refit_fallbacks") == 6
    assert set(every_item(recommender, user_id="user-3")) == LIVE - sold_by("user-3") - {"item-3"}
    assert set(every_item(recommender, require={"size": ["M"]})) == with_labels("size", "M")


def test_towers_are_loaded_again_after_a_restart_of_the_model_server(serve, model_server, until):
    recommender = serve(breaker_seconds=0.1)
    assert recommender.recommend({})["fallback"] is None
    client = TowerClient(model_server)
    client.serve_only({}, 10)
    until(lambda: recommender.recommend({})["fallback"] is None)
    until(lambda: client.is_available(recommender.snapshot.names.item))


def test_a_silent_tower_costs_no_more_than_the_deadline(serve, registry, model_server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        recommender = serve(model_server=address, tower_deadline_ms=50)
        assert recommender.recommend({})["fallback"] in ("tower_slow", "tower_unreachable")


def test_a_new_champion_takes_over_under_load(serve, registry, bundle, other_bundle, until):
    recommender = serve()
    stop, answers, failures = threading.Event(), [], []

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(recommender.recommend({"user_id": "user-2", "k": 5}))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) > 20)
    tiny.promote(registry, other_bundle)
    until(lambda: recommender.snapshot.bundle_id == other_bundle.bundle_id)
    old_tower = f"query_tower_{bundle.manifest.embedding_version[:8]}"
    until(lambda: not recommender._towers.is_available(old_tower))
    done = len(answers)
    until(lambda: len(answers) > done + 20)
    Registry(registry).rollback(by="a test", reason="to go back")
    until(lambda: recommender.snapshot.bundle_id == bundle.bundle_id)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert {answer["fallback"] for answer in answers} == {None}
    by_bundle = {
        answer["bundle_id"]: ids(answer) for answer in answers
    }  # each bundle always gives the same answer
    assert all(ids(answer) == by_bundle[answer["bundle_id"]] for answer in answers)
    assert by_bundle[bundle.bundle_id] != by_bundle[other_bundle.bundle_id]
    assert recommender.counters.total("refit_swaps") == 2


def break_checksum(bundle_folder: Path) -> None:
    path = bundle_folder / "index" / "vectors.npy"
    path.unlink()  # whoever has it open keeps what it was
    path.write_bytes(b"changed")


def appoint(registry: Path, bundle_id: str) -> None:
    """Make a bundle champion without the registry's own check."""
    champion = json.loads((registry / "champion.json").read_text())
    champion |= {"bundle_id": bundle_id, "number": champion["number"] + 1}
    write_json(registry / "champion.json", champion)


@pytest.fixture(scope="module")
def unfit_bundles(root, model):
    """Whole bundles, rightly signed, that cannot serve."""
    nan = tiny.make_bundle(root / "nan", tiny.make_model(root / "nan-model", 5, nan_queries=True))
    narrow = tiny.make_bundle(root / "narrow", model, dimension=tiny.D - 2)
    return {"nan": nan, "narrow": narrow}


@pytest.mark.parametrize("fault", ["nan", "narrow", "checksum"])
def test_an_invalid_new_champion_is_refused_and_the_old_one_stays(
    serve, registry, bundle, other_bundle, unfit_bundles, fault, until
):
    recommender = serve()
    if fault == "checksum":
        Registry(registry).add(other_bundle)
        break_checksum(registry / "bundles" / other_bundle.bundle_id)
        appoint(registry, other_bundle.bundle_id)
    else:
        tiny.promote(registry, unfit_bundles[fault])
    until(lambda: recommender.counters.total("refit_bundles_refused") == 1)
    answer = recommender.recommend({"user_id": "user-2"})
    assert answer["bundle_id"] == bundle.bundle_id
    assert answer["fallback"] is None
    tiny.promote(registry, bundle)
    assert recommender.recommend({})["bundle_id"] == bundle.bundle_id


def test_no_champion_is_a_clear_error(serve, registry):
    shutil.rmtree(registry)
    with pytest.raises(UsageError, match="no champion"):
        serve()


def test_a_broken_champion_is_a_clear_error(serve, registry, bundle):
    break_checksum(registry / "bundles" / bundle.bundle_id)
    with pytest.raises(RefitError, match="does not match its checksum"):
        serve()


def test_an_answer_says_that_a_baseline_is_served_as_itself(serve, registry, tmp_path, model):
    towers = shutil.copytree(model, tmp_path / "towers")
    write_json(towers / "model.json", {**read_json(towers / "model.json"), "kind": "baseline"})
    recommender = serve()
    assert "baseline" not in recommender.recommend({})
    baseline = tiny.make_bundle(tmp_path / "bundles", towers)
    tiny.promote(registry, baseline)
    recommender.close()
    recommender = serve()
    assert recommender.recommend({})["baseline"] is True
    assert recommender.status()["kind"] == "baseline"


def test_status_reports_what_is_served(serve, bundle):
    status = serve().status()
    stock = status.pop("feeds").pop("stock")
    assert status == {
        "bundle_id": bundle.bundle_id,
        "kind": "model",
        "towers": "available",
        "search": "embedded",
        "live_items": tiny.N_LIVE,
        "ready": True,
    }
    assert stock.pop("lag_seconds") < 30
    assert stock == {"behind": 0, "newest": None, "answers": True, "gaps": 0}
