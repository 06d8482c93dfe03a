"""Run a compiled pipeline on this machine with kfp's own local runner."""

import contextlib
import fcntl
import io
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from components.step import RUN_FOLDER_VARIABLE, RUN_LOCK
from pipelines.home import Home
from pipelines.reporter import SILENT, Reporter
from refit.errors import BY_EXIT_CODE, RefitError
from refit.files import read_json, write_json
from refit.progress import EVENTS_VARIABLE, parse_event
from refit.settings import Settings

COMPILED_FOLDER = Path(__file__).parent / "compiled"
ARGUMENTS_FILE = "arguments.json"
OUTCOME_FILE = "outcome.json"
LOG_FILE = "run.log"

PIPELINE_STEPS = {
    "continuous_training": (
        "ingest",
        "encode",
        "features",
        "train",
        "index",
        "champion",
        "evaluate",
        "gate",
        "calibrate",
        "deploy",
    ),
    "backtest": (
        "plan",
        "ingest",
        "encode",
        "features",
        "train",
        "index",
        "champion",
        "evaluate",
        "summarize",
        "judge",
    ),
    "tuning": ("ingest", "encode", "features", "tune", "choose"),
    "index_refresh": ("ingest", "encode", "features", "gate", "deploy"),
    "drift_monitoring": ("monitor",),
}
"""The steps of each pipeline in the order in which they run, without the closing report."""

_STEP_LINE = re.compile(r"^\s*(?P<line>\d\d:\d\d:\d\d (?!- ).*)$")
"""A log line of a step, as refit.progress formats it; kfp's own lines have another form."""


class StepRecord(Settings):
    """The outcome of one step of a run.

    Attributes:
        step: Its name.
        seconds: How long it took.
        exit_code: 0 when it succeeded.
        error: Why it failed; None when it succeeded.
        metadata: Values that it recorded.
    """

    step: str
    seconds: float
    exit_code: int
    error: str | None
    metadata: dict[str, Any]


class RunOutcome(Settings):
    """The outcome of a local run; kept in its folder.

    Attributes:
        run_id: Name of the run, and of its folder.
        pipeline: Name of the pipeline.
        started_at: When the process that finished it started, UTC.
        seconds: How long that process took.
        succeeded: Whether every step succeeded; a gate that refuses is a success of its step.
        steps: The steps that ran, in order; those taken from the cache are not among them.
        folder: Where log, arguments and step records are.
    """

    run_id: str
    pipeline: str
    started_at: datetime
    seconds: float
    succeeded: bool
    steps: tuple[StepRecord, ...]
    folder: Path

    def metadata(self, step: str) -> dict[str, Any]:
        """Values that a step recorded; empty where it did not run or its result was cached."""
        return next((record.metadata for record in self.steps if record.step == step), {})

    def raise_if_failed(self) -> None:
        """Raise the error of the step that failed, of the same kind.

        Raises:
            RefitError: A step failed; the message is the step's, and names the full log.
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
    reporter: Reporter = SILENT,
    run_id: str = "",
) -> RunOutcome:
    """Run the compiled pipeline ``pipeline`` with kfp's SubprocessRunner.

    Args:
        pipeline: Name of a file in ``compiled/``, without its suffix.
        arguments: The pipeline's parameters.
        home: Where artifacts, cache and the run's folder go.
        use_cache: Reuse a step's earlier outputs when none of its inputs has changed.
        reporter: Gets the log lines and progress events of the steps.
        run_id: Name of the run; generated when empty. A finished run of this name is not run
            again, and a running one is waited for. A killed one is resumed with the arguments
            with which it started, because it may itself have changed the champion.
    """
    started_at = datetime.now(UTC)
    run_id = run_id or f"{pipeline}-{started_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    folder = home.runs / run_id
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if (folder / OUTCOME_FILE).exists():
            return RunOutcome.parse(read_json(folder / OUTCOME_FILE))
        if not (folder / ARGUMENTS_FILE).exists():
            write_json(folder / ARGUMENTS_FILE, dict(arguments))
        arguments = read_json(folder / ARGUMENTS_FILE)
        return _run(pipeline, arguments, home, use_cache, reporter, folder, started_at)


def _run(
    pipeline: str,
    arguments: Mapping[str, Any],
    home: Home,
    use_cache: bool,
    reporter: Reporter,
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
        _environment(
            {
                RUN_FOLDER_VARIABLE: str(folder),
                EVENTS_VARIABLE: "1",
                "TF_USE_LEGACY_KERAS": "1",
            }
        ),
        contextlib.redirect_stdout(_StepOutput(log, reporter)),
        warnings.catch_warnings(),
    ):
        # The runner warns about images without "python" in their name. Steps run in the current
        # environment here, which is the one that the image holds.
        warnings.filterwarnings("ignore", message="You may be attem")
        compiled(**arguments)
    steps = _read_steps(folder)
    outcome = RunOutcome(
        run_id=folder.name,
        pipeline=pipeline,
        started_at=started_at,
        seconds=round(time.monotonic() - started, 2),
        succeeded=_has_succeeded(steps),
        steps=steps,
        folder=folder,
    )
    write_json(folder / OUTCOME_FILE, outcome.model_dump(mode="json"))
    return outcome


def has_started(home: Home, run_id: str) -> bool:
    """Whether there is a run of this name, which ``run_locally`` continues."""
    return bool(run_id) and (home.runs / run_id / ARGUMENTS_FILE).exists()


def list_runs(home: Home) -> list[RunOutcome]:
    """The finished runs, newest first."""
    outcomes = [RunOutcome.parse(read_json(path)) for path in home.runs.glob(f"*/{OUTCOME_FILE}")]
    return sorted(outcomes, key=lambda outcome: outcome.started_at, reverse=True)


def _has_succeeded(steps: tuple[StepRecord, ...]) -> bool:
    """Whether the exit handler ran and got the state SUCCEEDED; without it the run failed."""
    ends = [record.metadata.get("state") for record in steps if record.step == "report"]
    return ends == ["SUCCEEDED"] and not any(record.exit_code for record in steps)


def _read_steps(folder: Path) -> tuple[StepRecord, ...]:
    paths = sorted((folder / "steps").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return tuple(StepRecord.parse(read_json(path)) for path in paths)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; a second process waits until the first is done."""
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


class _StepOutput(io.TextIOBase):
    """Takes the output of steps apart: log lines and events to a reporter, all but events to a log.

    kfp's runner indents what steps print.
    """

    def __init__(self, log: TextIO, reporter: Reporter) -> None:
        self._log = log
        self._reporter = reporter
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if event := parse_event(line):
                self._reporter.event(event)
                continue
            self._log.write(f"{line}\n")
            if match := _STEP_LINE.match(line):
                self._reporter.message(match["line"])
        self._log.flush()
        return len(text)

    def flush(self) -> None:
        self._log.flush()
