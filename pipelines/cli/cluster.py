"""What the commands on a cluster share: their options, and telling how a run goes."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.output import ERRORS, write_json, write_line, write_progress, write_table

if TYPE_CHECKING:
    from components.kubeflow import Kubeflow, PipelineRun
    from pipelines.cluster.settings import ClusterSettings

LOOK_SECONDS = 2.0
"""Between two looks at a run that is followed."""
PATIENCE_SECONDS = 300.0
"""An API that stays away for longer meanwhile is given up."""

ClusterOption = Annotated[
    Path | None,
    typer.Option("--cluster", envvar="REFIT_CLUSTER", help="The cluster's settings, a YAML file."),
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
    """The cluster's settings, and its API, checked to answer."""
    from pipelines.cluster.connect import connect
    from pipelines.cluster.settings import read_cluster

    settings = read_cluster(file)
    return settings, connect(settings, endpoint)


def describe_run(run: "PipelineRun") -> dict[str, Any]:
    """A run for scripts."""
    from pipelines.cluster.runs import steps_of

    return {
        **run.model_dump(mode="json", exclude={"tasks"}),
        "steps": [
            {"step": step.name, "state": step.state, "seconds": step.seconds, "pods": step.pods}
            for step in steps_of(run)
        ],
    }


def tell_run(run: "PipelineRun", as_json: bool) -> None:
    """A run and its steps for the reader."""
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


def watch_to_end(api: "Kubeflow", settings: "ClusterSettings", run_id: str, as_json: bool) -> None:
    """Show a run until it is over, then tell it and end as it ended.

    Raises:
        RefitError: The run did not succeed; the kind is that of the step that failed.
    """
    from pipelines.cluster.runs import log_reader, raise_for_end

    run = watch_run(api, run_id)
    tell_run(run, as_json)
    raise_for_end(run, log_reader(api, settings, run))


def watch_run(api: "Kubeflow", run_id: str) -> "PipelineRun":
    """Show a run's steps until it is over: a live table on a terminal, else a line a change."""
    from components.kubeflow import poll_run

    looks = poll_run(api, run_id, every=LOOK_SECONDS, patience=PATIENCE_SECONDS)
    return _watch_live(looks) if ERRORS.is_terminal else _watch_in_lines(looks)


def _watch_in_lines(looks: Any) -> "PipelineRun":
    from pipelines.cluster.runs import steps_of

    told: dict[str, str] = {}
    for run in looks:
        for step in steps_of(run):
            if told.get(step.name) != step.state:
                told[step.name] = step.state
                write_progress(f"{datetime.now():%H:%M:%S} {step.name} {step.state.lower()}")
    write_progress(f"{datetime.now():%H:%M:%S} run {run.state.lower()}")
    return run


def _watch_live(looks: Any) -> "PipelineRun":
    from rich.live import Live
    from rich.table import Table

    from pipelines.cluster.runs import steps_of

    with Live(console=ERRORS, transient=True) as live:
        for run in looks:
            table = Table("step", "state", "seconds", title=run.name, title_justify="left")
            for step in steps_of(run):
                table.add_row(step.name, step.state.lower(), _brief(step.seconds))
            live.update(table, refresh=True)
    return run


def _brief(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"


def write_log(text: str) -> None:
    """A step's log, as it is."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
