"""Checks of this machine: ports, disk, the home folder, registry and alert store."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.doctor.checks import Check, CheckResult, not_ok, ok
from pipelines.home import HOME_VARIABLE, Home
from refit.errors import UsageError
from refit.ports import check_port

LEAST_FREE_BYTES = 2 * 10**9
"""A first run of the simulated marketplace writes some hundred megabytes."""
PROBE_BYTES = 1_000_000
PORTS = {"http_port": "REST", "grpc_port": "gRPC", "metrics_port": "metrics"} | {
    "model_server_port": "the model server"
}


def machine_checks(home: Home) -> dict[str, Check]:
    """The checks of this machine, by subject."""
    return {
        "ports": check_ports,
        "home": lambda: check_home(home.folder),
        "disk": lambda: check_disk(home.folder),
        "registry": lambda: check_registry(home.registry),
        "alert store": lambda: check_alert_store(home.alerts),
    }


def check_ports() -> Iterator[CheckResult]:
    """Check that the default ports of ``refit serve`` are free."""
    from serving.settings import ServeSettings

    taken = []
    defaults = {name: ServeSettings.model_fields[name].default for name in PORTS}
    for name, port in defaults.items():
        try:
            check_port(port, PORTS[name], name)
        except UsageError:
            taken.append(f"{port} ({PORTS[name]}, --{name.replace('_', '-')})")
    if taken:
        yield not_ok(
            "ports",
            f"in use: {', '.join(taken)}; stop what listens there, such as another refit serve, or "
            "give refit serve other ports (0 takes a free one)",
        )
    else:
        yield ok("ports", f"{', '.join(map(str, defaults.values()))} are free")


def check_home(folder: Path) -> Iterator[CheckResult]:
    """Check that the home can be written, locked and renamed in, as runs do."""
    advice = f"name another folder with --home or {HOME_VARIABLE}"
    existing = _existing(folder)
    if not existing.is_dir():
        yield not_ok("home", f"{existing} is a file, a folder is needed; {advice}")
        return
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".refit-doctor-") as probe:
            path = Path(probe) / "written"
            with path.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(b"\0" * PROBE_BYTES)
                file.flush()
                os.fsync(file.fileno())
            path.replace(path.with_name("renamed"))
    except OSError as error:
        reason = error.strerror or str(error)
        user = f"user {os.getuid()}"
        yield not_ok("home", f"{folder} cannot be written by {user}: {reason}; {advice}")
        return
    made = "" if folder.exists() else " (the first command creates it)"
    yield ok("home", f"{folder} can be written{made}")


def check_disk(folder: Path) -> Iterator[CheckResult]:
    """Check that the disk of the home has space and room for files."""
    existing = _existing(folder)
    free = shutil.disk_usage(existing).free
    files = os.statvfs(existing)
    if free < LEAST_FREE_BYTES:
        needed = f"{LEAST_FREE_BYTES / 1e9:.0f} GB are needed"
        yield not_ok(
            "disk",
            f"{free / 1e9:.1f} GB are free at {existing}, {needed}; free some space, or name a "
            f"folder on another disk with --home or {HOME_VARIABLE}",
        )
    elif files.f_files and not files.f_favail:
        yield not_ok("disk", f"no more files can be created at {existing}; remove some (inodes)")
    else:
        yield ok("disk", f"{free / 1e9:.1f} GB are free at {existing}")


def check_registry(url: str) -> Iterator[CheckResult]:
    """Check that the registry can be read, and that it holds its champion."""
    from refit.registry import Registry

    registry = Registry(url)
    bundles, champion = registry.list(), registry.champion_id()
    if champion and champion not in bundles:
        yield not_ok(
            "registry",
            f"the champion {champion} is not among the bundles of {url}; restore it, or choose "
            "another one with refit bundles promote",
        )
    elif not bundles:
        yield ok(
            "registry",
            f"{url} can be read and has no bundles yet (refit run --first-model adds one)",
        )
    else:
        yield ok("registry", f"{url} has {len(bundles)} bundles, champion {champion or 'none'}")


def check_alert_store(place: str) -> Iterator[CheckResult]:
    """Check that the alert store can be read; nothing is created."""
    from sqlalchemy import inspect

    from monitoring.store import has_tables
    from refit.database import Database, parse_place

    url = parse_place(place)
    if url.drivername == "sqlite" and not Path(url.database or "").exists():
        yield ok("alert store", f"{place} does not exist yet (refit monitor creates it)")
        return
    with Database(place, read_only=True, patience_seconds=5).reading() as connection:
        if has_tables(connection):
            yield ok("alert store", f"{place} can be read")
        elif inspect(connection).get_table_names():
            yield not_ok(
                "alert store", f"{place} is another database; name another one with --store"
            )
        else:
            yield ok("alert store", f"{place} is empty (refit monitor creates its tables)")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
