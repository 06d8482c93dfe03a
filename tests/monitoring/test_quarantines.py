"""Quarantines of the alert store in the registry, where training finds them."""

import threading
import uuid
from datetime import timedelta

import pytest

from monitoring import patience
from monitoring.quarantines import (
    find_learned,
    find_unlisted,
    publish_quarantines,
    release_and_publish,
)
from monitoring.store import SqlStore, UnknownId, WrongState
from refit.bundle import BundleManifest
from refit.dataset import DatasetManifest, RowCounts, Split
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.index import IndexManifest
from refit.quarantine import Quarantine, QuarantinedDays
from refit.registry import QUARANTINES_FILE, Registry
from tests.monitoring.alerts import NOW

DAY = timedelta(days=1)


@pytest.fixture(params=["folder", "memory"])
def registry(request, tmp_path):
    url = f"memory://{uuid.uuid4().hex}/r" if request.param == "memory" else tmp_path / "registry"
    return Registry(url, cache=tmp_path / "cache")


@pytest.fixture
def store(tmp_path):
    return SqlStore(str(tmp_path / "alerts.sqlite"))


def make(quarantine_id="q1", table="items", days=0, **more):
    start = NOW + days * DAY
    return Quarantine(
        quarantine_id=quarantine_id, table=table, start=start, end=start + DAY, reason="x100"
    ).model_copy(update=more)


def test_what_is_in_force_is_published_and_what_is_released_is_not(store, registry):
    assert registry.quarantines() == ()
    assert publish_quarantines(store, registry) == ""
    assert not registry.fs.exists(f"{registry.root}/{QUARANTINES_FILE}")
    store.add_quarantine(make("q2", days=1))
    store.add_quarantine(make("q1"))
    assert publish_quarantines(store, registry) == ""
    assert [each.quarantine_id for each in registry.quarantines()] == ["q1", "q2"]
    assert release_and_publish(store, registry, ["q1"], "ana", "mended") == ""
    assert [each.quarantine_id for each in registry.quarantines()] == ["q2"]
    with pytest.raises(WrongState):
        release_and_publish(store, registry, ["q1"], "ana", "mended")
    assert release_and_publish(store, registry, ["q2"], "ana", "mended") == ""
    assert registry.quarantines() == ()


def test_several_are_released_together_up_to_one_that_cannot_be(store, registry):
    for name in ("q1", "q2", "q3"):
        store.add_quarantine(make(name))
    publish_quarantines(store, registry)
    with pytest.raises(UnknownId, match="nowhere"):
        release_and_publish(store, registry, ["q1", "nowhere", "q2"], "ana", "mended")
    assert [each.quarantine_id for each in registry.quarantines()] == ["q2", "q3"]
    assert release_and_publish(store, registry, ["q2", "q3"], "ana", "mended") == ""
    assert list(registry.quarantines()) == store.quarantines() == []


def test_a_writer_that_comes_between_is_not_undone(store, registry, tmp_path):
    """The store is read after the file was: the slower writer sees what the other released."""
    store.add_quarantine(make())
    publish_quarantines(store, registry)

    class Slow(SqlStore):
        reads = 0

        def quarantines(self, in_force=True):
            found = super().quarantines(in_force)
            self.reads += 1
            if self.reads == 1:
                release_and_publish(store, registry, ["q1"], "ana", "mended")
            return found

    slow = Slow(str(tmp_path / "alerts.sqlite"))
    slow.add_quarantine(make("q2"))
    assert publish_quarantines(slow, registry) == ""
    assert [each.quarantine_id for each in registry.quarantines()] == ["q2"]


def test_quarantines_of_another_store_stay_until_a_person_releases_them(store, registry, tmp_path):
    other = SqlStore(str(tmp_path / "other.sqlite"))
    other.add_quarantine(make("lost"))
    publish_quarantines(other, registry)
    store.add_quarantine(make("q1", days=1))
    publish_quarantines(store, registry)
    assert [each.quarantine_id for each in registry.quarantines()] == ["lost", "q1"]
    with pytest.raises(UsageError, match="say why"):
        release_and_publish(store, registry, ["lost"], "ana", " ")
    assert len(store.quarantines(in_force=False)) == 1
    release_and_publish(store, registry, ["lost"], "ana", "the data is right")
    assert [each.quarantine_id for each in registry.quarantines()] == ["q1"]
    assert [e.did for e in store.entries() if e.subject == "lost"] == [
        "release quarantine",
        "quarantine",
    ]
    with pytest.raises(UnknownId):
        release_and_publish(store, registry, ["nowhere"], "ana", "the data is right")


