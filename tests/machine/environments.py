"""Separate Python environments, installed from locked requirements files."""

import hashlib
import sys
import tempfile
from pathlib import Path

from tests.machine.binaries import locked
from tests.machine.commands import run, timed
from tests.machine.settings import ROOT, cache_folder

UV = ROOT / ".build" / "uv" / "bin" / "uv"


def make_environment(requirements: Path, python: str = sys.executable) -> Path:
    """Install a requirements file unless the environment is cached, and return its folder.

    Args:
        requirements: Every package pinned, with hashes.
        python: The Python of the environment: a program, or a version that uv finds.

    Raises:
        CommandError: The installation failed.
    """
    key = hashlib.sha256(f"{python}\n".encode() + requirements.read_bytes()).hexdigest()[:16]
    folder = cache_folder() / "environments" / f"{requirements.parent.name}-{key}"
    with locked(folder):
        if not folder.exists():
            with timed(f"installed {requirements.relative_to(ROOT)}"):
                _install(requirements, python, folder)
    return folder


def _install(requirements: Path, python: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
        environment = Path(staging) / "environment"
        # Relocatable and moved when complete: a killed run leaves no partial environment.
        run([UV, "venv", "--quiet", "--relocatable", "--python", python, environment])
        sync = ["pip", "sync", "--quiet", "--require-hashes", f"--python={environment}"]
        run([UV, *sync, requirements])
        environment.rename(folder)
