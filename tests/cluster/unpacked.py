"""The images of nodes, unpacked once for all clusters of this machine.

A container runtime unpacks gigabytes for a minute or two. It is done aside, when an image has
changed, and a new node gets links to it: layers and blobs are only ever read, and the runtime's own
tables are copied. What is unpacked is never changed: an image that changes makes another set, and
the former goes once no node has links to it.
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

from tests.cluster.archives import Image
from tests.cluster.binaries import locked
from tests.cluster.commands import confined, run, timed, wait_for
from tests.cluster.settings import cache_folder

MARK = "image-"
RUNTIME, LAYERS = "containerd", "snapshots"
SOURCE, USERS = "unpacked-from", "users"
"""Of a node: the file that names the set it has links to. Of a set: the folder of such files."""
READY_SECONDS = 60.0
TABLES = "*/*.db"
"""What the runtime writes to; everything else in its folder it makes anew or removes."""


def unpack(images: Iterable[Image]) -> None:
    """Have these images unpacked for the clusters to come, in place of others of their names.

    Args:
        images: what nodes are going to need.

    Raises:
        CommandFailed: One could not be made, or the runtime refused it.
    """
    kept = _kept()
    kept.mkdir(parents=True, exist_ok=True)
    with locked(kept):
        _sweep(kept)
        held = _keys(_newest())
        missing = {one.name: one for one in images if held.get(one.name) != one.key}
        if not missing:
            return
        fresh = kept / uuid4().hex
        (fresh / USERS).mkdir(parents=True)
        _copy(_newest() / RUNTIME, fresh / RUNTIME)
        with _runtime(fresh / RUNTIME) as ctr:
            for image in missing.values():
                _import(ctr, image, fresh / "image.tar")
        _write_marks(fresh / RUNTIME, held | {name: one.key for name, one in missing.items()})
        link = fresh / "newest"
        link.symlink_to(fresh)
        link.rename(_newest())
        _sweep(kept)


def hand_out(runtime: Path) -> None:
    """Give a new node links to what is unpacked.

    Args:
        runtime: The root of the node's container runtime, which must not be there yet.
    """
    with locked(_kept()):
        if not _newest().exists():
            return
        given = _newest().resolve()
        source = runtime.with_name(SOURCE)
        source.write_text(str(given))
        (given / USERS / uuid4().hex).write_text(str(source))
        _lend(given / RUNTIME, runtime)
        _write_marks(runtime, _keys(given))


def mark_of(runtime: Path, image: str) -> Path:
    """The file beside a node's runtime that holds the key of the image that it has of a name."""
    return runtime.with_name(f"{MARK}{quote(image, safe='')}")


def _kept() -> Path:
    return cache_folder() / "unpacked"


def _newest() -> Path:
    return _kept() / "newest"


def _sweep(kept: Path) -> None:
    """Remove sets that no node has links to, and what a run that was killed has left."""
    for found in set(kept.iterdir()) - {_newest(), _newest().resolve()}:
        if not any(_is_used(found, user) for user in found.glob(f"{USERS}/*")):
            shutil.rmtree(found) if found.is_dir() else found.unlink()


def _is_used(given: Path, user: Path) -> bool:
    source = Path(user.read_text())
    return source.exists() and source.read_text() == str(given)


def _keys(kept: Path) -> dict[str, str]:
    marks = kept.glob(f"{MARK}*")
    return {unquote(found.name.removeprefix(MARK)): found.read_text() for found in marks}


def _write_marks(runtime: Path, keys: Mapping[str, str]) -> None:
    for name, key in keys.items():
        mark_of(runtime, name).write_text(key)


def _import(ctr: Sequence[str], image: Image, archive: Path) -> None:
    image.write(archive)
    with timed(f"unpacked {image.name} ({archive.stat().st_size / 1e6:.0f} MB)"):
        run([*ctr, "images", "import", archive])
    archive.unlink()


def _copy(source: Path, copy: Path) -> None:
    if source.exists():
        run(["cp", "--archive", "--link", source, copy])
        for table in source.glob(TABLES):
            run(
                ["cp", "--archive", "--remove-destination", table, copy / table.relative_to(source)]
            )


def _lend(source: Path, runtime: Path) -> None:
    tables = set(source.glob(TABLES))
    for folder, inside, files in source.walk():
        place = runtime / folder.relative_to(source)
        place.mkdir(mode=0o700)
        for name in files:
            if folder / name in tables:
                shutil.copy(folder / name, place)
            else:
                (place / name).symlink_to(folder / name)
        if folder.name == LAYERS:
            for layer in inside:
                (place / layer).symlink_to(folder / layer)
            inside.clear()


@contextmanager
def _runtime(root: Path) -> Iterator[list[str]]:
    """A container runtime with no containers; yields how its images are spoken of."""
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
                confined(["containerd", "--config", configuration]), stdout=log, stderr=log
            )
        ctr = ["ctr", "--address", socket, "--namespace", "k8s.io"]
        try:
            wait_for("the container runtime", partial(run, [*ctr, "version"]), READY_SECONDS)
            yield ctr
        finally:
            process.kill()  # what it has told is written
            process.wait()
