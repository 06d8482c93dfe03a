"""Refit's container images, and the Python base that they are built on here.

No image registry is asked: a Debian of the machine's own release with the machine's Python 3.12
stands in for ``python:3.12-slim``. The Containerfiles are built as they are.
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
from tests.cluster.archives import Image, write_image
from tests.cluster.binaries import locked
from tests.cluster.commands import confined, run, tell, timed
from tests.cluster.kubernetes import Cluster
from tests.cluster.machine import CannotRun
from tests.cluster.settings import ROOT, cache_folder

BASE = "localhost/python-base:3.12"
BASE_PACKAGES = (
    *("ca-certificates", "netbase", "tzdata", "zlib1g", "libbz2-1.0", "libexpat1", "libffi8"),
    *("liblzma5", "libncursesw6", "libreadline8", "libsqlite3-0", "libssl3", "libuuid1"),
)
BASE_MODULES = "bz2, ctypes, lzma, pip, readline, sqlite3, ssl, uuid, venv, zlib"
LEFT_OUT = ("test", "idlelib", "tkinter", "turtledemo", "site-packages", "config-*", "__pycache__")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CONTAINERFILES = {
    "main": ROOT / "pipelines" / "Containerfile",
    "serving": ROOT / "serving" / "Containerfile",
}


class Images:
    """Refit's images on a cluster's node, each put there when it is first asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self.base = cache(lambda: cluster.have(base_image()))
        """A Debian with Python 3.12."""
        self.main = cache(lambda: cluster.have(refit_image("main")))
        """The image of pipelines and monitoring."""
        self.serving = cache(lambda: cluster.have(refit_image("serving")))
        """The image of the recommender and the model server's stand-in."""


def refit_image(name: str) -> Image:
    """One of Refit's images, which its Containerfile makes.

    Args:
        name: ``main`` or ``serving``.

    Raises:
        CannotRun: See ``build_base``.
        CommandFailed: See ``build_base``.
    """
    base = build_base()
    full_name = f"refit/{name}:{__version__}"

    def write(archive: Path) -> None:
        tell(f"building {full_name}; the first time takes minutes")
        with timed(f"{full_name} is built"), locked(_storage()):
            _build(name, base, archive)

    return Image(full_name, content_key(name, base), write)


def base_image() -> Image:
    """The Python base image.

    Raises:
        CannotRun: See ``build_base``.
        CommandFailed: See ``build_base``.
    """
    base = build_base()
    return Image(BASE, base.stem, partial(shutil.copy, base))


def build_base() -> Path:
    """Make the Python base image, unless that was done, and return its archive.

    Raises:
        CannotRun: This Python is the system's own and cannot be copied.
        CommandFailed: Debian's packages cannot be had, or this Python needs more of them.
    """
    prefix = Path(sys.base_prefix)
    if prefix == Path("/usr"):
        raise CannotRun(
            "the base image takes this environment's Python, which is the system's own: make the "
            "environment with one from pyenv or uv (make clean setup PYTHON=...)"
        )
    written_by = Path(__file__).with_name("archives.py").read_text()
    told = (sys.version, str(prefix), debian_release(), written_by, *BASE_PACKAGES, *LEFT_OUT)
    key = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    archive = cache_folder() / "images" / f"python-base-{key}.tar"
    with locked(archive):
        if not archive.exists():
            with timed("the Python base image is made"):
                _make_base(prefix, archive)
    return archive


def content_key(name: str, base: Path) -> str:
    """What an image follows from: its Containerfile, what that copies, and the base."""
    digest = hashlib.sha256(base.name.encode())
    digest.update((ROOT / "tools" / "build_images.py").read_bytes())
    for file in sorted({CONTAINERFILES[name], *_copied(CONTAINERFILES[name])}):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def debian_release() -> str:
    """The machine's Debian release, whose libraries its Python was built for.

    Raises:
        CannotRun: It is another system.
    """
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.M)
    if not found or "debian" not in release.lower():
        raise CannotRun("the base image is made of Debian's packages; this is no Debian")
    return found[1]


def _copied(containerfile: Path) -> Iterator[Path]:
    for line in re.findall(r"^COPY (?!--from)(.+)$", containerfile.read_text(), re.M):
        for source in line.split()[:-1]:
            place = ROOT / source
            yield from [place] if place.is_file() else _sources(place)


def _sources(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


def _build(name: str, base: Path, archive: Path) -> None:
    storage = {"CONTAINERS_STORAGE_CONF": str(_storage())}
    run(confined(["buildah", "pull", "--quiet", f"docker-archive:{base}"]), environment=storage)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        command = [sys.executable, "tools/build_images.py", "--builder", "buildah"]
        command += ["--base-image", BASE, "--save", folder, name, "--"]
        # The machine's network: one of its own would leave a bridge and firewall rules behind.
        command += ["--pull-never", "--isolation", "chroot", "--network", "host"]
        run(confined(command), environment=storage, folder=ROOT)
        (saved,) = Path(folder).glob("*.tar")
        saved.rename(archive)


def _storage() -> Path:
    """The configuration of Buildah's own place for layers, apart from a person's images."""
    folder = cache_folder() / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "storage.conf"
    places = f'graphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
    configuration.write_text(f'[storage]\ndriver = "overlay"\n{places}')
    return configuration


def _make_base(prefix: Path, archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        root = Path(folder) / "root"
        bootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
        run(confined([*bootstrap, debian_release(), str(root), _debian_mirror()]))
        _copy_python(prefix, root)
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))  # a proxy's among them
        for useless in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / useless, ignore_errors=True)
        for step in (
            ["ldconfig"],
            ["python3.12", "-m", "ensurepip", "--default-pip"],
            ["python3.12", "-c", f"import {BASE_MODULES}"],
        ):
            run(confined(["chroot", str(root), *step]))
        fresh = write_image(
            Path(folder) / "image.tar",
            BASE,
            {"/": root},
            entrypoint=[],
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        )
        fresh.rename(archive)
    for older in archive.parent.glob("python-base-*.tar"):
        if older != archive:
            older.unlink()


def _copy_python(prefix: Path, root: Path) -> None:
    local = root / "usr" / "local"
    library = shutil.ignore_patterns(*LEFT_OUT)
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
    """Where this machine's own packages come from."""
    places = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]).splitlines()
    release = debian_release()
    return next(place.split()[0] for place in places if place.split()[-1] == release)
