"""Images written from files: their content and their keys."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.machine.archives import SMALL, image_of_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small program and a large file."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "program").write_text("one")
    (files / "large").write_bytes(bytes(SMALL + 1))
    return files


def key(folder: Path, **more: str) -> str:
    return image_of_files("name:tag", {"/bin": folder}, **more).key


def test_the_key_depends_on_the_content_of_small_files_and_size_and_time_of_large_ones(
    folder: Path,
) -> None:
    before = key(folder)
    os.utime(folder / "program", (1, 1))
    assert key(folder) == before
    (folder / "program").write_text("two")
    changed = key(folder)
    os.utime(folder / "large", (1, 1))
    assert len({before, changed, key(folder), key(folder, user="1")}) == 4


def test_an_archive_contains_its_files_owned_by_root(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    image_of_files("name:tag", {"/bin": folder}, entrypoint=["/bin/program"]).write(archive)
    with tarfile.open(archive) as image:
        image.extractall(tmp_path, filter="data")
    (manifest,) = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["RepoTags"] == ["name:tag"]
    with tarfile.open(tmp_path / manifest["Layers"][0]) as layer:
        files = {member.name: member for member in layer}
    assert set(files) == {"bin", "bin/program", "bin/large"}
    assert {(file.uid, file.gid) for file in files.values()} == {(0, 0)}
