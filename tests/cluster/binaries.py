"""Build the cluster's programs from Go modules, once per content."""

import fcntl
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from refit.errors import ServiceUnreachable
from refit.settings import Settings
from tests.cluster.commands import CommandFailed, run, tell, timed
from tests.cluster.machine import CannotRun
from tests.cluster.settings import GO_PROGRAMS, cache_folder

HOW_TO_GET_GO = "get it from https://go.dev/dl, or on Debian from backports: golang-go"
VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class GoPrograms(Settings):
    """Programs of one Go module of ours.

    Attributes:
        folder: holds go.mod, go.sum and our own sources.
        packages: what to build; "." is the module itself, named after its folder.
        flags: more arguments for ``go build``.
        linker: more linker flags.
        cgo: whether C is needed, and with it a C compiler.
    """

    folder: Path
    packages: tuple[str, ...] = (".",)
    flags: tuple[str, ...] = ()
    linker: str = ""
    cgo: bool = False


def kube() -> GoPrograms:
    """Kubernetes and etcd: one program, chosen by the name it is called by."""
    folder = GO_PROGRAMS / "kube"
    version = required_version(folder, "k8s.io/kubernetes")
    major, minor, _ = version.lstrip("v").split(".")
    # Without its version in it the API server takes itself for v0.0.0 and refuses to start.
    stamps = [
        f"-X {package}.{name}={value}"
        for package in VERSION_PACKAGES
        for name, value in (
            ("gitVersion", version),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        )
    ]
    return GoPrograms(folder=folder, linker=" ".join(stamps))


def coredns() -> GoPrograms:
    """CoreDNS with the plugins that a cluster needs."""
    return GoPrograms(folder=GO_PROGRAMS / "coredns")


def pause() -> GoPrograms:
    """The program that holds namespaces open."""
    return GoPrograms(folder=GO_PROGRAMS / "pause")


def seldon() -> GoPrograms:
    """Seldon Core's operator (Business Source License 1.1; tests are no production use)."""
    package = "github.com/seldonio/seldon-core/operator"
    return GoPrograms(folder=GO_PROGRAMS / "seldon", packages=(package,))


def tools() -> GoPrograms:
    """Programs that check manifests: kustomize, promtool."""
    packages = (
        "sigs.k8s.io/kustomize/kustomize/v5",
        "github.com/prometheus/prometheus/cmd/promtool",
    )
    # Without every cloud's service discovery, which takes minutes to compile and tests no alert.
    flags = ("-tags=remove_all_sd",)
    return GoPrograms(folder=GO_PROGRAMS / "tools", packages=packages, flags=flags)


def build(programs: GoPrograms) -> Path:
    """Build programs, unless that was done, and return the folder that holds them.

    Raises:
        CannotRun: Go is missing or older than go.mod asks for.
        CommandFailed: They do not build.
    """
    group = programs.folder.name
    folder = cache_folder() / "programs" / f"{group}-{content_key(programs)}"
    with locked(folder):
        if not folder.exists():
            tell(f"building {group}; the first time takes minutes")
            with timed(f"{group} is built"):
                _build(programs, folder)
    return folder


def module_folder(programs: GoPrograms, module: str) -> Path:
    """The read-only files of a module that go.mod names, downloaded where they are missing.

    Raises:
        ServiceUnreachable: It cannot be downloaded.
    """
    try:
        described = run(["go", "mod", "download", "-json", module], folder=programs.folder)
    except CommandFailed as error:
        raise ServiceUnreachable(f"{module} cannot be had from a Go proxy: {error}") from None
    return Path(json.loads(described)["Dir"])


def required_version(folder: Path, module: str) -> str:
    """The version of a module that a go.mod requires."""
    found = re.search(rf"^\s+{re.escape(module)} (v\S+)", (folder / "go.mod").read_text(), re.M)
    if not found:
        raise CannotRun(f"{folder / 'go.mod'} does not require {module}")
    return found[1]


def content_key(programs: GoPrograms) -> str:
    """What the built programs follow from."""
    wanted = re.search(r"^go (\S+)", (programs.folder / "go.mod").read_text(), re.M)
    digest = hashlib.sha256(f"{go_version(wanted[1] if wanted else '1.24')}\n".encode())
    digest.update(programs.model_dump_json(exclude={"folder"}).encode())
    for file in sorted(programs.folder.glob("*")):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def go_version(wanted: str) -> str:
    """The version of the Go toolchain, at least ``wanted``.

    Raises:
        CannotRun: There is none, or an older one.
    """
    if not shutil.which("go"):
        raise CannotRun(f"Go {wanted} or newer is missing: {HOW_TO_GET_GO}")
    version = run(["go", "env", "GOVERSION"], environment={"GOTOOLCHAIN": "local"}).strip()
    if _numbers(version) < _numbers(wanted):
        raise CannotRun(f"Go is {version}, older than {wanted}: {HOW_TO_GET_GO}")
    return version


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(programs: GoPrograms, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        made = Path(fresh) / "programs"
        made.mkdir()
        command = ["go", "build", "-trimpath", "-gcflags=all=-dwarf=false"]  # nobody debugs them
        command += ["-ldflags", f"-s -w {programs.linker}".strip()]
        run(
            [*command, *programs.flags, "-o", f"{made}/", *programs.packages],
            folder=programs.folder,
            environment={
                "CGO_ENABLED": str(int(programs.cgo)),
                "GOTOOLCHAIN": "local",
                "GOWORK": "off",
                "GOFLAGS": "-mod=readonly",
            },
        )
        made.rename(folder)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
