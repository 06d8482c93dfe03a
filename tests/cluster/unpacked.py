"""The images of nodes, unpacked once for all clusters of this machine.

A container runtime unpacks gigabytes for a minute or two. It is done aside, when an image has
changed, and a new node gets a copy by hard links: the layers of images are only ever read, and the
runtime's own tables are copied.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

from tests.cluster.archives import Image
from tests.cluster.binaries import locked
from tests.cluster.commands import CommandFailed, confined, run, tell, timed, wait_for
from tests.cluster.settings import cache_folder

MARK = "unpacked-"
RUNTIME = "containerd"
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
    with locked(kept):
        held = _keys(kept)
        missing = [image for image in images if held.get(image.name) != image.key]
        if not missing:
            return
        fresh, former = kept.with_name("unpacked-fresh"), kept.with_name("unpacked-former")
        for left in (fresh, former):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        fresh.mkdir()
        _link(kept / RUNTIME, fresh / RUNTIME)
        with _runtime(fresh / RUNTIME) as ctr:
            for image in missing:
                _import(ctr, image, fresh / "image.tar")
        _write_marks(fresh / RUNTIME, held | {image.name: image.key for image in missing})
        if kept.exists():
            kept.rename(former)
        fresh.rename(kept)
        shutil.rmtree(former, ignore_errors=True)


def hand_out(runtime: Path) -> None:
    """Give a new node what is unpacked, where that is on the same disk.

    Args:
        runtime: The root of the node's container runtime, which must not be there yet.
    """
    kept = _kept()
    with locked(kept):
        if not kept.exists():
            return
        try:
            _link(kept / RUNTIME, runtime)
        except CommandFailed as error:  # another disk
            shutil.rmtree(runtime, ignore_errors=True)
            tell(f"images will be unpacked again: {error}")
            return
        _write_marks(runtime, _keys(kept))


def mark_of(runtime: Path, image: str) -> Path:
    """The file beside a node's runtime that holds the key of the image that it has of a name."""
    return runtime.with_name(f"{MARK}{quote(image, safe='')}")


def _kept() -> Path:
    return cache_folder() / "unpacked"


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


def _link(source: Path, copy: Path) -> None:
    if not source.exists():
        return
    run(["cp", "--archive", "--link", source, copy])
    for table in source.glob(TABLES):
        run(["cp", "--archive", "--remove-destination", table, copy / table.relative_to(source)])


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
