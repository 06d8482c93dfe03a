"""Container images, and how to make them of files, with no builder."""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SMALL = 1_000_000
"""Bytes up to which a file is known by its content; a larger one by its size and time."""


@dataclass(frozen=True)
class Image:
    """An image that nodes can have.

    Attributes:
        name: repository and tag.
        key: of its content.
        write: writes it to a file, as a docker archive.
    """

    name: str
    key: str
    write: Callable[[Path], object]


def image_of_files(
    name: str,
    files: Mapping[str, Path],
    *,
    entrypoint: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str = "",
) -> Image:
    """An image of one layer; for the arguments see ``write_image``."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(json.dumps([name, [*entrypoint], {**(environment or {})}, user]).encode())
    for place, source in sorted(files.items()):
        for file in _files_of(source):
            digest.update(f"\0{place}\0{file.relative_to(source)}\0".encode() + _content(file))

    settings = {"entrypoint": entrypoint, "environment": environment, "user": user}
    write = partial(write_image, name=name, files=files, **settings)
    return Image(name, digest.hexdigest()[:16], write)


def write_image(
    archive: Path,
    name: str,
    files: Mapping[str, Path],
    *,
    entrypoint: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str = "",
) -> Path:
    """Write an image of one layer as a docker archive.

    Args:
        archive: the file to write.
        name: repository and tag.
        files: what the image holds: paths in it, and the files or folders that go there.
        entrypoint: what it runs.
        environment: variables that are set in it.
        user: user and group that it runs as.

    Returns:
        The archive.
    """
    with tempfile.NamedTemporaryFile(dir=archive.parent) as layer:
        with tarfile.open(fileobj=layer, mode="w") as contents:
            for place, source in files.items():
                contents.add(source, arcname=place.strip("/") or ".", filter=_owned_by_root)
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        settings = {
            "Entrypoint": list(entrypoint),
            "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
            "User": user,
        }
        described = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "files"}],  # buildah wants an entry for every layer
            "config": {key: value for key, value in settings.items() if value},
        }
        parts = {"config.json": described, "manifest.json": [_manifest(name)]}
        with tarfile.open(archive, "w") as image:
            image.add(layer.name, arcname="layer.tar")
            for file, content in parts.items():
                _add(image, file, json.dumps(content).encode())
    return archive


def _files_of(source: Path) -> Iterator[Path]:
    if not source.is_dir():
        yield source
    for folder, _, files in sorted(os.walk(source)):
        yield from (Path(folder, file) for file in sorted(files))


def _content(file: Path) -> bytes:
    seen = file.stat()
    if seen.st_size > SMALL:
        return f"{seen.st_size} {seen.st_mtime_ns}".encode()
    return hashlib.sha256(file.read_bytes()).digest()


def _manifest(name: str) -> dict[str, object]:
    return {"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
