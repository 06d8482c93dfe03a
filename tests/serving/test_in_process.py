"""The query tower in the process that answers."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from refit.errors import RefitError, UsageError
from refit.features import query_inputs
from refit.in_process_tower import MODEL_FILE, InProcessTower, extras_of, has_in_process_tower
from refit.ports import free_port
from refit.towers import load_tower, run_tower
from serving.processes import PROJECT
from serving.settings import RecommenderSettings
from serving.towers import Fallback, OwnQueryTower, TowerFailure
from tests.serving import tiny
from tests.serving.tiny import NOW, ids


@pytest.fixture(scope="module")
def towers(root: Path) -> Path:
    return tiny.make_model(root / "in-process", seed=0, nan_at="party", in_process=True)


@pytest.fixture(scope="module")
def able(root: Path, towers: Path):
    """A bundle whose query tower also runs in process, where "party" gives NaN."""
    return tiny.make_bundle(root / "able", towers)


@pytest.fixture
def serve_in_process(serve, registry, able):
    """Make recommenders of ``able`` with the query tower in process, without a model server."""
    tiny.promote(registry, able)

    def make(**settings: object):
        return serve(**{"query_tower": "in_process", "model_server": "", **settings})

    return make


def queries(rows: int) -> dict:
    rng = np.random.default_rng(3)
    length = tiny.SPEC.history_length
    return query_inputs(
        tiny.SPEC,
        {"occasion": [("work", None)[i % 2] for i in range(rows)], "age": [None] * rows},
        {"city": ["Lund"] * rows},
        rng.normal(size=(rows, length, tiny.C)).astype(np.float32),
        [["view"] * length] * rows,
        rng.uniform(0, 90, (rows, length)).astype(np.float32),
    )


@pytest.mark.parametrize("rows", [1, 7])
def test_vectors_are_those_of_the_saved_model_in_any_batch_and_thread(towers, rows):
    base = towers / "query_tower"
    inputs, tower = queries(rows), InProcessTower(base)
    expected = run_tower(load_tower(base), inputs)["embedding"]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: tower.run(inputs)["embedding"], range(60)))
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_answers_are_those_of_the_tower_on_a_model_server(serve, serve_in_process):
    ours, theirs = serve_in_process(), serve()
    bodies = [
        {"user_id": f"user-{n}", "k": 20, "time": NOW, "context": {"occasion": occasion}}
        for n, occasion in enumerate(("work", None, "work", None))
    ]
    for body in [*bodies, {"requests": bodies}]:
        pairs = zip(answers_of(ours, body), answers_of(theirs, body), strict=True)
        for own, other in pairs:
            assert own["fallback"] is None
            assert ids(own) == ids(other)
            scores = [[item["score"] for item in one["items"]] for one in (own, other)]
            np.testing.assert_allclose(*scores, rtol=1e-4)


def answers_of(recommender, body: dict) -> list[dict]:
    answer = recommender.recommend(body)
    return answer.get("answers", [answer])


def test_a_bundle_without_such_a_tower_is_refused_with_advice(serve, bundle, registry):
    tiny.promote(registry, bundle)
    with pytest.raises(RefitError, match=r"query_tower: bundle .* train.in_process_tower"):
        serve(query_tower="in_process")


def test_such_a_new_champion_is_refused_and_the_old_one_stays(
    serve_in_process, registry, able, other_bundle, until
):
    recommender = serve_in_process()
    tiny.promote(registry, other_bundle)
    until(lambda: recommender.counters.total("refit_bundles_refused") == 1)
    answer = recommender.recommend({"user_id": "user-2"})
    assert (answer["bundle_id"], answer["fallback"]) == (able.bundle_id, None)


def test_no_address_of_a_model_server_needs_the_tower_in_process():
    settings = {"registry": "r", "log_folder": "l", "model_server": ""}
    with pytest.raises(UsageError, match="set query_tower to in_process"):
        RecommenderSettings.parse(settings)
    assert RecommenderSettings.parse({**settings, "query_tower": "in_process"})


def test_a_bad_vector_falls_back_without_opening_the_breaker(serve_in_process):
    recommender = serve_in_process()
    for _ in range(5):
        answer = recommender.recommend({"context": {"occasion": "party"}, "k": 5})
        assert answer["fallback"] == "tower_bad_answer"
        assert len(answer["items"]) == 5
    assert recommender.recommend({"k": 5})["fallback"] is None
    assert recommender.counters.total("refit_fallbacks", reason="tower_bad_answer") == 5


def test_inputs_and_outputs_that_do_not_fit_are_failures_with_their_reason(towers):
    tower = InProcessTower(towers / "query_tower")
    for change, reason in (
        (lambda inputs: inputs.pop("context_occasion"), Fallback.REFUSED),
        (lambda inputs: inputs.pop("history_age_days"), Fallback.REFUSED),
        (
            lambda inputs: inputs.update(history_content=np.zeros((1, 5, 3), np.float32)),
            Fallback.REFUSED,
        ),
    ):
        inputs = queries(1)
        change(inputs)
        with pytest.raises(TowerFailure) as failure:
            OwnQueryTower(tower, tiny.D).embed(inputs, 1)
        assert failure.value.reason is reason
    with pytest.raises(TowerFailure) as failure:
        OwnQueryTower(tower, tiny.D + 1).embed(queries(1), 1)
    assert failure.value.reason is Fallback.BAD_ANSWER
    assert OwnQueryTower(tower, tiny.D).embed(queries(1), 1).vectors.shape == (1, tiny.D)


def test_a_tower_that_litert_cannot_read_is_an_error(towers, tmp_path):
    base = tmp_path / "query_tower"
    shutil.copytree(towers / "query_tower", base)
    (extras_of(base) / MODEL_FILE).write_bytes(b"this is no model")
    with pytest.raises(RefitError, match="cannot be run"):
        InProcessTower(base)
    (extras_of(base) / MODEL_FILE).unlink()
    assert not has_in_process_tower(base)
    with pytest.raises(RefitError, match=f"has no {MODEL_FILE}"):
        InProcessTower(base)


def test_without_a_model_server_sales_count_new_listings_wait_and_bundles_are_swapped(
    serve_in_process, registry, root, tmp_path, until
):
    recommender = serve_in_process()
    status = recommender.status()
    assert status["towers"] == "query tower in process; no model server: newer listings wait"
    assert status["ready"]
    lines = [tiny.NEW, tiny.gone("item-1")]
    feed = tmp_path / "stock" / "feed.jsonl"
    feed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    until(lambda: len(recommender.snapshot.stock) == tiny.N_LIVE - 1)
    until(
        lambda: recommender.counters.total(
            "refit_stock_embedding_failures", reason="tower_unreachable"
        )
    )
    shown = ids(recommender.recommend({"k": 500}))
    assert "item-1" not in shown
    assert "new-1" not in shown
    other = tiny.make_bundle(
        root / "next", tiny.make_model(root / "next-model", 4, in_process=True), seed=1
    )
    tiny.promote(registry, other)
    until(lambda: recommender.snapshot.bundle_id == other.bundle_id)
    assert recommender.recommend({})["fallback"] is None


def test_a_model_server_that_is_away_is_told_and_queries_are_answered(
    serve_in_process, model_server, tmp_path, until
):
    away = serve_in_process(model_server=f"127.0.0.1:{free_port()}")
    assert away.recommend({})["fallback"] is None
    assert away.status()["towers"].startswith("query tower in process; item tower: the model")
    recommender = serve_in_process(model_server=model_server)
    assert recommender.status()["towers"] == "available"
    (tmp_path / "stock" / "feed.jsonl").write_text(json.dumps(tiny.NEW) + "\n")
    until(lambda: "new-1" in ids(recommender.recommend({"k": 500})))


WITHOUT_TENSORFLOW = """
import json, sys
from serving.recommender import Recommender
from serving.settings import RecommenderSettings
with Recommender(RecommenderSettings.parse_json(sys.argv[1])) as recommender:
    assert recommender.recommend({})["fallback"] is None
    assert "tensorflow" not in sys.modules, "its import takes seconds and hundreds of megabytes"
"""


@pytest.mark.parametrize("query_tower", ["in_process", "model_server"])
def test_a_process_that_answers_does_not_import_tensorflow(
    registry, able, model_server, tmp_path, query_tower
):
    tiny.promote(registry, able)
    settings = RecommenderSettings(
        registry=str(registry),
        log_folder=str(tmp_path / "log"),
        query_tower=query_tower,
        model_server=model_server,
        tower_deadline_ms=5000,
    )
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, settings.to_json()]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
