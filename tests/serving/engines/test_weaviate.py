"""A real Weaviate cluster of three nodes behind the recommender: ``make test-weaviate``."""

import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import pytest

from refit.errors import ServiceUnreachable
from refit.registry import Registry
from serving.engines.engine import column_kinds
from serving.engines.settings import IndexWriterSettings
from serving.engines.writer import IndexWriter
from serving.recommender import Recommender
from tests.serving import tiny
from tests.serving.tiny import LIVE, NOW, ids
from tests.weaviate.cluster import N_NODES, Cluster
from tests.weaviate.load import under_load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("weaviate"))
    yield started
    started.stop()


@pytest.fixture
def weaviate(cluster) -> dict:
    """How the cluster is reached; each test has collections of its own."""
    mine = {"collections": f"T{uuid.uuid4().hex[:12]}", "deadline_ms": 2000.0, "attempt_ms": 900.0}
    return cluster.settings.model_copy(update=mine).model_dump(mode="json")


@pytest.fixture
def make_writer(registry, weaviate, model_server, tmp_path) -> Iterator[Callable[..., IndexWriter]]:
    made: list[IndexWriter] = []

    def make(**collection: object) -> IndexWriter:
        settings = {
            "registry": str(registry),
            "weaviate": weaviate,
            "model_server": model_server,
            "feeds": {"stock": str(tmp_path / "stock"), "ahead_seconds": 1e9},
            "letters": str(tmp_path / "letters"),
            "collection": {"keep_seconds": 0.0, **collection},
        }
        made.append(IndexWriter(IndexWriterSettings.parse(settings)))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


def finish(writer: IndexWriter, seconds: float = 60.0) -> None:
    """Let a writer do all that there is to do now."""
    deadline = time.monotonic() + seconds
    while True:
        assert time.monotonic() < deadline
        try:
            is_busy = writer.step()
        except ServiceUnreachable:
            time.sleep(0.2)
            continue
        if not is_busy and all(mirror.is_served for mirror in writer.mirrors.values()):
            return


