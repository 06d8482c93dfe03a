"""Refit's container images, and the Python base image that they are built on here.

No image registry is used: a minimal Debian of the host's own release with the host's Python 3.12
replaces ``python:3.12-slim``. The Containerfiles are built unchanged.
"""

import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from refit import __version__
from tests.machine.archives import Image, write_image
from tests.machine.binaries import locked
from tests.machine.commands import isolated, report, run, timed
from tests.machine.host import UnsupportedHostError
from tests.machine.kubernetes import Cluster
from tests.machine.settings import ROOT, cache_folder

BASE = "localhost/python-base:3.12"
BASE_PACKAGES = (
    *("ca-certificates", "netbase", "tzdata", "zlib1g", "libbz2-1.0", "libexpat1", "libffi8"),
    *("liblzma5", "libncursesw6", "libreadline8", "libsqlite3-0", "libssl3", "libuuid1"),
)
BASE_MODULES = "bz2, ctypes, lzma, pip, readline, sqlite3, ssl, uuid, venv, zlib"
EXCLUDED = ("test", "idlelib", "tkinter", "turtledemo", "site-packages", "config-*", "__pycache__")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CONTAINERFILES = {
    "main": ROOT / "pipelines" / "Containerfile",
    "serving": ROOT / "serving" / "Containerfile",
    "serving-plain": ROOT / "serving" / "Containerfile",
}


class Images:
    """Refit's images on a cluster's node; each is loaded when it is first requested."""

    def __init__(self, cluster: Cluster) -> None:
        self.base = cache(lambda: cluster.ensure_image(base_image()))
        """Debian with Python 3.12."""
        self.main = cache(lambda: cluster.ensure_image(refit_image("main")))
        """The image of pipelines and monitoring."""
        self.serving = cache(lambda: cluster.ensure_image(refit_image("serving")))
        """The image of the recommender and of Refit's own model server."""
        self.serving_plain = cache(lambda: cluster.ensure_image(refit_image("serving-plain")))
        """The same without Seldon."""


def refit_image(name: str) -> Image:
    """Describe one of Refit's images, built from its Containerfile.

    Args:
        name: ``main``, ``serving`` or ``serving-plain``.

    Raises:
        UnsupportedHostError: See ``build_base``.
        CommandError: See ``build_base``.
    """
    base = build_base()
    full_name = f"refit/{name}:{__version__}"

    def write(archive: Path) -> None:
        report(f"building {full_name}; the first time takes minutes")
        with timed(f"built {full_name}"), locked(_storage()):
            _build(name, base, archive)

    return Image(full_name, content_key(name, base), write)


def base_image() -> Image:
    """The Python base image.

    Raises:
        UnsupportedHostError: See ``build_base``.
        CommandError: See ``build_base``.
    """
    base = build_base()
    return Image(BASE, base.stem, partial(shutil.copy, base))


def build_base() -> Path:
    """Build the Python base image unless it is cached, and return its archive.

    Raises:
        UnsupportedHostError: This Python is the system's own and cannot be copied.
        CommandError: Debian packages could not be installed, or this Python needs more of them.
    """
    prefix = Path(sys.base_prefix)
    if prefix == Path("/usr"):
        raise UnsupportedHostError(
            "the base image copies this environment's Python, but it is the system's own: create "
            "the environment with a Python from pyenv or uv (make clean setup PYTHON=...)"
        )
    writer = Path(__file__).with_name("archives.py").read_text()
    inputs = (sys.version, str(prefix), debian_release(), writer, *BASE_PACKAGES, *EXCLUDED)
    key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]
    archive = cache_folder() / "images" / f"python-base-{key}.tar"
    with locked(archive):
        if not archive.exists():
            with timed("built the Python base image"):
                _make_base(prefix, archive)
    return archive


def content_key(name: str, base: Path) -> str:
    """A key for everything an image depends on: Containerfile, copied files, base image."""
    digest = hashlib.sha256(base.name.encode())
    digest.update((ROOT / "tools" / "build_images.py").read_bytes())
    for file in sorted({CONTAINERFILES[name], *_copied(CONTAINERFILES[name])}):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def debian_release() -> str:
    """Code name of the host's Debian release, for whose libraries its Python was built.

    Raises:
        UnsupportedHostError: The host does not run Debian.
    """
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.M)
    if not found or "debian" not in release.lower():
        raise UnsupportedHostError("the base image requires a Debian host")
    return found[1]


def _copied(containerfile: Path) -> Iterator[Path]:
    for line in re.findall(r"^COPY (?!--from)(.+)$", containerfile.read_text(), re.M):
        for name in line.split()[:-1]:
            # A build argument in a name may stand for any file.
            for source in ROOT.glob(re.sub(r"\$\{\w+\}", "*.txt", name)):
                yield from [source] if source.is_file() else _sources(source)


def _sources(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


def _build(name: str, base: Path, archive: Path) -> None:
    storage = {"CONTAINERS_STORAGE_CONF": str(_storage())}
    run(isolated(["buildah", "pull", "--quiet", f"docker-archive:{base}"]), environment=storage)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        command = [sys.executable, "tools/build_images.py", "--builder", "buildah"]
        command += ["--base-image", BASE, "--save", folder, name, "--"]
        # The host's network: a separate one would leave a bridge and firewall rules behind.
        command += ["--pull-never", "--isolation", "chroot", "--network", "host"]
        run(isolated(command), environment=storage, folder=ROOT)
        (saved,) = Path(folder).glob("*.tar")
        saved.rename(archive)


def _storage() -> Path:
    """Buildah's storage configuration, separate from the user's own images."""
    folder = cache_folder() / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "storage.conf"
    roots = f'graphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
    configuration.write_text(f'[storage]\ndriver = "overlay"\n{roots}')
    return configuration


def _make_base(prefix: Path, archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        root = Path(folder) / "root"
        bootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
        run(isolated([*bootstrap, debian_release(), str(root), _debian_mirror()]))
        _copy_python(prefix, root)
        # Includes the certificate of a proxy that the host trusts.
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        for unused in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / unused, ignore_errors=True)
        for step in (
            ["ldconfig"],
            ["python3.12", "-m", "ensurepip", "--default-pip"],
            ["python3.12", "-c", f"import {BASE_MODULES}"],
        ):
            run(isolated(["chroot", str(root), *step]))
        complete = write_image(
            Path(folder) / "image.tar",
            BASE,
            {"/": root},
            entrypoint=[],
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        )
        complete.rename(archive)
    for older in archive.parent.glob("python-base-*.tar"):
        if older != archive:
            older.unlink()


def _copy_python(prefix: Path, root: Path) -> None:
    local = root / "usr" / "local"
    library = shutil.ignore_patterns(*EXCLUDED)
    shutil.copytree(
        prefix / "lib/python3.12", local / "lib/python3.12", symlinks=True, ignore=library
    )
    (local / "lib/python3.12/site-packages").mkdir()
    shutil.copy(prefix / "bin/python3.12", local / "bin")
    for shared in prefix.glob("lib/libpython3*.so*"):
        shutil.copy(shared, local / "lib", follow_symlinks=False)
    for name in ("python3", "python"):
        (local / "bin" / name).symlink_to("python3.12")


def _debian_mirror() -> str:
    """The Debian mirror that the host's own packages come from."""
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]).splitlines()
    release = debian_release()
    return next(target.split()[0] for target in targets if target.split()[-1] == release)
