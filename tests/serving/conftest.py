from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refit.bundle import Bundle
from refit.ports import free_port
from serving.recommender import Recommender
from serving.settings import RecommenderSettings
from tests.serving import tiny


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="session")
def model(root: Path) -> Path:
    return tiny.make_model(root / "model", seed=0)


@pytest.fixture(scope="session")
def bundle(root: Path, model: Path) -> Bundle:
    return tiny.make_bundle(root / "bundles", model)


@pytest.fixture(scope="session")
def other_bundle(root: Path) -> Bundle:
    """Of other towers, in which histories add to their items' scores, with other prices."""
    return tiny.make_bundle(
        root / "other", tiny.make_model(root / "other-model", 1, repeats=True), seed=1
    )


@pytest.fixture(scope="session")
def model_server(root: Path) -> Iterator[str]:
    """Address of a model server that all tests share; nobody stops it."""
    port = free_port()
    server = tiny.start_model_server(port, root / "model_server.log")
    yield f"127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def registry(tmp_path: Path, bundle: Bundle) -> Path:
    """A registry whose champion is ``bundle``."""
    tiny.promote(tmp_path / "registry", bundle)
    return tmp_path / "registry"


@pytest.fixture
def serve(
    tmp_path: Path, registry: Path, model_server: str
) -> Iterator[Callable[..., Recommender]]:
    """Make a recommender over ``registry``; it is closed at the end of the test."""
    (tmp_path / "stock").mkdir()
    made: list[Recommender] = []

    def make(**settings: object) -> Recommender:
        defaults = {
            "registry": str(registry),
            "model_server": model_server,
            "log_folder": tmp_path / "log",
            "feeds": {"stock": str(tmp_path / "stock")},
            "allow_replay": True,
            "tower_deadline_ms": 5000,
            "poll_seconds": 0.05,
            "unload_after_seconds": 0.2,
            "log_seconds": 0.2,
        }
        made.append(Recommender(RecommenderSettings.parse({**defaults, **settings})))
        return made[-1]

    yield make
    for recommender in made:
        recommender.close()


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something that a background thread or process does."""
    import time

    def wait(happened: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    return wait
