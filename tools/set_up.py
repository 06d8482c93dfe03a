"""Make both Python environments of this checkout: ``.venv`` (main) and ``.venv-serving``.

Runs on any Python from 3.8 on, with nothing but the standard library. It finds Python 3.12, puts
a pinned uv under ``.build/uv`` and lets it install the locked requirement files, with hashes.
What is done is not done again; after a Ctrl-C the next run goes on with what was downloaded.
"""

from __future__ import annotations  # this file must be read by a Python older than 3.12

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
UV = BUILD / "uv" / "bin" / "uv"
UV_REQUIREMENTS = ROOT / "tools" / "uv.txt"
ENVIRONMENTS = {
    ".venv": ["requirements.txt", "requirements-dev.txt"],
    ".venv-serving": ["serving/requirements.txt"],
}
HOW_TO_GET_PYTHON = """\
Refit needs Python 3.12. Any one of these gives you one:
  uv python install 3.12        (https://docs.astral.sh/uv/)
  pyenv install 3.12            (https://github.com/pyenv/pyenv)
  apt install python3.12-venv   or your system's own package
Or name one that is somewhere else: make PYTHON=/path/to/python3.12"""
CONSOLE_SCRIPT = """\
#!/bin/sh
exec "{python}" -m pipelines.cli "$@"
"""


def main() -> int:
    """Set up whatever is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiet", action="store_true", help="say nothing when all is there")
    quiet = parser.parse_args().quiet
    BUILD.mkdir(exist_ok=True)
    try:
        with (BUILD / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = [name for name in ENVIRONMENTS if set_up(name)]
    except KeyboardInterrupt:
        tell("stopped; the next run goes on from here")
        return 130
    except subprocess.CalledProcessError as error:
        tell(f"this command failed: {' '.join(map(str, error.cmd))}")
        tell("what was installed stays; run it again to go on from here")
        return 1
    if not made and not quiet:
        tell("everything is there already")
    return 0


def set_up(name: str) -> bool:
    """Make or renew one environment; False when it was up to date."""
    folder = ROOT / name
    files = [ROOT / file for file in ENVIRONMENTS[name]]
    python = folder / "bin" / "python"
    stamp, wanted = BUILD / "stamps" / name, key(files)
    if python.exists() and read(stamp) == wanted:
        return False
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text("")
    started = time.monotonic()
    uv = pinned_uv()
    tell(f"installing {' and '.join(ENVIRONMENTS[name])} into {name}")
    # Made anew, since a kill may have torn a package in it; what was downloaded is in uv's cache.
    run([uv, "venv", "--quiet", "--clear", "--python", find_python(), folder])
    # Compiled now: where PYTHONDONTWRITEBYTECODE is set, every process would do it again, and
    # TensorFlow's import takes 10 s instead of 4.
    sync = [uv, "pip", "sync", "--require-hashes", "--compile-bytecode"]
    run([*sync, "--python", python, *files])
    add_checkout(folder)
    stamp.write_text(wanted)
    tell(f"{name} is ready ({time.monotonic() - started:.0f} s)")
    return True


def pinned_uv() -> Path:
    """Install uv, checked against its hashes, unless that was done."""
    stamp, wanted = BUILD / "stamps" / "uv", key([UV_REQUIREMENTS])
    if UV.exists() and read(stamp) == wanted:
        return UV
    python = find_python()
    tell("installing uv, which installs the rest")
    shutil.rmtree(UV.parent.parent, ignore_errors=True)
    run([python, "-m", "venv", UV.parent.parent])
    pip = [UV.parent / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--require-hashes", "--only-binary=:all:", "-r", UV_REQUIREMENTS])
    stamp.write_text(wanted)
    return UV


def find_python() -> str:
    """Return a working Python 3.12, or end with advice on how to get one."""
    named = os.environ.get("PYTHON")
    if named:
        path = shutil.which(named)
        if path and is_python_312(path):
            return path
        raise SystemExit(f"PYTHON={named} does not run as Python 3.12.\n{HOW_TO_GET_PYTHON}")
    for candidate in candidates():
        if is_python_312(candidate):
            return str(candidate)
    raise SystemExit(f"No Python 3.12 was found.\n{HOW_TO_GET_PYTHON}")


def candidates() -> Iterator[Path]:
    """Where a Python 3.12 may be; a pyenv shim counts only if it works."""
    yield Path(sys.executable)
    for folder in [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin"]:
        yield Path(folder) / "python3.12"
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    yield from sorted(pyenv.glob("versions/3.12*/bin/python"))
    data = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", data / "uv" / "python"))
    yield from sorted(managed.glob("cpython-3.12*/bin/python3.12"))


def is_python_312(path: str | Path) -> bool:
    """Whether ``path`` runs, and is CPython 3.12."""
    if not os.access(path, os.X_OK):
        return False
    probe = "import sys; raise SystemExit(sys.version_info[:2] != (3, 12))"
    try:
        return subprocess.run([str(path), "-c", probe], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def add_checkout(folder: Path) -> None:
    """Put the checkout on the environment's path, and the refit command beside its Python."""
    (site,) = folder.glob("lib/python3.12/site-packages")
    (site / "refit-checkout.pth").write_text(f"{ROOT}\n")
    if folder.name == ".venv":
        script = folder / "bin" / "refit"
        script.write_text(CONSOLE_SCRIPT.format(python=folder / "bin" / "python"))
        script.chmod(0o755)


def key(files: Sequence[Path]) -> str:
    """What an environment follows from: the contents of files, and where the checkout is."""
    digest = hashlib.sha256(str(ROOT).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read(path: Path) -> str:
    """A file's text, "" when there is no such file."""
    return path.read_text() if path.exists() else ""


def run(command: Sequence[object]) -> None:
    """Run a command, its output shown as it comes."""
    subprocess.run([str(part) for part in command], check=True, cwd=str(ROOT))


def tell(message: str) -> None:
    """Tell the reader one thing."""
    sys.stderr.write(f"set-up: {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
