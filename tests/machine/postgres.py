"""An image of PostgreSQL's own programs that starts like the official image."""

from pathlib import Path

from tests.machine.archives import Image, image_of_files
from tests.machine.libraries import shared_libraries
from tests.postgres import LIBRARIES, NEWEST, RELEASES, find_package

IMAGE = f"docker.io/library/postgres:{NEWEST}-stand-in"
ENTRYPOINT = Path(__file__).with_suffix(".sh")
USERS = Path(__file__).with_suffix(".passwd")
"""initdb requires a name for its user id."""
PROGRAMS = ("postgres", "initdb", "pg_isready")
TOOLS = ("sh", "mv", "rm")
PREFIX = f"/usr/lib/postgresql/{NEWEST}"


def postgres_image() -> Image:
    """PostgreSQL from PyPI, with an entrypoint that reads the official image's variables."""
    release = find_package() / RELEASES[NEWEST]
    tools = [Path(f"/bin/{name}") for name in TOOLS]
    files = {
        **{f"{PREFIX}/bin/{name}": release / "bin" / name for name in PROGRAMS},
        **{f"{PREFIX}/{part}": release / part for part in ("lib/postgresql", "share")},
        # The programs look for these libraries three folders up.
        f"/usr/lib/{LIBRARIES}": release.parent.parent / LIBRARIES,
        **{str(tool): tool.resolve() for tool in tools},
        **shared_libraries([release / "bin" / "postgres", *tools]),
        "/usr/local/bin/docker-entrypoint.sh": ENTRYPOINT,
        "/etc/passwd": USERS,
    }
    return image_of_files(
        IMAGE,
        files,
        entrypoint=["docker-entrypoint.sh"],
        environment={"PATH": f"/usr/local/bin:/bin:{PREFIX}/bin"},
        user="999:999",
    )
