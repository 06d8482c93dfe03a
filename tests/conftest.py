import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.postgres import NEWEST, RELEASES, Postgres, running_postgres
from tests.s3 import S3Store, in_environment, running_s3

pytest_plugins = ["tests.machine.fixtures"]

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before anything imports TensorFlow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on public data were asked for: say what is missing instead of skipping them."""
    if any(item.get_closest_marker("data") for item in items) and "REFIT_DATA" not in os.environ:
        raise pytest.UsageError(
            "REFIT_DATA is not set: name the folder that holds renttherunway/, online_retail/ ..."
        )


def pytest_collection() -> None:
    """Look for no garbage while modules are imported, which stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage less often: among all these modules it takes an eighth of the time."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public data sets, for tests marked ``data``."""
    folder = Path(os.environ["REFIT_DATA"])
    assert folder.is_dir(), f"REFIT_DATA={folder} is not a folder"
    return folder


@pytest.fixture(scope="session")
def start_postgres() -> Iterator[Callable[[str], Postgres]]:
    """The server of a release, started when it is first asked for."""
    with ExitStack() as servers:
        yield cache(lambda release: servers.enter_context(running_postgres(release)))


@pytest.fixture
def postgres(
    start_postgres: Callable[[str], Postgres], monkeypatch: pytest.MonkeyPatch
) -> Postgres:
    """A PostgreSQL server, whose password is where ours and its own programs look for it."""
    server = start_postgres(NEWEST)
    monkeypatch.setenv("PGPASSWORD", server.password)
    return server


@pytest.fixture(scope="session")
def s3_store() -> Iterator[S3Store]:
    """An S3 store, started when it is first asked for."""
    with running_s3() as store:
        yield store


@pytest.fixture
def s3(s3_store: S3Store) -> Iterator[S3Store]:
    """An S3 store that this process's environment names, with the bucket ``refit``."""
    from fsspec import get_filesystem_class

    files = get_filesystem_class("s3")
    with in_environment(s3_store):
        # Clients are kept for the whole process, and keep the address that they began with.
        files.clear_instance_cache()
        yield s3_store
        files.clear_instance_cache()


@pytest.fixture(params=["sqlite", *RELEASES])
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    start_postgres: Callable[[str], Postgres],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Where a fresh alert store may be, in each database that can hold one."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    server = start_postgres(request.param)
    monkeypatch.setenv("PGPASSWORD", server.password)
    return server.empty()
