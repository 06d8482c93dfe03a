"""A recommender that is pinned to one bundle, as a predictor on a cluster has it."""

import threading
import time

import pytest

from refit.errors import UsageError
from refit.ports import free_port
from refit.registry import Registry
from serving.towers import Fallback
from tests.serving import tiny
from tests.serving.tiny import ids


def test_it_serves_its_bundle_whichever_is_the_champion(
    serve, registry, bundle, other_bundle, until
):
    recommender = serve(bundle=bundle.bundle_id)
    tiny.promote(registry, other_bundle)
    following = serve()
    until(lambda: following.snapshot.bundle_id == other_bundle.bundle_id)
    time.sleep(0.3)  # six polls of the champion
    answer = recommender.recommend({"k": 3})
    assert (answer["bundle_id"], answer["fallback"]) == (bundle.bundle_id, None)


def test_it_needs_no_champion(serve, tmp_path, bundle):
    store = Registry(tmp_path / "bare")
    store.add(bundle)
    assert serve(registry=str(store.root), bundle=bundle.bundle_id).recommend({"k": 1})["items"]
    with pytest.raises(UsageError, match="no bundle 'nothing'"):
        serve(registry=str(store.root), bundle="nothing")


def test_it_starts_from_its_cache_without_the_store(serve, tmp_path, bundle):
    store = Registry("memory://pinned/registry", cache=tmp_path / "cache")
    store.add(bundle)
    store.get(bundle.bundle_id)
    away = "s3://nowhere/registry"
    recommender = serve(registry=away, cache=tmp_path / "cache", bundle=bundle.bundle_id)
    assert len(ids(recommender.recommend({"k": 3}))) == 3


def test_it_waits_for_a_model_server_that_is_starting(serve, tmp_path, bundle):
    port, started = free_port(), []

    def start() -> None:
        time.sleep(0.5)
        started.append(tiny.start_model_server(port, tmp_path / "late.log"))

    thread = threading.Thread(target=start)
    thread.start()
    try:
        recommender = serve(
            model_server=f"127.0.0.1:{port}", bundle=bundle.bundle_id, towers_wait_s=120
        )
        assert recommender.recommend({"k": 3})["fallback"] is None
    finally:
        thread.join()
        started[0].stop()


def test_it_stops_waiting_after_towers_wait_s(serve, bundle):
    started = time.monotonic()
    recommender = serve(model_server=f"127.0.0.1:{free_port()}", towers_wait_s=0.5)
    assert 0.5 <= time.monotonic() - started < 20
    assert recommender.recommend({"k": 3})["fallback"] == Fallback.UNREACHABLE


def test_counters_of_a_rollout_start_at_zero(serve):
    counts = {(one["key"], *one["tags"].values()): one for one in serve().counters.drain()}
    assert counts["refit_requests",]["value"] == counts["refit_errors",]["value"] == 0
    for reason in Fallback:
        assert counts["refit_fallbacks", reason.value]["value"] == 0


def test_an_internal_error_is_counted(serve, monkeypatch):
    recommender = serve()

    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(recommender, "_embed", break_down)
    with pytest.raises(ZeroDivisionError):
        recommender.recommend({"k": 3})
    assert recommender.counters.total("refit_errors") == 1
    assert recommender.counters.total("refit_requests") == 0
