"""What the machine must have and allow before a cluster can stand on it."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from refit.errors import RefitError
from tests.cluster.commands import CommandFailed, run, tell
from tests.cluster.settings import cache_folder

PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
"""Programs, and the Debian packages that bring them."""
CLUSTER_GB, UNPACKING_GB = 2, 13
"""What a cluster takes, and what Refit's images do once they are unpacked."""
BUILDING_GB, REBUILDING_GB = 23, 10
"""What building takes the first time, and what after a change of code or requirements."""
CONTROL_GROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")


class CannotRun(RefitError):  # noqa: N818 - an outcome, named as people say it
    """This machine cannot hold a cluster; the message says why and what would change it."""

    exit_code = 5


def prepare_machine(clusters: int = 1, builds: bool = False) -> None:
    """Check what the kernel allows and install the Debian packages that are missing.

    Args:
        clusters: How many are going to stand side by side.
        builds: Whether images may have to be built before.

    Raises:
        CannotRun: Something is missing that cannot be had from here.
    """
    check_rights()
    check_room(Path("/tmp"), clusters, builds)
    missing = missing_packages()
    if missing:
        install(missing)
    check_kernel(Path("/tmp"))


def check_rights() -> None:
    """See that namespaces and control groups can be made.

    Raises:
        CannotRun: They cannot.
    """
    if not sys.platform.startswith("linux"):
        raise CannotRun(f"a cluster needs Linux; this is {sys.platform}")
    if os.geteuid():
        raise CannotRun("a cluster needs root, for namespaces and control groups: use sudo")
    try:
        run(["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"])
    except (CommandFailed, FileNotFoundError) as error:
        raise CannotRun(f"the kernel allows no new namespaces here: {error}") from None
    lacking = sorted(set(CONTROLLERS) - controllers())
    if lacking:
        raise CannotRun(f"control groups lack {', '.join(lacking)} at {CONTROL_GROUPS}")
    for hierarchy in hierarchies():
        if not os.access(hierarchy, os.W_OK) or os.statvfs(hierarchy).f_flag & os.ST_RDONLY:
            raise CannotRun(f"{hierarchy} cannot be written: run outside of a container")


def check_room(folder: Path, clusters: int, builds: bool) -> None:
    """See that the disk has room.

    Args:
        folder: Where nodes keep their state.
        clusters: How many are going to stand side by side.
        builds: Whether images may have to be built before.

    Raises:
        CannotRun: It has not.
    """
    is_unpacked = (cache_folder() / "unpacked" / "newest").exists()  # built before, to the end
    needed = clusters * CLUSTER_GB + (0 if is_unpacked else UNPACKING_GB)
    if builds:
        needed += REBUILDING_GB if is_unpacked else BUILDING_GB
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise CannotRun(
            f"{folder} has {free:.0f} GB of free disk, and {needed} are needed for {clusters} "
            f"clusters at a time{' and for building' if builds else ''}: make room, or let fewer "
            "stand side by side (--at-once)"
        )


def check_kernel(folder: Path) -> None:
    """See that the kernel makes the links, packet filters and layered folders that a node needs.

    Args:
        folder: Where nodes keep their state.

    Raises:
        CannotRun: It does not; a container's kernel often lacks one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name in ("above", "work"):
            (Path(place) / name).mkdir()
        layers = f"lowerdir=/usr,upperdir={place}/above,workdir={place}/work"
        tries = (
            "ip link add refit-a type veth peer name refit-b",
            "nft add table ip refit",
            f"mount -t overlay overlay -o {layers} {place}",
        )
        try:
            run(["unshare", "--mount", "--net", "sh", "-ec", "\n".join(tries)])
        except CommandFailed as error:
            raise CannotRun(f"the kernel lacks what a node needs here: {error}") from None


def is_unified() -> bool:
    """Whether control groups are version 2 alone."""
    return (CONTROL_GROUPS / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The roots under which a cluster has a control group."""
    if is_unified():
        return [CONTROL_GROUPS]
    return sorted(found.parent for found in CONTROL_GROUPS.glob("*/cgroup.procs"))


def controllers() -> set[str]:
    """The controllers that control groups offer here."""
    if is_unified():
        return set((CONTROL_GROUPS / "cgroup.controllers").read_text().split())
    return {name for hierarchy in hierarchies() for name in hierarchy.name.split(",")}


def missing_packages() -> list[str]:
    """Debian packages whose programs are not here."""
    return sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})


def install(packages: list[str]) -> None:
    """Install Debian packages.

    Raises:
        CannotRun: There is no apt-get, or it failed; the message holds the line to run.
    """
    line = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if not shutil.which("apt-get"):
        raise CannotRun(f"programs are missing; on Debian: {' '.join(line)}")
    tell(f"installing {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update"], environment=quiet)
        run(line, environment=quiet)
    except CommandFailed as error:
        raise CannotRun(f"programs are missing; run: {' '.join(line)}\n{error}") from None
