"""Build the cluster's programs from Go modules and cache them by content."""

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
from tests.machine.commands import CommandError, report, run, timed
from tests.machine.host import UnsupportedHostError
from tests.machine.settings import GO_MODULES, cache_folder

HOW_TO_GET_GO = "install it from https://go.dev/dl, or golang-go from Debian backports"
VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class GoPrograms(Settings):
    """Programs that are built from one of our Go modules.

    Attributes:
        folder: Contains go.mod, go.sum and our own sources.
        packages: Go packages to build; "." is the module itself, named after its folder.
        flags: Further arguments of ``go build``.
        linker: Further linker flags.
        cgo: Whether cgo is enabled, which requires a C compiler.
    """

    folder: Path
    packages: tuple[str, ...] = (".",)
    flags: tuple[str, ...] = ()
    linker: str = ""
    cgo: bool = False


def kube() -> GoPrograms:
    """Kubernetes and etcd in one binary; the name it is called by selects the program."""
    folder = GO_MODULES / "kube"
    version = required_version(folder, "k8s.io/kubernetes")
    major, minor, _ = version.lstrip("v").split(".")
    # Without these linker flags the API server reports version v0.0.0 and refuses to start.
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
    """CoreDNS with only the plugins that the cluster uses."""
    return GoPrograms(folder=GO_MODULES / "coredns")


def pause() -> GoPrograms:
    """The program that holds namespaces open."""
    return GoPrograms(folder=GO_MODULES / "pause")


def seldon() -> GoPrograms:
    """Seldon Core's operator (Business Source License 1.1; tests are no production use)."""
    package = "github.com/seldonio/seldon-core/operator"
    return GoPrograms(folder=GO_MODULES / "seldon", packages=(package,))


def tools() -> GoPrograms:
    """kustomize and promtool, which check the manifests."""
    packages = (
        "sigs.k8s.io/kustomize/kustomize/v5",
        "github.com/prometheus/prometheus/cmd/promtool",
    )
    # Cloud service discovery takes minutes to compile, and the alert tests do not use it.
    flags = ("-tags=remove_all_sd",)
    return GoPrograms(folder=GO_MODULES / "tools", packages=packages, flags=flags)


def weaviate() -> GoPrograms:
    """Weaviate's server."""
    package = "github.com/weaviate/weaviate/cmd/weaviate-server"
    return GoPrograms(folder=GO_MODULES / "weaviate", packages=(package,))


def build(programs: GoPrograms) -> Path:
    """Build programs unless they are cached, and return the folder that contains them.

    Raises:
        UnsupportedHostError: Go is missing, or older than go.mod requires.
        CommandError: The build failed.
    """
    group, folder = programs.folder.name, _cached(programs)
    with locked(folder):
        if not folder.exists():
            report(f"building {group}; the first time takes minutes")
            with timed(f"{group} is built"):
                _build(programs, folder)
    return folder


def is_built(programs: GoPrograms) -> bool:
    """Whether the cache contains these programs.

    Raises:
        UnsupportedHostError: Go is missing, or older than go.mod requires.
    """
    return _cached(programs).exists()


def module_folder(programs: GoPrograms, module: str) -> Path:
    """The read-only folder of a module that go.mod requires; downloads it if necessary.

    Raises:
        ServiceUnreachable: The Go module proxy does not provide it.
    """
    try:
        description = run(["go", "mod", "download", "-json", module], folder=programs.folder)
    except CommandError as error:
        raise ServiceUnreachable(f"{module} could not be downloaded: {error}") from None
    return Path(json.loads(description)["Dir"])


def required_version(folder: Path, module: str) -> str:
    """The version of a module that a go.mod requires."""
    found = re.search(rf"^\s+{re.escape(module)} (v\S+)", (folder / "go.mod").read_text(), re.M)
    if not found:
        raise UnsupportedHostError(f"{folder / 'go.mod'} does not require {module}")
    return found[1]


def content_key(programs: GoPrograms) -> str:
    """A key for everything that the build depends on: toolchain, settings, module files."""
    wanted = re.search(r"^go (\S+)", (programs.folder / "go.mod").read_text(), re.M)
    digest = hashlib.sha256(f"{go_version(wanted[1] if wanted else '1.24')}\n".encode())
    digest.update(programs.model_dump_json(exclude={"folder"}).encode())
    for file in sorted(programs.folder.glob("*")):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def go_version(wanted: str) -> str:
    """The version of the installed Go toolchain, which must be at least ``wanted``.

    Raises:
        UnsupportedHostError: Go is not installed, or is older.
    """
    if not shutil.which("go"):
        raise UnsupportedHostError(f"Go {wanted} or newer is required: {HOW_TO_GET_GO}")
    version = run(["go", "env", "GOVERSION"], environment={"GOTOOLCHAIN": "local"}).strip()
    if _numbers(version) < _numbers(wanted):
        raise UnsupportedHostError(
            f"Go {wanted} or newer is required, found {version}: {HOW_TO_GET_GO}"
        )
    return version


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, so that only one process at a time creates ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cached(programs: GoPrograms) -> Path:
    return cache_folder() / "programs" / f"{programs.folder.name}-{content_key(programs)}"


def _build(programs: GoPrograms, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
        output = Path(staging) / "programs"
        output.mkdir()
        # Without debug information the build is faster and the programs are smaller.
        command = ["go", "build", "-trimpath", "-gcflags=all=-dwarf=false"]
        command += ["-ldflags", f"-s -w {programs.linker}".strip()]
        run(
            [*command, *programs.flags, "-o", f"{output}/", *programs.packages],
            folder=programs.folder,
            environment={
                "CGO_ENABLED": str(int(programs.cgo)),
                "GOTOOLCHAIN": "local",
                "GOWORK": "off",
                "GOFLAGS": "-mod=readonly",
            },
        )
        output.rename(folder)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
