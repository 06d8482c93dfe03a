"""Shared libraries of host programs that are copied into images."""

from collections.abc import Iterable
from pathlib import Path

from tests.machine.commands import CommandError, run


def shared_libraries(binary: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries that programs are linked with, and their loader.

    Returns:
        Maps the path under which a program looks up each library to the library's file.

    Raises:
        CommandError: A library is not installed on this host.
    """
    try:
        listing = run(["ldd", *binary])
    except CommandError as error:
        raise CommandError(f"a shared library is not installed: {error}") from None
    words = {word for line in listing.splitlines() for word in line.split()}
    paths = {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}
    return {str(path): path.resolve() for path in sorted(paths)}
