"""``pip install .`` into an empty environment: the command works, at the versions of the lock."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".build" / "uv" / "bin" / "uv"
PACKAGES = ("refit", "components", "pipelines", "monitoring", "serving", "simulation")


def run(*command: object, **options: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what git would commit, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in names.splitlines():
        if (ROOT / name).is_file() and name.split("/")[0] in (*PACKAGES, Path(name).name):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    how = ("--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable)
    run(UV, "build", *how, "--out-dir", folder, folder / "source")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An environment that holds the wheel and its dependencies, at the versions of the lock."""
    folder = tmp_path_factory.mktemp("empty")
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv")
    lock = ("--constraint", ROOT / "requirements.txt")
    # Everything was downloaded when this checkout's own environment was made.
    run(UV, "pip", "install", "--quiet", "--python", folder / "venv", *lock, wheel)
    return folder / "venv" / "bin"


def test_the_command_works(installed, tmp_path):
    assert "refit run" in run(installed / "refit", "--help", cwd=tmp_path)
    shown = run(installed / "refit", "run", "--config", "simulated", "--print-config", cwd=tmp_path)
    assert "ingestion:" in shown


def test_its_dependencies_are_those_of_the_main_environment(installed):
    listed = run(UV, "pip", "freeze", "--quiet", "--python", installed / "python").splitlines()
    here = {line for line in listed if not line.startswith("refit")}
    locked = {
        line.split(" ")[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    }
    assert here == locked


def test_the_wheel_holds_every_file_that_the_packages_read(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".yaml", ".html", ".md") and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = subprocess.run(
        [sys.executable, "-c", "import refit; print(refit.__version__)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.strip()
    assert version == project["version"]
