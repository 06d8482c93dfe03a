"""What the commands on a cluster share: their options, showing a run and waiting for it."""

import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.board import Board, BoardStep, StepState
from pipelines.cli.live import is_live, showing
from pipelines.cli.output import write_json, write_line, write_progress, write_table
from refit.errors import RefitError

if TYPE_CHECKING:
    from components.kubeflow import Kubeflow, PipelineRun
    from pipelines.cluster.runs import StepStatus
    from pipelines.cluster.settings import ClusterSettings

POLL_SECONDS = 2.0
"""Between two requests for the state of a run that is waited for."""
LOG_SECONDS = 10.0
"""Between two requests for the log of its current step."""
PATIENCE_SECONDS = 300.0
"""For so long the API may be unreachable meanwhile."""
STATES = {
    "RUNNING": StepState.RUNNING,
    "SUCCEEDED": StepState.SUCCEEDED,
    "FAILED": StepState.FAILED,
    "CACHED": StepState.CACHED,
    "SKIPPED": StepState.SKIPPED,
}
"""Those of the API's states that look different on a board."""

ClusterOption = Annotated[
    Path | None,
    typer.Option("--cluster", envvar="REFIT_CLUSTER", help="YAML file of the cluster's settings."),
]
EndpointOption = Annotated[
    str,
    typer.Option(
        "--endpoint",
        envvar="REFIT_KFP_ENDPOINT",
        help="URL of the Kubeflow Pipelines API (default: the cluster file's, or the kubeconfig).",
    ),
]


def open_cluster(file: Path | None, endpoint: str) -> "tuple[ClusterSettings, Kubeflow]":
    """The cluster's settings, and a client of its API that has been checked to answer."""
    from pipelines.cluster.connect import connect
    from pipelines.cluster.settings import read_cluster

    settings = read_cluster(file)
    return settings, connect(settings, endpoint)


def describe_run(run: "PipelineRun") -> dict[str, Any]:
    """A run and its steps as JSON values."""
    from pipelines.cluster.runs import steps_of

    return {
        **run.model_dump(mode="json", exclude={"tasks"}),
        "steps": [
            {"step": step.name, "state": step.state, "seconds": step.seconds, "pods": step.pods}
            for step in steps_of(run)
        ],
    }


def show_run(run: "PipelineRun", as_json: bool) -> None:
    """Print a run and its steps."""
    from pipelines.cluster.runs import steps_of

    if as_json:
        write_json(describe_run(run))
        return
    write_table(
        f"{run.name} · {run.state.lower()}",
        ("step", "state", "seconds"),
        [(step.name, step.state.lower(), _brief(step.seconds)) for step in steps_of(run)],
    )
    write_line(f"run: {run.run_id}")


def wait_for_end(api: "Kubeflow", settings: "ClusterSettings", run_id: str, as_json: bool) -> None:
    """Show a run until it is over, print it, and end as it ended.

    Raises:
        RefitError: The run did not succeed; the kind is that of the step that failed.
    """
    from components.kubeflow import poll_run
    from pipelines.cluster.runs import log_reader, raise_for_end

    updates = poll_run(api, run_id, every=POLL_SECONDS, patience=PATIENCE_SECONDS)
    if is_live(as_json):
        run = _wait_with_view(api, updates)
    else:
        run = _wait_in_lines(updates, silent=as_json)
    show_run(run, as_json)
    raise_for_end(run, log_reader(api, settings, run))


def _wait_in_lines(updates: "Iterable[PipelineRun]", silent: bool) -> "PipelineRun":
    """Wait until the last update, and write a line for each change of a step."""
    from pipelines.cluster.runs import steps_of

    written: dict[str, str] = {}
    for run in updates:
        for step in steps_of(run):
            if not silent and written.get(step.name) != step.state:
                written[step.name] = step.state
                write_progress(f"{datetime.now():%H:%M:%S} {step.name} {step.state.lower()}")
    if not silent:
        write_progress(f"{datetime.now():%H:%M:%S} run {run.state.lower()}")
    return run


def _wait_with_view(api: "Kubeflow", updates: "Iterable[PipelineRun]") -> "PipelineRun":
    """Wait until the last update, with a live view of the steps and the log's last line."""
    from pipelines.cluster.runs import steps_of

    board, log_due = Board("run"), 0.0
    with showing(board):
        for run in updates:
            steps = steps_of(run)
            board.title = f"{run.name} · {run.state.lower()}"
            board.show_steps(_to_board_step(step) for step in steps)
            if time.monotonic() >= log_due:
                log_due = time.monotonic() + LOG_SECONDS
                board.note(_last_line(api, run.run_id, steps))
    return run


def _to_board_step(step: "StepStatus") -> BoardStep:
    state = STATES.get(step.state, StepState.PENDING)
    started = None
    if state is StepState.RUNNING and step.started_at is not None:
        ago = (datetime.now(UTC) - step.started_at).total_seconds()
        started = time.monotonic() - max(ago, 0.0)  # the cluster's clock may be ahead of ours
    return BoardStep(step.name, state, step.seconds or 0.0, started)


def _last_line(api: "Kubeflow", run_id: str, steps: "Iterable[StepStatus]") -> str:
    """The last line in the log of the running step, as far as the API serves it."""
    pods = [pod for step in steps if step.state == "RUNNING" for pod in step.pods]
    try:
        log = (api.read_log(run_id, pods[-1]) if pods else None) or ""
    except RefitError:
        return ""
    return next((line for line in reversed(log.splitlines()) if line.strip()), "")


def _brief(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"


def write_log(text: str) -> None:
    """Print a step's log as it is."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
