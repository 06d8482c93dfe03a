import multiprocessing
import os
import uuid
from pathlib import Path

import fsspec
import pytest

from refit import registry as module
from refit.errors import GateRefused, RefitError, ServiceUnreachable, UsageError
from refit.registry import Registry
from tests.benchmarks.gate.promotes import race_promotes
from tests.s3 import BUCKET


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
    write(registry, "history.jsonl", "")  # the state after a kill between the two writes
    assert [p.bundle_id for p in registry.history()] == [first]
    registry.promote(second, "ann", "better")
    assert [p.bundle_id for p in registry._read_history()] == [first, second]


def test_an_invalid_champion_file_is_an_error_not_an_empty_registry(registry, make_bundle):
    registry.promote(registry.add(make_bundle()), "ann", "new")
    write(registry, "champion.json", "{")
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


def test_what_a_killed_writer_left_is_no_wall(registry, make_bundle):
    bundle_id = registry.add(make_bundle())
    for left in ("", "0", "somebody, until next year"):
        write(registry, ".lock", left)
        write(registry, ".champion.json.0badf00d.partial", left)
    assert registry.promote(bundle_id, "ann", "new").number == 1


def test_an_unreachable_store_is_reported(tmp_path, monkeypatch):
    registry = Registry("memory://away/r", cache=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(ServiceUnreachable, match="connection refused"):
        registry.champion()


def write(registry: Registry, name: str, text: str) -> None:
    """Put a file into a registry, as nobody should."""
    registry.fs.makedirs(registry.root, exist_ok=True)
    registry.fs.pipe_file(f"{registry.root}/{name}", text.encode())


def _promote_many(root: Path, ids: list[str], by: str) -> None:
    for i in range(15):
        Registry(root).promote(ids[i % len(ids)], by, f"turn {i}", force=True)


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


def test_a_promotion_that_expects_another_champion_is_refused(registry, make_bundle):
    first, second, third = (registry.add(make_bundle(note=n)) for n in "abc")
    registry.promote(first, "ann", "new", expected="")
    with pytest.raises(GateRefused, match=f"no champion, but the champion is now {first}"):
        registry.promote(second, "ann", "late", expected="")
    registry.promote(second, "ann", "better", expected=first)
    with pytest.raises(GateRefused, match="evaluate again"):
        registry.promote(third, "ann", "late", force=True, expected=first)
    assert [p.bundle_id for p in registry.history()] == [first, second]
    # The same promotion again, as after a kill, has no effect.
    assert registry.promote(second, "ann", "better", expected=first).number == 2


def test_of_two_promotions_at_the_same_moment_one_wins(tmp_path, s3, postgres):
    assert race_promotes(str(tmp_path / "folder"), 10).is_perfect
    assert race_promotes(f"s3://{BUCKET}/{tmp_path.name}/plain", 10).is_perfect
    assert race_promotes(f"s3://{BUCKET}/{tmp_path.name}/row", 10, postgres.empty()).is_perfect


def test_a_store_that_ignores_conditions_is_refused(tmp_path, s3, make_bundle, monkeypatch):
    registry = Registry(f"s3://{BUCKET}/{tmp_path.name}", cache=tmp_path / "cache")
    bundle_id = registry.add(make_bundle())
    put = registry.fs.call_s3

    def put_anyway(method: str, **arguments: object) -> object:
        conditions = ("IfMatch", "IfNoneMatch")
        return put(method, **{k: v for k, v in arguments.items() if k not in conditions})

    monkeypatch.setattr(registry.fs, "call_s3", put_anyway)
    with pytest.raises(UsageError, match=r"ignores the conditions.*refit bundles coordinate"):
        registry.promote(bundle_id, "ann", "new")
    assert registry.champion() is None


def test_what_was_written_after_a_listing_is_found(tmp_path, s3, make_bundle):
    registry = Registry(f"s3://{BUCKET}/{tmp_path.name}", cache=tmp_path / "cache")
    first, second = (registry.add(make_bundle(note=note)) for note in "ab")
    registry.promote(first, "ann", "new", expected="")
    registry.fs.ls(registry.root)
    registry.propose(second, first, "ann", "better")
    assert registry.candidate().bundle_id == second
    assert registry.champion_id() == first


def test_a_missing_bucket_is_no_empty_registry(s3, tmp_path):
    registry = Registry("s3://nowhere/registry", cache=tmp_path)
    with pytest.raises(ServiceUnreachable, match="no bucket"):
        registry.champion()
    with pytest.raises(ServiceUnreachable, match="no bucket"):
        registry.starting_champion(first_model=True)


def test_what_the_database_holds_is_published_by_the_next_reader(tmp_path, make_bundle, postgres):
    """As after a kill between the database and the store; a late write is replaced, too."""
    registry = Registry(f"memory://{uuid.uuid4().hex}/r", cache=tmp_path)
    first, second, third = (registry.add(make_bundle(note=n)) for n in "abc")
    registry.coordinate(postgres.empty())
    registry.promote(first, "ann", "new", expected="")
    late = registry.fs.cat_file(f"{registry.root}/champion.json").decode()
    registry.promote(second, "ann", "better", expected=first)
    with postgres.connect() as db:
        db.execute("UPDATE registry_files SET published = 0 WHERE name = 'champion.json'")
    write(registry, "champion.json", late)
    assert registry.champion_id() == first
    assert registry.promote(third, "ann", "best", expected=second).previous == second
    assert registry.champion_id() == third
    assert [p.bundle_id for p in registry.history()] == [first, second, third]


def test_a_champion_file_that_only_the_database_has_is_written_again(
    tmp_path, make_bundle, postgres
):
    registry = Registry(f"memory://{uuid.uuid4().hex}/r", cache=tmp_path)
    bundle_id = registry.add(make_bundle())
    database = postgres.empty()
    registry.coordinate(database)
    registry.promote(bundle_id, "ann", "new")
    registry.fs.rm_file(f"{registry.root}/champion.json")
    with pytest.raises(RefitError, match="is lost"):
        registry.champion()
    registry.promote(bundle_id, "ann", "champion.json was deleted", force=True)
    assert registry.champion_id() == bundle_id
    # Without its rows the registry is what its files say, as before there was a database.
    registry.fs.rm_file(f"{registry.root}/coordination.json")
    other = registry.add(make_bundle(note="other"))
    Registry(registry.fs.unstrip_protocol(registry.root), tmp_path).promote(other, "bob", "without")
    registry.coordinate(database)
    again = registry.promote(bundle_id, "ann", "back", force=True, expected=other)
    assert again.previous == other


def test_a_writer_without_the_database_is_refused(tmp_path, make_bundle, postgres, monkeypatch):
    registry = Registry(f"memory://{uuid.uuid4().hex}/r", cache=tmp_path)
    with pytest.raises(UsageError, match="no password"):
        registry.coordinate("postgresql+psycopg://u:secret@h/d")
    with pytest.raises(UsageError, match="PostgreSQL"):
        registry.coordinate("registry.sqlite")
    bundle_id = registry.add(make_bundle())
    registry.coordinate(postgres.empty())
    monkeypatch.setenv("PGPASSWORD", "another")
    with pytest.raises(ServiceUnreachable, match="the registry's database"):
        registry.promote(bundle_id, "ann", "new")
    assert registry.champion() is None


def test_a_first_model_is_said_to_be_one(registry, make_bundle):
    with pytest.raises(UsageError, match=r"there is no champion in .*pass --first-model if this"):
        registry.starting_champion(first_model=False)
    assert registry.starting_champion(first_model=True) == ""
    bundle_id = registry.add(make_bundle())
    registry.promote(bundle_id, "ann", "new")
    assert registry.starting_champion(first_model=False) == bundle_id
    with pytest.raises(UsageError, match=f"a champion in .* already, {bundle_id}"):
        registry.starting_champion(first_model=True)


def test_a_lost_champion_file_is_an_error_that_only_a_person_mends(registry, make_bundle):
    first, second = (registry.add(make_bundle(note=n)) for n in "ab")
    registry.promote(first, "ann", "new")
    registry.promote(second, "ann", "better")
    registry.fs.rm_file(f"{registry.root}/champion.json")
    for read in (
        registry.champion,
        registry.needed_champion_id,
        lambda: registry.starting_champion(first_model=True),
        lambda: registry.promote(second, "pipeline", "first", expected=""),
        lambda: registry.prune(1),
    ):
        with pytest.raises(RefitError, match=f"is lost: .* the last one was {second}"):
            read()
    assert [p.bundle_id for p in registry.history()] == [first, second]
    registry.promote(second, "ann", "champion.json was deleted", force=True)
    assert registry.champion_id() == second
    assert [p.number for p in registry.history()] == [1, 2, 3]


def test_a_roll_back_blocks_the_model_until_a_person_lifts_it(registry, make_bundle):
    first, second = (registry.add(make_bundle(note=n)) for n in "ab")
    again = registry.add(make_bundle(note="b", passed=True))  # the same model, assembled again
    for bundle_id in (first, second):
        registry.promote(bundle_id, "ann", "better")
    registry.rollback("bob", "too many coats")
    for change in (
        lambda: registry.promote(again, "pipeline", "passed the gate"),
        lambda: registry.promote(second, "ann", "I like coats", force=True),
        lambda: registry.propose(again, first, "pipeline", "passed the gate"),
    ):
        with pytest.raises(GateRefused, match=r"by bob: too many coats.*refit bundles unblock"):
            change()
    assert registry.roles() == {first: "champion", second: "blocked", again: "blocked"}
    with pytest.raises(UsageError, match="is not blocked"):
        registry.unblock(first, "ann", "why not")
    with pytest.raises(UsageError, match="name and a reason"):
        registry.unblock(second, "ann", "")
    registry.unblock(second, "ann", "the coats were a campaign")
    assert registry.promote(again, "ann", "the coats were a campaign").previous == first


def test_other_towers_are_blocked_with_any_index(registry, make_bundle):
    old = registry.add(make_bundle())
    bad = registry.add(make_bundle(embedding_version="t2", note="monday"))
    tomorrow = registry.add(make_bundle(embedding_version="t2", note="tuesday"))
    for bundle_id in (old, bad):
        registry.promote(bundle_id, "ann", "better")
    registry.rollback("bob", "worse")
    with pytest.raises(GateRefused, match="blocked"):
        registry.promote(tomorrow, "pipeline", "passed the gate")


def test_what_serves_on_is_not_blocked(registry, make_bundle):
    first, same = (registry.add(make_bundle()) for _ in range(2))
    for bundle_id in (first, same):
        registry.promote(bundle_id, "ann", "better")
    registry.rollback("bob", "to see")
    assert registry.roles() == {first: "champion", same: "blocked"}
    registry.unblock(same, "bob", "it was the same")
    assert registry.promote(same, "bob", "it was the same").previous == first


def test_a_superseded_bundle_needs_force(registry, make_bundle):
    first, second = (registry.add(make_bundle(note=n)) for n in "ab")
    for bundle_id in (first, second):
        registry.promote(bundle_id, "ann", "better")
    with pytest.raises(GateRefused, match=f"superseded by {second}"):
        registry.promote(first, "ann", "I liked it")
    assert registry.promote(first, "ann", "I liked it", force=True).forced
    assert registry.roles() == {first: "champion", second: "previous"}


def test_refused_bundles_are_kept_up_to_a_number(registry, make_bundle):
    champion = registry.add(make_bundle())
    refused = [registry.add(make_bundle(note=n, passed=False)) for n in "abcd"]
    registry.promote(champion, "ann", "new")
    registry.promote(refused[0], "ann", "better than its numbers", force=True)
    assert registry.prune(keep=5, keep_refused=2) == (refused[1],)
    assert registry.roles() == {
        champion: "previous",
        refused[0]: "champion",
        refused[2]: "refused",
        refused[3]: "refused",
    }
