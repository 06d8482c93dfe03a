import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.cli.app import run

CONFIGS = Path(__file__).parent / "configs"


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def configs() -> Path:
    """Valid and invalid run configurations."""
    return CONFIGS


@pytest.fixture
def refit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Result]:
    """The ``refit`` command in this process, with a home for the test and its output in a pipe."""
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "tester")
    for name in ("REGISTRY", "ALERT_STORE", "CLUSTER", "KFP_ENDPOINT", "DEBUG", "PROGRESS_EVENTS"):
        monkeypatch.delenv(f"REFIT_{name}", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(logging.getLogger("refit"), "handlers", [])

    def run_command(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["refit", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = capfd.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else int(code is not None), out, err)

    return run_command
