"""Shared libraries for images that are made of this machine's programs."""

from collections.abc import Iterable
from pathlib import Path

from tests.cluster.commands import CommandFailed, run


def shared_libraries(binary: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries that programs name, and their loader, each at its own place.

    Raises:
        CommandFailed: One of them is not on this machine.
    """
    try:
        named = run(["ldd", *binary])
    except CommandFailed as error:
        raise CommandFailed(f"a library of an image's programs is not here: {error}") from None
    words = {word for line in named.splitlines() for word in line.split()}
    found = {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}
    return {str(path): path.resolve() for path in sorted(found)}
