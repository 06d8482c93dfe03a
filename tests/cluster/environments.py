"""Python environments of their own, from requirement files with hashes."""

import hashlib
import sys
import tempfile
from pathlib import Path

from tests.cluster.binaries import locked
from tests.cluster.commands import run, timed
from tests.cluster.settings import ROOT, cache_folder

UV = ROOT / ".build" / "uv" / "bin" / "uv"


def make_environment(requirements: Path, python: str = sys.executable) -> Path:
    """Install a requirements file, unless that was done, and return the environment's folder.

    Args:
        requirements: every package pinned, with hashes.
        python: the Python that it runs: a program, or a version that uv finds.

    Raises:
        CommandFailed: It cannot be installed.
    """
    key = hashlib.sha256(f"{python}\n".encode() + requirements.read_bytes()).hexdigest()[:16]
    folder = cache_folder() / "environments" / f"{requirements.parent.name}-{key}"
    with locked(folder):
        if not folder.exists():
            with timed(f"{requirements.relative_to(ROOT)} is installed"):
                _install(requirements, python, folder)
    return folder


def _install(requirements: Path, python: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        made = Path(fresh) / "environment"
        # Relocatable: it is made aside and moved, so that a kill leaves no half of one.
        run([UV, "venv", "--quiet", "--relocatable", "--python", python, made])
        sync = ["pip", "sync", "--quiet", "--require-hashes", f"--python={made}"]
        run([UV, *sync, requirements])
        made.rename(folder)
