"""Container images, and how to write them from files without an image builder."""

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
"""Bytes. A file up to this size is identified by its content, a larger one by size and mtime."""


@dataclass(frozen=True)
class Image:
    """A container image that can be loaded into a node.

    Attributes:
        name: Repository and tag.
        key: Identifies the image's content.
        write: Writes the image to a file as a docker archive.
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
    """Describe an image of one layer; see ``write_image`` for the arguments."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(json.dumps([name, [*entrypoint], {**(environment or {})}, user]).encode())
    for target, source in sorted(files.items()):
        for file in _files_of(source):
            digest.update(f"\0{target}\0{file.relative_to(source)}\0".encode() + _content(file))

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
        archive: The file to write.
        name: Repository and tag.
        files: Maps each path in the image to the file or folder that is copied there.
        entrypoint: The image's entrypoint.
        environment: The image's environment variables.
        user: User and group ids, as ``UID:GID``.

    Returns:
        The path of the archive.
    """
    with tempfile.NamedTemporaryFile(dir=archive.parent) as layer:
        with tarfile.open(fileobj=layer, mode="w") as contents:
            for target, source in files.items():
                contents.add(source, arcname=target.strip("/") or ".", filter=_owned_by_root)
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        settings = {
            "Entrypoint": list(entrypoint),
            "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
            "User": user,
        }
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "files"}],  # buildah wants an entry for every layer
            "config": {key: value for key, value in settings.items() if value},
        }
        parts = {"config.json": config, "manifest.json": [_manifest(name)]}
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
    status = file.stat()
    if status.st_size > SMALL:
        return f"{status.st_size} {status.st_mtime_ns}".encode()
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