@contextmanager
def running(writer: IndexWriter) -> Iterator[None]:
    """Let a writer run beside the test."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                is_busy = writer.step()
            except ServiceUnreachable:
                is_busy = False
            time.sleep(0 if is_busy else 0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def held(recommender: Recommender) -> set[str]:
    """The items that the engine has of the bundle in service."""
    catalogue = recommender.snapshot.catalogue
    query = np.ones(catalogue.size, dtype=np.float32)
    version = catalogue.bundle.manifest.embedding_version
    engine = recommender.snapshot.remote._engine
    return set(engine.search(version, query, 1000, None, column_kinds(catalogue)).item_ids)


def tell(tmp_path, *lines: dict) -> None:
    with (tmp_path / "stock" / "feed.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def test_answers_are_those_of_the_search_in_this_process(serve, make_writer, weaviate):
    finish(make_writer())
    remote, embedded = serve(engine={"weaviate": weaviate}), serve()
    assert remote.status()["search"] == "engine"
    rng = np.random.default_rng(0)
    for _ in range(60):
        body = {
            "user_id": f"user-{rng.integers(0, 29)}",
            "k": int(rng.integers(1, 30)),
            "time": NOW,
            "exclude": [tiny.item_id(row) for row in rng.integers(0, 200, 5).tolist()],
        }
        if rng.random() < 0.7:
            body["require"] = {
                "size": rng.choice(["S", "M", "L"], 2).tolist(),
                "price": {"max": 80},
            }
        expected, found = embedded.recommend(body), remote.recommend(body)
        assert found["fallback"] is None
        assert ids(found) == ids(expected)
        scores = [[item["score"] for item in one["items"]] for one in (found, expected)]
        np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-6)
    assert ids(remote.similar({"item_id": "item-7"})) == ids(
        embedded.similar({"item_id": "item-7"})
    )


def test_every_retriever_says_its_condition_there(serve, make_writer, weaviate, monkeypatch):
    monkeypatch.setattr("serving.engines.remote.FEW", 0)
    finish(make_writer())
    settings = {
        "retrieval": {"retrievers": {"towers": 2, "followed": 1, "similar": 1}},
        "slate": {"exploration": {"share": 0.5, "under_shown": 0.3}},
    }
    remote, embedded = serve(engine={"weaviate": weaviate}, **settings), serve(**settings)
    for number in range(29):
        body = {"user_id": f"user-{number}", "request_id": f"r{number}", "time": NOW, "k": 12}
        expected, found = embedded.recommend(body), remote.recommend(body)
        assert (ids(found), found["fallback"]) == (ids(expected), None)


def test_half_a_collection_has_no_alias(serve, make_writer, weaviate, bundle, until, monkeypatch):
    monkeypatch.setattr("serving.engines.writer.TIDY_SECONDS", -1.0)
    version = bundle.manifest.embedding_version
    first = make_writer(batch=20, threads=1)
    recommender = serve(engine={"weaviate": weaviate})
    for _ in range(4):
        assert first.step(), "there is more to fill"
        assert first.aliases.target(version) is None
        assert recommender.recommend({})["fallback"] == "search_not_loaded"
    (half,) = first.aliases.collections()
    # The writer dies; another one begins again, and removes what the first one left.
    second = make_writer()
    finish(second)
    assert second.aliases.target(version) not in (None, half)
    until(lambda: recommender.recommend({})["fallback"] is None)
    assert held(recommender) == LIVE
    second.step()
    assert second.aliases.collections() == [second.aliases.target(version)]


def test_a_collection_that_lacks_items_is_refused(make_writer, bundle):
    writer = make_writer()
    while writer.step():
        pass
    writer.mirrors[bundle.bundle_id].collection.remove(["item-1", "item-2"])
    writer.step()
    assert writer.counters.total("refit_index_writer_refused") == 1
    assert writer.aliases.target(bundle.manifest.embedding_version) is None


def test_the_feed_is_written_and_a_writer_that_was_away_catches_up(
    serve, make_writer, weaviate, tmp_path, until
):
    first = make_writer()
    finish(first)
    recommender = serve(engine={"weaviate": weaviate})
    new = {**tiny.NEW, "item_id": "new-2"}
    tell(tmp_path, tiny.NEW, new, tiny.gone("item-5"), tiny.gone("item-6"))
    until(lambda: "item-5" not in ids(recommender.recommend({"k": 500, "time": NOW})))
    first.step()
    first.step()
    # Most replicas have it at once, the last one soon.
    until(lambda: held(recommender) == LIVE - {"item-5", "item-6"} | {"new-1", "new-2"})
    until(lambda: "new-1" in ids(recommender.recommend({"k": 500, "time": NOW})))
    # While no writer runs, a new listing is sold and a sold item is listed again.
    later = tiny.MUCH_LATER
    back = {"item_id": "item-6", "change": "relisted", "at": later}
    cheaper = {"item_id": "item-9", "change": "changed", "at": later, "price": 1.5}
    tell(tmp_path, tiny.gone("new-2", later), back, cheaper)
    second = make_writer()
    finish(second)
    until(lambda: held(recommender) == LIVE - {"item-5"} | {"new-1"})
    body = {"k": 500, "time": NOW, "require": {"price": {"max": 2.0}}}
    until(lambda: ids(recommender.recommend(body)) == ["item-9"])
    embedded = serve()
    for number in range(29):
        body = {"k": 60, "time": NOW, "user_id": f"user-{number}"}
        until(lambda body=body: ids(recommender.recommend(body)) == ids(embedded.recommend(body)))


def test_a_champion_of_other_towers_is_taken_over_without_a_fallback(
    serve, make_writer, weaviate, registry, bundle, other_bundle, until
):
    writer = make_writer()
    finish(writer)
    recommender = serve(engine={"weaviate": weaviate})
    with under_load(recommender) as load:
        tiny.promote(registry, other_bundle)
        time.sleep(0.5)
        assert recommender.bundle_id == bundle.bundle_id, "its items are not there yet"
        with running(writer):
            until(lambda: recommender.bundle_id == other_bundle.bundle_id)
            time.sleep(0.5)
    assert (load.failures, load.fallbacks) == ([], {})
    assert load.bundles == {bundle.bundle_id, other_bundle.bundle_id}
    assert len(writer.aliases.collections()) >= 1


def test_an_index_that_was_refreshed_takes_the_alias_over(
    serve, make_writer, weaviate, registry, root, model, bundle, until, monkeypatch
):
    writer = make_writer()
    finish(writer)
    version = bundle.manifest.embedding_version
    before = writer.aliases.target(version)
    recommender = serve(engine={"weaviate": weaviate})
    monkeypatch.setattr(tiny, "AS_OF", tiny.AS_OF + timedelta(minutes=30))
    newer = tiny.make_bundle(root / f"newer-{uuid.uuid4().hex}", model, seed=3)
    assert newer.manifest.embedding_version == version
    with under_load(recommender) as load, running(writer):
        tiny.promote(registry, newer)
        until(lambda: recommender.bundle_id == newer.bundle_id)
        assert writer.aliases.target(version) != before
        time.sleep(0.5)
    assert (load.failures, load.fallbacks) == ([], {})
    # Back to the bundle before: its servers may go on with what is newer until the writer is done.
    with under_load(recommender) as load:
        Registry(registry).rollback(by="a test", reason="it was better")
        until(lambda: recommender.bundle_id == bundle.bundle_id)
        finish(writer)
    assert (load.failures, load.fallbacks) == ([], {})
    marks = writer.aliases.mark(writer.aliases.target(version))
    assert marks.bundle_id == bundle.bundle_id


def test_a_node_that_is_killed_costs_no_request(
    serve, make_writer, weaviate, cluster, tmp_path, until
):
    writer = make_writer()
    finish(writer)
    recommender = serve(engine={"weaviate": weaviate})
    with under_load(recommender) as load:
        time.sleep(2)
        cluster.kill(1)
        time.sleep(5)
        tell(tmp_path, tiny.gone("item-100"))
        finish(writer)  # two of three are enough
        cluster.start(1)
        time.sleep(2)
    assert load.failures == []
    assert load.fallbacks == {}
    sys.stdout.write(
        f"\na node killed and started again: {load.answers} answers, "
        f"the slowest took {1000 * max(load.seconds):.0f} ms\n"
    )
    shown = ids(recommender.recommend({"k": 500, "time": NOW}))
    assert "item-100" not in shown


def test_popularity_answers_while_the_cluster_is_away(serve, make_writer, weaviate, cluster, until):
    finish(make_writer())
    recommender = serve(engine={"weaviate": weaviate})
    assert recommender.recommend({"time": NOW})["fallback"] is None
    for number in range(N_NODES):
        cluster.kill(number)
    reasons = {recommender.recommend({"time": NOW})["fallback"] for _ in range(20)}
    assert reasons == {"search_unreachable", "search_breaker_open"}
    cluster.start_all()
    until(lambda: recommender.recommend({"time": NOW})["fallback"] is None)
