"""What nodes get of unpacked images, without a container runtime."""

import shutil
from pathlib import Path

import pytest

from tests.cluster.settings import cache_folder
from tests.cluster.unpacked import hand_out, mark_of, unpack

IMAGE, KEY = "refit/main:1", "abc"
LAYER = "overlayfs/snapshots/7/fs/file"
BLOB = "content/blobs/sha256/0123"
TABLE = "overlayfs/metadata.db"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


def test_a_node_has_links_to_layers_and_blobs_and_tables_of_its_own(tmp_path: Path) -> None:
    given = make_set("one")
    runtime = make_node(tmp_path / "node")
    for part in (LAYER, BLOB):
        assert (runtime / part).resolve() == given / "containerd" / part
    assert not (runtime / LAYER).is_symlink()  # its layer's folder is
    (runtime / TABLE).write_text("written")
    assert (given / "containerd" / TABLE).read_text() == TABLE
    assert mark_of(runtime, IMAGE).read_text() == KEY


def test_a_former_set_stays_until_the_last_node_that_has_links_to_it_is_gone(
    tmp_path: Path,
) -> None:
    former = make_set("former")
    runtimes = [make_node(tmp_path / name) for name in ("node", "another")]
    latter = make_set("latter")
    for runtime in runtimes:
        unpack([])
        assert (runtime / LAYER).read_text() == LAYER
        shutil.rmtree(runtime.parent)
    unpack([])
    assert not former.exists()
    assert latter.exists()


def test_a_node_that_was_raised_again_keeps_only_its_newest_set(tmp_path: Path) -> None:
    former = make_set("former")
    shutil.rmtree(make_node(tmp_path / "node").parent)
    latter = make_set("latter")
    make_node(tmp_path / "node")
    unpack([])
    assert (former.exists(), latter.exists()) == (False, True)


def test_what_a_killed_run_has_left_goes(cache: Path) -> None:
    make_set("one")
    half = cache / "unpacked" / "half" / "containerd"
    half.mkdir(parents=True)
    unpack([])
    assert not half.exists()


def make_set(name: str) -> Path:
    """A set as ``unpack`` leaves one; it is the newest."""
    kept = cache_folder() / "unpacked"
    made = kept / name
    for part in (LAYER, BLOB, TABLE):
        file = made / "containerd" / part
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(part)
    (made / "users").mkdir()
    mark_of(made / "containerd", IMAGE).write_text(KEY)
    (kept / "newest").unlink(missing_ok=True)
    (kept / "newest").symlink_to(made)
    return made


def make_node(folder: Path) -> Path:
    """A node's runtime folder, with what it was given."""
    folder.mkdir()
    hand_out(folder / "containerd")
    return folder / "containerd"
