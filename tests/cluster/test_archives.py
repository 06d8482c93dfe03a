"""Images made of files: what they hold, and when they are other images."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.cluster.archives import SMALL, image_of_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small program and a large file."""
    made = tmp_path / "files"
    made.mkdir()
    (made / "program").write_text("one")
    (made / "large").write_bytes(bytes(SMALL + 1))
    return made


def key(folder: Path, **more: str) -> str:
    return image_of_files("name:tag", {"/bin": folder}, **more).key


def test_the_key_follows_what_is_in_small_files_and_the_size_and_time_of_large_ones(
    folder: Path,
) -> None:
    before = key(folder)
    os.utime(folder / "program", (1, 1))
    assert key(folder) == before
    (folder / "program").write_text("two")
    changed = key(folder)
    os.utime(folder / "large", (1, 1))
    assert len({before, changed, key(folder), key(folder, user="1")}) == 4


def test_an_archive_holds_its_files_owned_by_root(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    image_of_files("name:tag", {"/bin": folder}, entrypoint=["/bin/program"]).write(archive)
    with tarfile.open(archive) as image:
        image.extractall(tmp_path, filter="data")
    (described,) = json.loads((tmp_path / "manifest.json").read_text())
    assert described["RepoTags"] == ["name:tag"]
    with tarfile.open(tmp_path / described["Layers"][0]) as layer:
        files = {member.name: member for member in layer}
    assert set(files) == {"bin", "bin/program", "bin/large"}
    assert {(file.uid, file.gid) for file in files.values()} == {(0, 0)}