def test_what_could_not_be_published_stands_and_is_published_later(store, registry, monkeypatch):
    store.add_quarantine(make())
    store.add_quarantine(make("q2", days=1))
    with monkeypatch.context() as broken:

        def fail(name, text, seen):
            raise ServiceUnreachable("the disk is read-only")

        broken.setattr(registry, "_replace", fail)
        assert "read-only" in publish_quarantines(store, registry)
        warning = release_and_publish(store, registry, ["q1"], "ana", "mended")
    assert "next run of the monitor publishes them (the disk is read-only)" in warning
    assert [each.quarantine_id for each in store.quarantines()] == ["q2"]
    assert registry.quarantines() == ()
    assert publish_quarantines(store, registry) == ""
    assert [each.quarantine_id for each in registry.quarantines()] == ["q2"]


def test_nobody_waits_for_a_registry_that_does_not_answer(store, registry, monkeypatch):
    store.add_quarantine(make())
    answer = threading.Event()
    monkeypatch.setattr(registry, "publish_quarantines", lambda change: answer.wait(30))
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
    assert "did not answer" in release_and_publish(store, registry, ["q1"], "ana", "mended")
    assert store.quarantines() == []
    answer.set()


def test_without_a_registry_the_release_says_what_follows(store):
    store.add_quarantine(make())
    assert "no registry is known" in release_and_publish(store, None, ["q1"], "ana", "mended")
    assert store.quarantines() == []


def test_an_invalid_file_stops_training_and_says_what_to_do(store, registry):
    registry.fs.makedirs(registry.root, exist_ok=True)
    registry.fs.pipe_file(f"{registry.root}/{QUARANTINES_FILE}", b"{")
    with pytest.raises(RefitError, match=r"(?s)quarantines\.json is invalid.*refit monitor"):
        registry.quarantines()
    assert "is invalid" in publish_quarantines(store, registry)


MANIFEST = BundleManifest(
    bundle_id="b1",
    created_at=NOW,
    embedding_version="e1",
    as_of=NOW,
    trained_from=NOW - 10 * DAY,
    trained_until=NOW,
    checksums={},
)


@pytest.mark.parametrize(
    ("quarantine", "learned"),
    [
        (make(days=-1), True),
        (make(days=0), False),
        (make(days=-20), True),  # an item may be older than the first event
        (make(table="events", days=-20), False),
        (make(table="events", days=-10), True),
        (make(table="events", days=-20, end=None), True),
        (make(table="log", days=-1), False),
    ],
)
def test_a_champion_that_learned_from_the_days_is_named(quarantine, learned):
    found = find_learned([quarantine], MANIFEST, None)
    assert len(found) == learned
    if learned:
        assert "b1 was trained on days that are in quarantine since: q1 (x100)" in found[0]


def test_a_champion_that_left_them_out_is_not_named():
    manifest = left_out()
    assert find_learned([make(days=-1)], MANIFEST, manifest) == ()
    assert "q2" in find_learned([make("q2", days=-1)], MANIFEST, manifest)[0]


def test_items_that_the_index_lacks_are_named_until_it_is_refreshed():
    index = IndexManifest(
        embedding_version="e1",
        kind="flat",
        dimension=2,
        n_live=1,
        n_items=1,
        recall_at_100=1.0,
        n_queries=1,
        latency_ms={},
        as_of=NOW,
        dataset_fingerprint="f",
    )
    (note,) = find_unlisted(MANIFEST, index, left_out())
    assert "12 items in quarantine are not in the index of b1" in note
    refreshed = index.model_copy(update={"dataset_fingerprint": "g"})
    assert find_unlisted(MANIFEST, refreshed, left_out()) == ()
    assert find_unlisted(MANIFEST, index, None) == ()


def left_out():
    """The manifest of data without the days of q1."""
    q1 = make(days=-1)
    days = QuarantinedDays(**q1.model_dump(include={*QuarantinedDays.model_fields}))
    split = Split(start=NOW - 10 * DAY, validation_start=NOW, test_start=NOW, end=NOW)
    return DatasetManifest(
        source="files",
        simulated=False,
        terms="",
        counts={"items": RowCounts(rows_in=20, kept=8, rejected=0, duplicates=0, quarantined=12)},
        split=split,
        fingerprint="f",
        quarantined=(days,),
    )


def test_a_champion_of_unknown_data_may_have_learned_from_them():
    unknown = MANIFEST.model_copy(update={"trained_from": None, "trained_until": None})
    assert find_learned([make(days=5)], unknown, None)
