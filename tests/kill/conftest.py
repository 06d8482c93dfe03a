from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipelines.home import Home
from refit.registry import Registry
from tests.kill.killing import ROOT, SEED, RefitProcess, Report

MARKET = ROOT / "tests" / "pipelines" / "configs" / "valid" / "tiny_market.yaml"
EAGER = {
    "policy": {
        "kind": "windows",
        "windows_needed": 1,
        "windows_considered": 1,
        "minimum_new_events": 0,
    },
    "lease_seconds": 2.0,
    "maximum_attempts": 9,
}
"""A monitor that refits at once, and takes up what was left behind at once."""
EASY = {"alphas": [1e9], "profile_length": 2, "blends": [1e-4]}
"""Baselines that the smallest model beats; a refusal would end a run before it deploys."""


@pytest.fixture
def report(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Report:
    """Write a line of progress past pytest's capture."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"  {line}", flush=True)

    write(f"\n{request.node.name}, seed {SEED}")
    return write


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for pipeline and monitor, so that the second finds the first one's cache."""
    return Home.at(tmp_path_factory.mktemp("kill") / "home")


@pytest.fixture(scope="session")
def config(home: Home) -> Path:
    settings = yaml.safe_load(MARKET.read_text("utf-8"))
    settings["monitoring"] = EAGER
    settings["evaluation"]["baselines"] |= EASY
    path = home.folder.parent / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run(home: Home, config: Path) -> Callable[..., RefitProcess]:
    """Start ``refit run``."""

    def start(run_id: str) -> RefitProcess:
        arguments: list[object] = ["--config", config, "--run-id", run_id, "--reason", run_id]
        if Registry(home.registry).champion() is None:
            arguments.append("--first-model")
        return RefitProcess(home.folder, "run", "continuous_training", *arguments)

    return start


@pytest.fixture
def champion(home: Home, run: Callable[..., RefitProcess]) -> str:
    """A deployed bundle; whatever the tests before have left, or of a run of its own."""
    promotion = Registry(home.registry).champion()
    if promotion is None:
        first = run("first")
        assert first.ends(600) == 0, first.output
        promotion = Registry(home.registry).champion()
    assert promotion is not None
    return promotion.bundle_id
