"""Setting up the environments: what works is kept until what replaces it is there."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import set_up

PYTHON = ".venv/bin/python"
CHECKOUT = f".venv/lib/python3.12/site-packages/{set_up.CHECKOUT_FILE}"


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run, beside a complete environment; the package index is not there."""
    found: list[list[str]] = []

    def run(command: Sequence[object]) -> None:
        found.append([str(part) for part in command])
        if "sync" in found[-1]:
            raise subprocess.CalledProcessError(1, found[-1])

    monkeypatch.setattr(set_up, "run", run)
    monkeypatch.setattr(set_up, "ROOT", tmp_path)
    monkeypatch.setattr(set_up, "BUILD", tmp_path / ".build")
    monkeypatch.setattr(set_up, "ENVIRONMENTS", {".venv": ["requirements.txt"]})
    monkeypatch.setattr(set_up, "pinned_uv", lambda: Path("uv"))
    monkeypatch.setattr(set_up, "find_python", lambda: "python3.12")
    (tmp_path / "requirements.txt").write_text("old")
    for name in (PYTHON, CHECKOUT):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    stamp = tmp_path / ".build/stamps/.venv"
    stamp.parent.mkdir(parents=True)
    stamp.write_text(set_up.key([tmp_path / "requirements.txt"]))
    return found


def test_nothing_is_done_where_all_is_up_to_date(commands: list[list[str]]) -> None:
    assert not set_up.set_up(".venv")
    assert not commands


def test_an_environment_is_not_cleared_before_its_successor_was_downloaded(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    (tmp_path / "requirements.txt").write_text("new")
    with pytest.raises(subprocess.CalledProcessError):
        set_up.set_up(".venv")
    assert [command[1] for command in commands] == ["venv", "pip"]
    assert not any(str(tmp_path / ".venv") in command for command in commands)
    (tmp_path / "requirements.txt").write_text("old")
    assert not set_up.set_up(".venv"), "it is what it was"


@pytest.mark.parametrize("lost", [PYTHON, CHECKOUT])
def test_an_environment_that_lost_a_part_is_made_anew(
    tmp_path: Path, commands: list[list[str]], lost: str
) -> None:
    (tmp_path / lost).unlink()
    with pytest.raises(subprocess.CalledProcessError):
        set_up.set_up(".venv")
    made = [command[-1] for command in commands if command[1] == "venv"]
    assert made == [str(tmp_path / ".venv")]
