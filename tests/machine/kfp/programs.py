"""The programs of Kubeflow Pipelines and Argo Workflows, built from their Go modules.

No upstream source is kept or changed in this tree.
"""

import shutil
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.machine import binaries
from tests.machine.binaries import GoPrograms
from tests.machine.commands import CommandError, run
from tests.machine.host import UnsupportedHostError
from tests.machine.settings import cache_folder

HERE = Path(__file__).resolve().parent
PIPELINES = "github.com/kubeflow/pipelines"
ARGO = "github.com/argoproj/argo-workflows/v3"
# Argo's repository has this symlink, which a Go module's zip cannot contain.
ARGO_SYMLINK = Path("workflow/executor/os-specific/signal_linux.go")
ARGO_SYMLINK_TARGET = "signal_darwin.go"
ARGO_FOLDER = HERE / "go" / "argo"
ARGO_PINS = (ARGO_FOLDER / "go.mod", ARGO_FOLDER / "go.sum")
ARGO_SOURCE, REPLACED_MOD = "argo-source", "replaced.mod"
HOW_TO_GET_PYTHON_311 = "apt install python3.11-venv, pyenv install 3.11 or uv python install 3.11"


def are_built() -> bool:
    """Whether the cache contains the programs of Kubeflow Pipelines and Argo.

    Raises:
        UnsupportedHostError: Go is missing, or older than go.mod requires.
    """
    return all(map(binaries.is_built, (*_pipelines_programs(), _argo_programs())))


def pipelines() -> list[Path]:
    """Kubeflow Pipelines: apiserver, driver, launcher-v2, persistence, scheduledworkflow."""
    return [
        program for group in _pipelines_programs() for program in binaries.build(group).iterdir()
    ]


def argo() -> list[Path]:
    """Argo Workflows: workflow-controller and argoexec.

    Built from a copy of the module in the cache folder, with the symlink that the module's zip
    lacks.
    """
    module = binaries.module_folder(GoPrograms(folder=ARGO_FOLDER), ARGO)

    def prepare(copy: Path) -> None:
        source = copy / "module"
        shutil.copytree(module, source, ignore=shutil.ignore_patterns("*_test.go", "docs", "ui"))
        for path in (source, *source.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (source / ARGO_SYMLINK).symlink_to(ARGO_SYMLINK_TARGET)

    copy = cached_folder(ARGO_SOURCE, ARGO_PINS, prepare)
    replaced = copy / REPLACED_MOD
    replaced.write_text(f"{ARGO_PINS[0].read_text()}\nreplace {ARGO} => {copy / 'module'}\n")
    shutil.copy(ARGO_PINS[1], replaced.with_suffix(".sum"))
    return list(binaries.build(_argo_programs()).iterdir())


def sources(group: str, module: str) -> Path:
    """The read-only folder of a module that ``go/<group>/go.mod`` requires."""
    return binaries.module_folder(GoPrograms(folder=HERE / "go" / group), module)


def python_311() -> str:
    """A Python 3.11 program, the newest version that ml-metadata has a wheel for.

    Raises:
        UnsupportedHostError: Python 3.11 is not installed.
    """
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.11*/bin/python3.11"))
    managed = sorted(Path.home().glob(".local/share/uv/python/cpython-3.11*/bin/python3.11"))
    for python in ["/usr/bin/python3.11", *map(str, pyenv), *map(str, managed), "python3.11"]:
        if shutil.which(python) and _runs(python):
            return python
    raise UnsupportedHostError(f"ml-metadata requires Python 3.11: {HOW_TO_GET_PYTHON_311}")


def cached_folder(name: str, inputs: Iterable[Path], fill: Callable[[Path], None]) -> Path:
    """The cached folder for these inputs; created atomically if it is missing.

    Args:
        name: Prefix of the folder's name.
        inputs: The files that the folder's content depends on.
        fill: Fills the empty folder that it is given.
    """
    folder = folder_for(name, inputs)
    with binaries.locked(folder):
        if not folder.exists():
            with TemporaryDirectory(dir=folder.parent) as staging:
                filled = Path(staging) / name
                filled.mkdir()
                fill(filled)
                filled.rename(folder)
    return folder


def folder_for(name: str, inputs: Iterable[Path]) -> Path:
    """The folder that ``cached_folder`` makes; it need not exist."""
    digest = sha256(sys.version.encode())
    for file in inputs:
        digest.update(file.read_bytes())
    return cache_folder() / "kfp" / f"{name}-{digest.hexdigest()[:16]}"


def _pipelines_programs() -> tuple[GoPrograms, GoPrograms]:
    folder, source = HERE / "go" / "pipelines", f"{PIPELINES}/backend/src"
    controllers = ("agent/persistence", "crd/controller/scheduledworkflow")
    names = ("v2/cmd/driver", "v2/cmd/launcher-v2", *controllers)
    without_c = GoPrograms(
        folder=folder,
        packages=tuple(f"{source}/{name}" for name in names),
        flags=("-tags", "timetzdata"),  # the image has no time zone files
    )
    with_c = GoPrograms(
        folder=folder,
        packages=(f"{source}/apiserver",),
        flags=("-tags", "netgo,osusergo,sqlite_omit_load_extension,timetzdata"),
        linker="-linkmode external -extldflags -static",  # the image has no C library
        cgo=True,
    )
    return without_c, with_c


def _argo_programs() -> GoPrograms:
    replaced = folder_for(ARGO_SOURCE, ARGO_PINS) / REPLACED_MOD
    packages = tuple(f"{ARGO}/cmd/{name}" for name in ("workflow-controller", "argoexec"))
    return GoPrograms(folder=ARGO_FOLDER, packages=packages, flags=(f"-modfile={replaced}",))


def _runs(python: str) -> bool:
    try:
        return run([python, "-c", "import sys; print(sys.version_info[:2])"]).strip() == "(3, 11)"
    except CommandError:
        return False
