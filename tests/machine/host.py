"""Check that this host can run a cluster, and install missing Debian packages."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from refit.errors import RefitError
from tests.machine.commands import CommandError, report, run
from tests.machine.settings import cache_folder

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
"""Maps each program to the Debian package that provides it."""
CLUSTER_GB, UNPACKING_GB = 2, 13
"""Disk space of one cluster, and of Refit's unpacked images."""
BUILDING_GB, REBUILDING_GB = 23, 10
"""Disk space of the first build, and of a build after a change of code or requirements."""
CGROUP_ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")


class UnsupportedHostError(RefitError):
    """This host cannot run a cluster; the message gives the reason and the remedy."""

    exit_code = 5


def prepare_host(clusters: int = 1, builds: bool = False) -> None:
    """Check permissions, disk space and kernel, and install missing Debian packages.

    Args:
        clusters: Number of clusters that run at the same time.
        builds: Whether images may have to be built first.

    Raises:
        UnsupportedHostError: A requirement is not met and cannot be installed.
    """
    check_permissions()
    check_disk_space(Path("/tmp"), clusters, builds)
    missing = missing_packages()
    if missing:
        install(missing)
    check_kernel(Path("/tmp"))


def check_permissions() -> None:
    """Check that this process may create namespaces and control groups.

    Raises:
        UnsupportedHostError: It may not.
    """
    if not sys.platform.startswith("linux"):
        raise UnsupportedHostError(f"a cluster needs Linux; this is {sys.platform}")
    if os.geteuid():
        raise UnsupportedHostError("root is required for namespaces and control groups: use sudo")
    try:
        run(["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"])
    except (CommandError, FileNotFoundError) as error:
        raise UnsupportedHostError(f"the kernel does not allow new namespaces: {error}") from None
    missing = sorted(set(CONTROLLERS) - cgroup_controllers())
    if missing:
        raise UnsupportedHostError(
            f"cgroup controllers are missing at {CGROUP_ROOT}: {', '.join(missing)}"
        )
    for hierarchy in cgroup_hierarchies():
        if not os.access(hierarchy, os.W_OK) or os.statvfs(hierarchy).f_flag & os.ST_RDONLY:
            raise UnsupportedHostError(f"{hierarchy} is not writable: run outside of a container")


def check_disk_space(folder: Path, clusters: int, builds: bool) -> None:
    """Check that enough disk space is free.

    Args:
        folder: Where nodes keep their state.
        clusters: Number of clusters that run at the same time.
        builds: Whether images may have to be built first.

    Raises:
        UnsupportedHostError: There is not enough.
    """
    # Written last, so that it exists only after a complete build.
    is_unpacked = (cache_folder() / "unpacked" / "newest").exists()
    needed = clusters * CLUSTER_GB + (0 if is_unpacked else UNPACKING_GB)
    if builds:
        needed += REBUILDING_GB if is_unpacked else BUILDING_GB
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise UnsupportedHostError(
            f"{folder} has {free:.0f} GB of free disk space, but {needed} GB are required for "
            f"{clusters} clusters{' and for building' if builds else ''}: free some, or run fewer "
            "clusters at the same time (--parallel)"
        )


def check_kernel(folder: Path) -> None:
    """Check that the kernel supports veth links, nftables and overlay mounts.

    Args:
        folder: Where nodes keep their state.

    Raises:
        UnsupportedHostError: It does not, as is common inside a container.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for name in ("upper", "work"):
            (Path(scratch) / name).mkdir()
        layers = f"lowerdir=/usr,upperdir={scratch}/upper,workdir={scratch}/work"
        commands = (
            "ip link add refit-a type veth peer name refit-b",
            "nft add table ip refit",
            f"mount -t overlay overlay -o {layers} {scratch}",
        )
        try:
            run(["unshare", "--mount", "--net", "sh", "-ec", "\n".join(commands)])
        except CommandError as error:
            raise UnsupportedHostError(
                f"the kernel lacks a feature that a node needs: {error}"
            ) from None


def is_cgroup_v2() -> bool:
    """Whether the host uses control groups version 2 only."""
    return (CGROUP_ROOT / "cgroup.controllers").exists()


def cgroup_hierarchies() -> list[Path]:
    """The hierarchy roots under which a cluster creates its control groups."""
    if is_cgroup_v2():
        return [CGROUP_ROOT]
    return sorted(file.parent for file in CGROUP_ROOT.glob("*/cgroup.procs"))


def cgroup_controllers() -> set[str]:
    """Names of the available cgroup controllers."""
    if is_cgroup_v2():
        return set((CGROUP_ROOT / "cgroup.controllers").read_text().split())
    return {name for hierarchy in cgroup_hierarchies() for name in hierarchy.name.split(",")}


def missing_packages() -> list[str]:
    """Debian packages whose programs are not installed."""
    return sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})


def install(packages: list[str]) -> None:
    """Install Debian packages.

    Raises:
        UnsupportedHostError: apt-get is missing or failed; the message contains the command.
    """
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    line = " ".join(command)
    if not shutil.which("apt-get"):
        raise UnsupportedHostError(f"programs are missing; on Debian, run: {line}")
    report(f"installing {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update"], environment=quiet)
        run(command, environment=quiet)
    except CommandError as error:
        raise UnsupportedHostError(f"programs are missing; run: {line}\n{error}") from None
