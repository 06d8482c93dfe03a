import multiprocessing
import os
import uuid
from pathlib import Path

import fsspec
import pytest

from refit import registry as module
from refit.errors import GateRefused, RefitError, ServiceUnreachable, UsageError
from refit.registry import Registry


@pytest.fixture(params=["local", "memory"])
def registry(request, tmp_path) -> Registry:
    url = tmp_path / "registry" if request.param == "local" else f"memory://{uuid.uuid4().hex}/r"
    return Registry(url, cache=tmp_path / "cache")


def test_an_empty_registry_has_no_champion(registry):
    assert registry.list() == ()
    assert registry.champion() is None
    assert registry.history() == ()
    with pytest.raises(UsageError, match="no earlier champion"):
        registry.rollback("ann", "why not")


def test_an_added_bundle_can_be_read_and_is_verified(registry, make_bundle):
    bundle = make_bundle()
    assert registry.add(bundle) == registry.add(bundle) == bundle.bundle_id
    assert registry.list() == (bundle.bundle_id,)
    found = registry.get(bundle.bundle_id)
    assert found.manifest == bundle.manifest
    assert found.path != bundle.path


def test_a_corrupt_bundle_is_not_added(registry, make_bundle):
    bundle = make_bundle()
    (bundle.index / "index.faiss").write_text("torn")
    with pytest.raises(RefitError, match=r"index\.faiss"):
        registry.add(bundle)
    assert registry.list() == ()


def test_the_error_for_an_unknown_bundle_lists_the_latest_bundles(registry, make_bundle):
    existing = registry.add(make_bundle())
    with pytest.raises(UsageError, match=existing):
        registry.get("nothing")


def test_every_promotion_and_roll_back_is_in_the_audit_trail(registry, make_bundle):
    first, second, third = (registry.add(make_bundle(note=n)) for n in "abc")
    for bundle_id in (first, second, third):
        registry.promote(bundle_id, "ann", "better")
    assert registry.champion().previous == second
    assert registry.rollback("bob", "worse").bundle_id == second
    assert registry.rollback("bob", "worse still").bundle_id == first
    with pytest.raises(UsageError, match="no earlier champion"):
        registry.rollback("bob", "once more")
    assert [(p.number, p.action, p.bundle_id, p.by) for p in registry.history()] == [
        (1, "promote", first, "ann"),
        (2, "promote", second, "ann"),
        (3, "promote", third, "ann"),
        (4, "rollback", second, "bob"),
        (5, "rollback", first, "bob"),
    ]


def test_promoting_the_champion_again_has_no_effect(registry, make_bundle):
    bundle_id = registry.add(make_bundle())
    assert registry.promote(bundle_id, "ann", "new") == registry.promote(bundle_id, "ann", "again")
    assert len(registry.history()) == 1


@pytest.mark.parametrize(("passed", "why"), [(False, "too weak"), (None, "no verdict")])
def test_without_a_passed_verdict_only_force_promotes(registry, make_bundle, passed, why):
    bundle_id = registry.add(make_bundle(passed=passed))
    with pytest.raises(GateRefused, match=why):
        registry.promote(bundle_id, "ann", "hope")
    assert registry.champion() is None
    with pytest.raises(UsageError, match="reason"):
        registry.promote(bundle_id, "ann", " ", force=True)
    assert registry.promote(bundle_id, "ann", "demo day", force=True).forced
    assert registry.history()[-1].reason == "demo day"


def test_a_kill_before_the_history_is_written_loses_nothing(registry, make_bundle):
    first, second = (registry.add(make_bundle(note=n)) for n in "ab")
    registry.promote(first, "ann", "new")
    registry._write_history(())  # the state after a kill between the two writes
    assert [p.bundle_id for p in registry.history()] == [first]
    registry.promote(second, "ann", "better")
    assert [p.bundle_id for p in registry._read_history()] == [first, second]


def test_an_invalid_champion_file_is_an_error_not_an_empty_registry(registry, make_bundle):
    registry.promote(registry.add(make_bundle()), "ann", "new")
    registry._write("champion.json", "{")
    with pytest.raises(RefitError, match=r"champion\.json is invalid"):
        registry.champion()


def test_prune_keeps_the_newest_the_champion_and_its_predecessor(registry, make_bundle):
    ids = sorted(registry.add(make_bundle(note=n)) for n in "abcde")
    registry.promote(ids[1], "ann", "new")
    registry.promote(ids[0], "ann", "better")
    assert registry.prune(keep=1) == tuple(ids[2:4])
    assert registry.list() == (ids[0], ids[1], ids[4])
    assert registry.rollback("ann", "still works").bundle_id == ids[1]


def test_prune_removes_remains_of_killed_writers(tmp_path, make_bundle):
    registry = Registry(tmp_path)
    existing = registry.add(make_bundle())
    for name, old in ((".a.partial", True), ("half-removed", True), (".b.partial", False)):
        (tmp_path / "bundles" / name).mkdir()
        if old:
            os.utime(tmp_path / "bundles" / name, (0, 0))
    assert registry.prune(keep=5) == ()
    assert {p.name for p in (tmp_path / "bundles").iterdir()} == {existing, ".b.partial"}


def test_a_partially_uploaded_bundle_does_not_exist(tmp_path, make_bundle):
    registry = Registry("memory://half/r", cache=tmp_path)
    bundle = make_bundle()
    registry.add(bundle)
    registry.fs.rm_file(f"{registry.root}/bundles/{bundle.bundle_id}/manifest.json")
    assert registry.list() == ()
    with pytest.raises(UsageError):
        registry.get(bundle.bundle_id)
    registry.add(bundle)
    assert registry.list() == (bundle.bundle_id,)


def test_the_lock_of_a_killed_writer_expires(tmp_path, make_bundle, monkeypatch):
    registry = Registry("memory://locked/r", cache=tmp_path)
    bundle_id = registry.add(make_bundle())
    registry.fs.pipe_file(f"{registry.root}/.lock", b"0")
    assert registry.promote(bundle_id, "ann", "new").number == 1
    assert not registry.fs.exists(f"{registry.root}/.lock")


def test_an_unreachable_store_is_reported(tmp_path, monkeypatch):
    registry = Registry("memory://away/r", cache=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(ServiceUnreachable, match="connection refused"):
        registry.champion()


def _promote_many(root: Path, ids: list[str], by: str) -> None:
    for i in range(15):
        Registry(root).promote(ids[i % len(ids)], by, f"turn {i}")


def test_concurrent_promotions_keep_the_history_consistent(tmp_path, make_bundle):
    registry = Registry(tmp_path / "registry")
    ids = [registry.add(make_bundle(note=n)) for n in "abc"]
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_promote_many, args=(tmp_path / "registry", ids, by))
        for by in ("ann", "bob")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    history = registry.history()
    assert history == registry._read_history()
    assert [p.number for p in history] == list(range(1, len(history) + 1))
    assert [p.previous for p in history[1:]] == [p.bundle_id for p in history[:-1]]
    assert registry.champion() == history[-1]
    assert module.CHAMPION_FILE in {p.name for p in (tmp_path / "registry").iterdir()}
