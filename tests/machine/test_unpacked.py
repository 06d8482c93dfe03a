"""Linking unpacked images into nodes, without a container runtime."""

import shutil
from pathlib import Path

import pytest

from tests.machine.settings import cache_folder
from tests.machine.unpacked import key_file, link_images, unpack

IMAGE, KEY = "refit/main:1", "abc"
LAYER = "overlayfs/snapshots/7/fs/file"
BLOB = "content/blobs/sha256/0123"
DATABASE = "overlayfs/metadata.db"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


def test_a_node_links_to_layers_and_blobs_and_copies_databases(tmp_path: Path) -> None:
    image_set = make_set("one")
    runtime = make_node(tmp_path / "node")
    for part in (LAYER, BLOB):
        assert (runtime / part).resolve() == image_set / "containerd" / part
    assert not (runtime / LAYER).is_symlink()  # the layer's folder is the link
    (runtime / DATABASE).write_text("written")
    assert (image_set / "containerd" / DATABASE).read_text() == DATABASE
    assert key_file(runtime, IMAGE).read_text() == KEY


def test_a_previous_set_is_kept_while_a_node_links_to_it(tmp_path: Path) -> None:
    previous = make_set("previous")
    runtimes = [make_node(tmp_path / name) for name in ("node", "another")]
    newest = make_set("newest-set")
    for runtime in runtimes:
        unpack([])
        assert (runtime / LAYER).read_text() == LAYER
        shutil.rmtree(runtime.parent)
    unpack([])
    assert not previous.exists()
    assert newest.exists()


def test_a_node_that_was_created_again_uses_only_its_latest_set(tmp_path: Path) -> None:
    previous = make_set("previous")
    shutil.rmtree(make_node(tmp_path / "node").parent)
    newest = make_set("newest-set")
    make_node(tmp_path / "node")
    unpack([])
    assert (previous.exists(), newest.exists()) == (False, True)


def test_the_remains_of_a_killed_run_are_removed(cache: Path) -> None:
    make_set("one")
    partial = cache / "unpacked" / "partial" / "containerd"
    partial.mkdir(parents=True)
    unpack([])
    assert not partial.exists()


def make_set(name: str) -> Path:
    """A set as ``unpack`` creates it; it becomes the newest."""
    root = cache_folder() / "unpacked"
    image_set = root / name
    for part in (LAYER, BLOB, DATABASE):
        file = image_set / "containerd" / part
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(part)
    (image_set / "users").mkdir()
    key_file(image_set / "containerd", IMAGE).write_text(KEY)
    (root / "newest").unlink(missing_ok=True)
    (root / "newest").symlink_to(image_set)
    return image_set


def make_node(folder: Path) -> Path:
    """The runtime folder of a new node with links."""
    folder.mkdir()
    link_images(folder / "containerd")
    return folder / "containerd"
