"""Container images, unpacked once for all clusters of this host.

A container runtime needs a minute or two to unpack gigabytes. Images are therefore unpacked ahead,
when one has changed, and a new node gets symbolic links: layers and blobs are only read, and the
runtime's databases are copied. A set of unpacked images is immutable: a changed image creates a new
set, and the previous set is removed when no node links to it.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote
from uuid import uuid4

from tests.machine.archives import Image
from tests.machine.binaries import locked
from tests.machine.commands import CommandError, isolated, report, run, timed, wait_for
from tests.machine.settings import cache_folder

KEY_PREFIX = "image-"
RUNTIME, LAYERS = "containerd", "snapshots"
SOURCE, USERS = "unpacked-from", "users"
"""A node's file that names the set it links to; a set's folder with the paths of such files."""
IMPORT_ATTEMPTS = 3
"""The runtime may collect a layer of an image's previous version while it imports the new one."""
READY_SECONDS = 60.0
DATABASES = "*/*.db"
"""Files that the runtime writes to; it recreates or removes everything else in its folder."""


def unpack(images: Iterable[Image]) -> None:
    """Unpack images for future clusters, replacing older images of the same names.

    Args:
        images: The images that nodes are going to need.

    Raises:
        CommandError: An image could not be built, or the runtime rejected it.
    """
    root = _root()
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        _prune(root)
        present = _read_keys(_newest())
        missing = {image.name: image for image in images if present.get(image.name) != image.key}
        if not missing:
            return
        created = root / uuid4().hex
        (created / USERS).mkdir(parents=True)
        _copy(_newest() / RUNTIME, created / RUNTIME)
        with _runtime(created / RUNTIME) as ctr:
            for image in missing.values():
                _import(ctr, image, created / "image.tar")
        keys = present | {name: image.key for name, image in missing.items()}
        _write_keys(created / RUNTIME, keys)
        link = created / "newest"
        link.symlink_to(created)
        link.rename(_newest())
        _prune(root)


def link_images(runtime: Path) -> None:
    """Link the unpacked images into a new node.

    Args:
        runtime: Root of the node's container runtime, which must not exist yet.
    """
    with locked(_root()):
        if not _newest().exists():
            return
        newest = _newest().resolve()
        source = runtime.with_name(SOURCE)
        source.write_text(str(newest))
        (newest / USERS / uuid4().hex).write_text(str(source))
        _link_tree(newest / RUNTIME, runtime)
        _write_keys(runtime, _read_keys(newest))


def key_file(runtime: Path, image: str) -> Path:
    """The file, next to a node's runtime root, with the key of the image of this name."""
    return runtime.with_name(f"{KEY_PREFIX}{quote(image, safe='')}")


def _root() -> Path:
    return cache_folder() / "unpacked"


def _newest() -> Path:
    return _root() / "newest"


def _prune(root: Path) -> None:
    """Remove sets that no node links to, and the remains of killed runs."""
    for path in set(root.iterdir()) - {_newest(), _newest().resolve()}:
        if not any(_is_used(path, user) for user in path.glob(f"{USERS}/*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_used(image_set: Path, user: Path) -> bool:
    source = Path(user.read_text())
    return source.exists() and source.read_text() == str(image_set)


def _read_keys(image_set: Path) -> dict[str, str]:
    files = image_set.glob(f"{KEY_PREFIX}*")
    return {unquote(file.name.removeprefix(KEY_PREFIX)): file.read_text() for file in files}


def _write_keys(runtime: Path, keys: Mapping[str, str]) -> None:
    for name, key in keys.items():
        key_file(runtime, name).write_text(key)


def _import(ctr: Sequence[str], image: Image, archive: Path) -> None:
    image.write(archive)
    with timed(f"unpacked {image.name} ({archive.stat().st_size / 1e6:.0f} MB)"):
        for attempt in range(IMPORT_ATTEMPTS):
            try:
                run([*ctr, "images", "import", archive])
                break
            except CommandError as error:
                if attempt == IMPORT_ATTEMPTS - 1 or "does not exist: not found" not in str(error):
                    raise
                report(
                    f"importing {image.name} again: a layer of its previous version was collected"
                )
    archive.unlink()


def _copy(source: Path, copy: Path) -> None:
    if source.exists():
        run(["cp", "--archive", "--link", source, copy])
        for database in source.glob(DATABASES):
            target = copy / database.relative_to(source)
            run(["cp", "--archive", "--remove-destination", database, target])


def _link_tree(source: Path, runtime: Path) -> None:
    databases = set(source.glob(DATABASES))
    for folder, subfolders, files in source.walk():
        target = runtime / folder.relative_to(source)
        target.mkdir(mode=0o700)
        for name in files:
            if folder / name in databases:
                shutil.copy(folder / name, target)
            else:
                (target / name).symlink_to(folder / name)
        if folder.name == LAYERS:
            for layer in subfolders:
                (target / layer).symlink_to(folder / layer)
            subfolders.clear()


@contextmanager
def _runtime(root: Path) -> Iterator[list[str]]:
    """Run a container runtime without containers; yields the ``ctr`` command of its images."""
    with tempfile.TemporaryDirectory() as state:
        socket, configuration = f"{state}/socket", Path(state) / "containerd.toml"
        configuration.write_text(
            f"""version = 2
root = "{root}"
state = "{state}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/opt"
"""
        )
        with (Path(state) / "log").open("wb") as log:
            process = subprocess.Popen(
                isolated(["containerd", "--config", configuration]), stdout=log, stderr=log
            )
        ctr = ["ctr", "--address", socket, "--namespace", "k8s.io"]
        try:
            wait_for("the container runtime", partial(run, [*ctr, "version"]), READY_SECONDS)
            yield ctr
        finally:
            process.kill()  # every import that was acknowledged is on disk
            process.wait()
