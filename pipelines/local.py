"""Run a compiled pipeline on this machine with kfp's own local runner."""

import contextlib
import fcntl
import io
import os
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from components.step import RUN_FOLDER_VARIABLE, RUN_LOCK
from pipelines.home import Home
from refit.errors import BY_EXIT_CODE, RefitError
from refit.files import read_json, write_json
from refit.settings import Settings

COMPILED_FOLDER = Path(__file__).parent / "compiled"
ARGUMENTS_FILE = "arguments.json"
OUTCOME_FILE = "outcome.json"
LOG_FILE = "run.log"

_STEP_LINE = re.compile(r"^\s*(?P<line>\d\d:\d\d:\d\d (?!- ).*)$")
"""A line that a step says, as refit.progress formats it; kfp's own lines look otherwise."""


class StepRecord(Settings):
    """What became of one step of a run."""

    step: str
    seconds: float
    exit_code: int
    error: str | None
    metadata: dict[str, Any]


class RunOutcome(Settings):
    """What became of a local run; kept in its folder."""

    run_id: str
    pipeline: str
    started_at: datetime
    seconds: float
    succeeded: bool
    steps: tuple[StepRecord, ...]
    folder: Path

    def metadata(self, step: str) -> dict[str, Any]:
        """Facts that a step recorded; empty where it did not run or its result was cached."""
        return next((record.metadata for record in self.steps if record.step == step), {})

    def raise_if_failed(self) -> None:
        """Raise the failing step's own error, of the kind that it was.

        Raises:
            RefitError: A step failed; the message is its own, and names the full log.
        """
        if self.succeeded:
            return
        failed = [record for record in self.steps if record.exit_code]
        log = self.folder / LOG_FILE
        if not failed:
            raise RefitError(f"{self.pipeline} failed outside its steps; full log: {log}")
        last = failed[-1]
        kind = BY_EXIT_CODE.get(last.exit_code, RefitError)
        raise kind(f"step {last.step} failed: {last.error}\nfull log: {log}")


def run_locally(
    pipeline: str,
    arguments: Mapping[str, Any],
    home: Home,
    use_cache: bool = True,
    on_line: Callable[[str], None] = lambda line: None,
    run_id: str = "",
) -> RunOutcome:
    """Run the compiled pipeline ``pipeline`` with kfp's SubprocessRunner.

    Args:
        pipeline: Name of a file in ``compiled/``, without ending.
        arguments: The pipeline's parameters.
        home: Where artifacts, cache and the run's folder go.
        use_cache: Take a step's earlier outputs when nothing that feeds it has changed.
        on_line: Called with every line that a step says.
        run_id: Name of the run; made up when not given. A finished run of this name is not run
            again, one under way is waited for, and one that was killed goes on with the arguments
            that it began with: the champion of today may be its own.
    """
    started_at = datetime.now(UTC)
    run_id = run_id or f"{pipeline}-{started_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    folder = home.runs / run_id
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if (folder / OUTCOME_FILE).exists():
            return RunOutcome.parse(read_json(folder / OUTCOME_FILE))
        if not (folder / ARGUMENTS_FILE).exists():
            write_json(folder / ARGUMENTS_FILE, dict(arguments))
        arguments = read_json(folder / ARGUMENTS_FILE)
        return _run(pipeline, arguments, home, use_cache, on_line, folder, started_at)


def _run(
    pipeline: str,
    arguments: Mapping[str, Any],
    home: Home,
    use_cache: bool,
    on_line: Callable[[str], None],
    folder: Path,
    started_at: datetime,
) -> RunOutcome:
    from kfp import components, local

    home.artifacts.mkdir(parents=True, exist_ok=True)
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(home.artifacts),
        raise_on_error=False,
        enable_caching=use_cache,
        cache_root=str(home.artifacts / ".cache"),
    )
    compiled = components.load_component_from_file(str(COMPILED_FOLDER / f"{pipeline}.yaml"))
    started = time.monotonic()
    with (
        (folder / LOG_FILE).open("a", encoding="utf-8") as log,
        _environment({RUN_FOLDER_VARIABLE: str(folder), "TF_USE_LEGACY_KERAS": "1"}),
        contextlib.redirect_stdout(_StepLines(log, on_line)),
        warnings.catch_warnings(),
    ):
        # The runner takes an image without "python" in its name for a mistake; steps run in
        # the current environment here, which is the one that the image holds.
        warnings.filterwarnings("ignore", message="You may be attem")
        compiled(**arguments)
    steps = _read_steps(folder)
    outcome = RunOutcome(
        run_id=folder.name,
        pipeline=pipeline,
        started_at=started_at,
        seconds=round(time.monotonic() - started, 2),
        succeeded=_ended_well(steps),
        steps=steps,
        folder=folder,
    )
    write_json(folder / OUTCOME_FILE, outcome.model_dump(mode="json"))
    return outcome


def list_runs(home: Home) -> list[RunOutcome]:
    """Finished runs, newest first."""
    outcomes = [RunOutcome.parse(read_json(path)) for path in home.runs.glob(f"*/{OUTCOME_FILE}")]
    return sorted(outcomes, key=lambda outcome: outcome.started_at, reverse=True)


def _ended_well(steps: tuple[StepRecord, ...]) -> bool:
    """Whether the exit handler ran and was told of success; its silence is a failure."""
    ends = [record.metadata.get("state") for record in steps if record.step == "report"]
    return ends == ["SUCCEEDED"] and not any(record.exit_code for record in steps)


def _read_steps(folder: Path) -> tuple[StepRecord, ...]:
    paths = sorted((folder / "steps").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return tuple(StepRecord.parse(read_json(path)) for path in paths)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder; who comes second waits until the first is done."""
    with (folder / RUN_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _StepLines(io.TextIOBase):
    """Writes everything to a log and hands on the lines that steps say."""

    def __init__(self, log: TextIO, on_line: Callable[[str], None]) -> None:
        self._log = log
        self._on_line = on_line
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._log.write(text)
        self._log.flush()
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if match := _STEP_LINE.match(line):
                self._on_line(match["line"])
        return len(text)
