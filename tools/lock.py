"""Lock every requirements file with hashes, or check that the locked files are up to date.

- ``lock.py`` changes only the pins that the .in files require to change
- ``lock.py --upgrade`` upgrades to the newest versions that the .in files allow
- ``lock.py --check`` changes nothing, and fails if a .txt differs from what its .in resolves to
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".build" / "uv" / "bin" / "uv"
PYTHON_OF = {
    "requirements.in": "3.12",
    "requirements-dev.in": "3.12",  # after requirements.in: it is constrained by requirements.txt
    "requirements-gpu.in": "3.12",  # likewise
    "serving/requirements.in": "3.12",
    "serving/requirements-plain.in": "3.12",  # after it: constrained by requirements.txt
    "tools/uv.in": "3.12",
    "tests/benchmarks/scann/requirements.in": "3.12",
    "tests/machine/requirements.in": "3.12",
    "tests/machine/kfp/requirements.in": "3.11",  # the newest that ml-metadata has a wheel for
}
LEFT_OUT = {"requirements-gpu.in": "onnxruntime"}
"""A package that another one replaces, by file; what it requires stays."""
OPTIONS = ("--quiet", "--generate-hashes", "--python-platform=x86_64-manylinux_2_28")


def main() -> int:
    """Lock or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = []
    for name in PYTHON_OF:
        locked = ROOT / name.replace(".in", ".txt")
        with tempfile.TemporaryDirectory() as folder:
            resolved = Path(folder) / locked.name
            if locked.exists() and not options.upgrade:
                shutil.copy(locked, resolved)  # the resolver keeps its pins where possible
            compile_requirements(name, resolved)
            same = locked.exists() and resolved.read_bytes() == locked.read_bytes()
            if not same and not options.check:
                shutil.copy(resolved, locked)
        sys.stdout.write(f"{'unchanged' if same else 'differs'}: {locked.relative_to(ROOT)}\n")
        stale += [] if same else [name]
    if options.check and stale:
        sys.stdout.write("run 'make lock' and commit the changes\n")
        return 1
    return 0


def compile_requirements(name: str, out: Path) -> None:
    """Resolve one .in file.

    Raises:
        SystemExit: It has no solution; the resolver has printed the reason.
    """
    environment = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
    command = [
        str(UV),
        "pip",
        "compile",
        *OPTIONS,
        *([f"--no-emit-package={LEFT_OUT[name]}"] if name in LEFT_OUT else []),
        f"--python-version={PYTHON_OF[name]}",
        name,
        "-o",
        str(out),
    ]
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise SystemExit(f"{name} cannot be resolved")


if __name__ == "__main__":
    sys.exit(main())
