"""Setting up the environments: what works is kept until what replaces it is there."""

import subprocess
from pathlib import Path

import pytest

from tools import set_up


@pytest.fixture
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete environment of an older lock file."""
    monkeypatch.setattr(set_up, "ROOT", tmp_path)
    monkeypatch.setattr(set_up, "BUILD", tmp_path / ".build")
    monkeypatch.setattr(set_up, "ENVIRONMENTS", {".venv": ["requirements.txt"]})
    monkeypatch.setattr(set_up, "pinned_uv", lambda: Path("uv"))
    monkeypatch.setattr(set_up, "find_python", lambda: "python3.12")
    (tmp_path / "requirements.txt").write_text("old")
    site = tmp_path / ".venv/lib/python3.12/site-packages"
    site.mkdir(parents=True)
    (site / set_up.CHECKOUT_FILE).touch()
    stamp = tmp_path / ".build/stamps/.venv"
    stamp.parent.mkdir(parents=True)
    stamp.write_text(set_up.key([tmp_path / "requirements.txt"]))


def refuse(commands: list[list[str]]) -> object:
    def run(command: list[object]) -> None:
        commands.append([str(part) for part in command])
        if "sync" in commands[-1]:
            raise subprocess.CalledProcessError(1, commands[-1])

    return run


@pytest.mark.usefixtures("_environment")
def test_nothing_is_done_where_all_is_up_to_date() -> None:
    assert not set_up.set_up(".venv")


@pytest.mark.usefixtures("_environment")
def test_an_environment_is_not_cleared_before_its_successor_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(set_up, "run", refuse(commands))
    (tmp_path / "requirements.txt").write_text("new")
    with pytest.raises(subprocess.CalledProcessError):
        set_up.set_up(".venv")
    assert not any(str(tmp_path / ".venv") in command for command in commands)
    (tmp_path / "requirements.txt").write_text("old")
    assert not set_up.set_up(".venv"), "it is what it was"


@pytest.mark.usefixtures("_environment")
def test_an_environment_that_was_emptied_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(set_up, "run", refuse(commands))
    (tmp_path / ".venv/lib/python3.12/site-packages" / set_up.CHECKOUT_FILE).unlink()
    with pytest.raises(subprocess.CalledProcessError):
        set_up.set_up(".venv")
    made = [command for command in commands if command[1] == "venv"]
    assert [command[-1] for command in made] == [str(tmp_path / ".venv")]
