"""The programs of Kubeflow Pipelines and Argo Workflows, built from their Go modules once.

No upstream source is kept in this tree or changed.
"""

import shutil
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster import binaries
from tests.cluster.binaries import GoPrograms
from tests.cluster.commands import CommandFailed, run
from tests.cluster.machine import CannotRun
from tests.cluster.settings import cache_folder

HERE = Path(__file__).resolve().parent
PIPELINES = "github.com/kubeflow/pipelines"
ARGO = "github.com/argoproj/argo-workflows/v3"
# Argo's repository has this symlink, which a module's zip cannot hold.
ARGO_SYMLINK = Path("workflow/executor/os-specific/signal_linux.go")
ARGO_SYMLINK_TARGET = "signal_darwin.go"
HOW_TO_GET_PYTHON_311 = "apt install python3.11-venv, pyenv install 3.11 or uv python install 3.11"


def pipelines() -> list[Path]:
    """Kubeflow Pipelines: apiserver, driver, launcher-v2, persistence, scheduledworkflow."""
    folder, source = HERE / "go" / "pipelines", f"{PIPELINES}/backend/src"
    controllers = ("agent/persistence", "crd/controller/scheduledworkflow")
    names = ("v2/cmd/driver", "v2/cmd/launcher-v2", *controllers)
    most = GoPrograms(
        folder=folder,
        packages=tuple(f"{source}/{name}" for name in names),
        flags=("-tags", "timetzdata"),  # the image has no time zones
    )
    server = GoPrograms(
        folder=folder,
        packages=(f"{source}/apiserver",),
        flags=("-tags", "netgo,osusergo,sqlite_omit_load_extension,timetzdata"),
        linker="-linkmode external -extldflags -static",  # C code, but nothing below it
        cgo=True,
    )
    return [program for group in (most, server) for program in binaries.build(group).iterdir()]


def argo() -> list[Path]:
    """Argo Workflows: workflow-controller and argoexec.

    Built from a copy of the module in the cache folder, with the symlink that the module's zip
    leaves out.
    """
    folder = HERE / "go" / "argo"
    module = binaries.module_folder(GoPrograms(folder=folder), ARGO)
    pins = [folder / "go.mod", folder / "go.sum"]

    def prepare(copy: Path) -> None:
        source = copy / "module"
        shutil.copytree(module, source, ignore=shutil.ignore_patterns("*_test.go", "docs", "ui"))
        for inside in (source, *source.rglob("*")):
            inside.chmod(0o755 if inside.is_dir() else 0o644)
        (source / ARGO_SYMLINK).symlink_to(ARGO_SYMLINK_TARGET)

    copy = kept("argo-source", pins, prepare)
    replaced = copy / "replaced.mod"
    replaced.write_text(f"{pins[0].read_text()}\nreplace {ARGO} => {copy / 'module'}\n")
    shutil.copy(pins[1], replaced.with_suffix(".sum"))
    names = ("workflow-controller", "argoexec")
    packages = tuple(f"{ARGO}/cmd/{name}" for name in names)
    built = GoPrograms(folder=folder, packages=packages, flags=(f"-modfile={replaced}",))
    return list(binaries.build(built).iterdir())


def sources(group: str, module: str) -> Path:
    """The read-only files of a module that ``go/<group>/go.mod`` pins."""
    return binaries.module_folder(GoPrograms(folder=HERE / "go" / group), module)


def python_311() -> str:
    """A Python 3.11, the newest that ml-metadata has a wheel for.

    Raises:
        CannotRun: There is none.
    """
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.11*/bin/python3.11"))
    managed = sorted(Path.home().glob(".local/share/uv/python/cpython-3.11*/bin/python3.11"))
    for python in ["/usr/bin/python3.11", *map(str, pyenv), *map(str, managed), "python3.11"]:
        if shutil.which(python) and _runs(python):
            return python
    raise CannotRun(f"Python 3.11 is missing, for ml-metadata: {HOW_TO_GET_PYTHON_311}")


def kept(name: str, follows_from: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` filled for these files; filled now, whole, if it is missing.

    Args:
        name: what it holds.
        follows_from: the files that its content follows from.
        make: fills the folder it is given.
    """
    digest = sha256(sys.version.encode())
    for file in follows_from:
        digest.update(file.read_bytes())
    folder = cache_folder() / "kfp" / f"{name}-{digest.hexdigest()[:16]}"
    with binaries.locked(folder):
        if not folder.exists():
            with TemporaryDirectory(dir=folder.parent) as fresh:
                made = Path(fresh) / name
                made.mkdir()
                make(made)
                made.rename(folder)
    return folder


def _runs(python: str) -> bool:
    try:
        return run([python, "-c", "import sys; print(sys.version_info[:2])"]).strip() == "(3, 11)"
    except CommandFailed:
        return False
