"""A real S3 store for tests: SeaweedFS, the store of the test cluster, as a process of its own."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

from refit.ports import free_ports
from tests.machine.environments import make_environment
from tests.machine.object_store import REQUIREMENTS

KEY, SECRET, BUCKET = "refit-tests", "only-inside-the-tests", "refit"
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class S3Store:
    """A running store with one bucket, ``refit``."""

    endpoint: str

    def environment(self) -> dict[str, str]:
        """The variables with which fsspec finds the store."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def running_s3() -> Iterator[S3Store]:
    """A fresh store, until the block ends or this process dies."""
    program = make_environment(REQUIREMENTS) / "bin" / "weed"
    folder = Path(tempfile.mkdtemp(prefix="refit-s3-"))
    access = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [access]}))
    (folder / "data").mkdir()
    names = ("master", "volume", "filer", "s3")
    halves = batched(free_ports(2 * len(names)), len(names))
    ports, grpc_ports = (dict(zip(names, half, strict=True)) for half in halves)
    options = {
        "-dir": folder / "data",
        "-ip": "127.0.0.1",
        "-ip.bind": "127.0.0.1",
        "-s3.config": folder / "s3.json",
        "-volume.max": 20,
        # Both have a fixed port, which a second store on this machine would not get.
        "-s3.port.iceberg": 0,
        "-s3.port.lance": 0,
        **{f"-{name}.port": port for name, port in ports.items()},
        **{f"-{name}.port.grpc": port for name, port in grpc_ports.items()},
    }
    words = [f"{name}={value}" for name, value in options.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "server", "-filer", "-s3", *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    try:
        store = S3Store(f"http://127.0.0.1:{ports['s3']}")
        _wait_until_it_answers(store, process, folder / "log")
        yield store
    finally:
        process.kill()  # nothing is kept
        process.wait(30)
        shutil.rmtree(folder)


def _wait_until_it_answers(store: S3Store, process: subprocess.Popen[bytes], log: Path) -> None:
    from botocore.exceptions import BotoCoreError
    from s3fs import S3FileSystem

    deadline = time.monotonic() + 60
    while True:
        files = S3FileSystem(
            key=KEY,
            secret=SECRET,
            endpoint_url=store.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"retries": {"total_max_attempts": 1}, "connect_timeout": 5},
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        files.retries = 1
        try:
            if not files.exists(BUCKET):
                files.mkdir(BUCKET)
            files.pipe_file(f"{BUCKET}/ready", b"yes")
            return
        except (OSError, BotoCoreError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


@contextmanager
def in_environment(store: S3Store) -> Iterator[S3Store]:
    """Set this process's environment so that it and its children reach the store.

    What s3fs keeps of other stores is forgotten: its instances do not see a change of environment.
    """
    from s3fs import S3FileSystem

    before = {name: os.environ.get(name) for name in store.environment()}
    os.environ.update(store.environment())
    S3FileSystem.clear_instance_cache()
    try:
        yield store
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
