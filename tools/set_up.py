"""Create the two Python environments of this checkout: ``.venv`` (main) and ``.venv-serving``.

Runs on Python 3.8 or newer with only the standard library. It finds Python 3.12, installs a pinned
uv in ``.build/uv``, and installs the locked requirements with it, checking their hashes. It skips
environments that are up to date; after an interruption the next run reuses what was downloaded.
"""

from __future__ import annotations  # this file must run on Python versions older than 3.12

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
CHECKOUT_FILE = "refit-checkout.pth"
HOW_TO_GET_PYTHON = """\
Refit requires Python 3.12. Install it with one of:
  uv python install 3.12        (https://docs.astral.sh/uv/)
  pyenv install 3.12            (https://github.com/pyenv/pyenv)
  apt install python3.12-venv   or the package of your system
Or name its path: make PYTHON=/path/to/python3.12"""
CONSOLE_SCRIPT = """\
#!/bin/sh
exec "{python}" -m pipelines.cli "$@"
"""


def main() -> int:
    """Create or update the environments; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiet", action="store_true", help="print nothing if all is up to date")
    quiet = parser.parse_args().quiet
    BUILD.mkdir(exist_ok=True)
    try:
        with (BUILD / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            updated = [name for name in ENVIRONMENTS if set_up(name)]
    except KeyboardInterrupt:
        log("interrupted; run it again to continue")
        return 130
    except subprocess.CalledProcessError as error:
        log(f"this command failed: {' '.join(map(str, error.cmd))}")
        log("run it again to continue; completed environments are kept")
        return 1
    if not updated and not quiet:
        log("everything is up to date")
    return 0


def set_up(name: str) -> bool:
    """Create or update one environment; returns False if it was up to date."""
    folder = ROOT / name
    files = [ROOT / file for file in ENVIRONMENTS[name]]
    stamp, wanted = BUILD / "stamps" / name, key(files)
    if is_complete(folder) and read(stamp) == wanted:
        return False
    stamp.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    uv = pinned_uv()
    log(f"installing {' and '.join(ENVIRONMENTS[name])} into {name}")
    if is_complete(folder):
        download(uv, files)
    stamp.write_text("")
    # Created from scratch: a killed run may have left partial packages. Downloads are cached.
    run([uv, "venv", "--quiet", "--clear", "--python", find_python(), folder])
    # Compiled now: if PYTHONDONTWRITEBYTECODE is set, every process would compile it again, and
    # importing TensorFlow would take 10 s instead of 4 s.
    install(uv, folder, files, "--compile-bytecode")
    add_checkout(folder)
    stamp.write_text(wanted)
    log(f"{name} is ready ({time.monotonic() - started:.0f} s)")
    return True


def is_complete(folder: Path) -> bool:
    """Whether an environment has a Python, and what is put there last, after all packages."""
    has_python = (folder / "bin" / "python").exists()  # its link may lead nowhere
    return has_python and any(folder.glob(f"lib/python3.12/site-packages/{CHECKOUT_FILE}"))


def download(uv: Path, files: Sequence[Path]) -> None:
    """Fetch what an environment will need, while the present one still works.

    Without the package index this fails, and nothing is lost.
    """
    folder = BUILD / "download"
    run([uv, "venv", "--quiet", "--clear", "--python", find_python(), folder])
    install(uv, folder, files, "--quiet")
    shutil.rmtree(folder)


def install(uv: Path, folder: Path, files: Sequence[Path], option: str) -> None:
    """Install locked requirements into an environment, checking their hashes."""
    python = folder / "bin" / "python"
    run([uv, "pip", "sync", "--require-hashes", option, "--python", python, *files])


def pinned_uv() -> Path:
    """Install uv with verified hashes, unless it is up to date; returns its path."""
    stamp, wanted = BUILD / "stamps" / "uv", key([UV_REQUIREMENTS])
    if UV.exists() and read(stamp) == wanted:
        return UV
    python = find_python()
    log("installing uv")
    shutil.rmtree(UV.parent.parent, ignore_errors=True)
    run([python, "-m", "venv", UV.parent.parent])
    pip = [UV.parent / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--require-hashes", "--only-binary=:all:", "-r", UV_REQUIREMENTS])
    stamp.write_text(wanted)
    return UV


def find_python() -> str:
    """Return the path of a working Python 3.12.

    Raises:
        SystemExit: There is none; the message explains how to install one.
    """
    named = os.environ.get("PYTHON")
    if named:
        path = shutil.which(named)
        if path and is_python_312(path):
            return path
        raise SystemExit(f"PYTHON={named} is not a working Python 3.12.\n{HOW_TO_GET_PYTHON}")
    for candidate in candidates():
        if is_python_312(candidate):
            return str(candidate)
    raise SystemExit(f"No Python 3.12 was found.\n{HOW_TO_GET_PYTHON}")


def candidates() -> Iterator[Path]:
    """Paths where Python 3.12 may be installed."""
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
    """Whether ``path`` is a working Python 3.12; a pyenv shim may exist but fail."""
    if not os.access(path, os.X_OK):
        return False
    probe = "import sys; raise SystemExit(sys.version_info[:2] != (3, 12))"
    try:
        return subprocess.run([str(path), "-c", probe], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def add_checkout(folder: Path) -> None:
    """Add the checkout to the environment's path, and the refit command to its programs."""
    if folder.name == ".venv":
        script = folder / "bin" / "refit"
        script.write_text(CONSOLE_SCRIPT.format(python=folder / "bin" / "python"))
        script.chmod(0o755)
    (site,) = folder.glob("lib/python3.12/site-packages")
    (site / CHECKOUT_FILE).write_text(f"{ROOT}\n")


def key(files: Sequence[Path]) -> str:
    """A key for everything that an environment depends on: requirements, path of the checkout."""
    digest = hashlib.sha256(str(ROOT).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read(path: Path) -> str:
    """A file's text; "" if the file does not exist."""
    return path.read_text() if path.exists() else ""


def run(command: Sequence[object]) -> None:
    """Run a command, and show its output."""
    subprocess.run([str(part) for part in command], check=True, cwd=str(ROOT))


def log(message: str) -> None:
    """Write a progress line."""
    sys.stderr.write(f"set-up: {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
