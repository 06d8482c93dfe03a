"""A run on a cluster: its steps, their logs, and the error that its outcome stands for."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from components.kubeflow import Kubeflow, PipelineRun, Task
from pipelines.cluster.logs import read_step_log
from pipelines.cluster.settings import STEPS, ClusterSettings
from refit.errors import BY_EXIT_CODE, GateRefused, RefitError, UsageError

GATES = ("gate", "reindex_listings")
"""Steps that decide whether anything is deployed."""
DEPLOYING = ("deploy-bundle", "deploy-refreshed-index")

_ERROR = re.compile(r"^\d\d:\d\d:\d\d \[\w+\] error: (?P<text>.*)$")
_GATE = re.compile(r"^\d\d:\d\d:\d\d \[gate\] (?P<text>.*)$")
_OF_THE_LAUNCHER = re.compile(
    r'^([IWEF]\d{4} \d\d:\d\d:\d\d|time="?\d{4}-|Error: exit status \d+$)'
)
_EXIT_CODE = re.compile(r"failed to execute component: .*exit status (?P<code>\d+)")


@dataclass(frozen=True)
class StepStatus:
    """One step of Refit in a run.

    Attributes:
        name: Its name in settings and code, such as ``train_towers``.
        state: The API's state, such as ``PENDING``, ``RUNNING``, ``SUCCEEDED`` or ``FAILED``.
        started_at, finished_at: None if not yet.
        pods: Names of its pods, as far as the API reports them.
    """

    name: str
    state: str
    started_at: datetime | None
    finished_at: datetime | None
    pods: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Its duration; None until it is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


def steps_of(run: PipelineRun) -> list[StepStatus]:
    """The run's steps, ordered by start; tasks that the cluster adds are left out.

    A step whose driver failed counts as failed.
    """
    found: dict[str, StepStatus] = {}
    for task in sorted(run.tasks, key=_start):
        name = task.name.removesuffix("-driver").replace("-", "_")
        is_driver = task.name.endswith("-driver")
        if name not in STEPS or (is_driver and task.state != "FAILED"):
            continue
        before = found.get(name)
        pods = (*(before.pods if before else ()), *task.pods)
        if before is None or (before.state != "FAILED" or task.state == "FAILED"):
            found[name] = StepStatus(name, task.state, task.started_at, task.finished_at, pods)
    return list(found.values())


def _start(task: Task) -> float:
    return task.started_at.timestamp() if task.started_at else float("inf")


def find_run(api: Kubeflow, cluster: ClusterSettings, named: str) -> PipelineRun:
    """Find a run by id or by name.

    Raises:
        UsageError: There is no such run.
    """
    experiment = api.find_experiment(cluster.experiment, cluster.api_namespace)
    if runs := api.find_runs(named, experiment):
        return api.get_run(runs[0].run_id)
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", named):
        return api.get_run(named)
    raise UsageError(f"no run {named!r} in experiment {cluster.experiment}; see refit status")


def raise_for_end(run: PipelineRun, read: Callable[[str], str]) -> None:
    """Raise the error that a finished run stands for, of the type that the failed step raised.

    Args:
        run: The run, with its tasks.
        read: Reads a step's log; raises RefitError if there is none.

    Raises:
        RefitError: A step failed, or the run was cancelled.
        GateRefused: Every step succeeded and the gate refused.
    """
    steps = {step.name: step for step in steps_of(run)}
    failed = [step for step in steps.values() if step.state == "FAILED"]
    if failed:
        _raise_failure(run, failed[0].name, read)
    if run.state in ("CANCELED", "CANCELING"):
        raise RefitError(f"run {run.name} was cancelled")
    if run.state != "SUCCEEDED":
        why = f": {run.error}" if run.error else ""
        raise RefitError(f"run {run.name} {run.state.lower()} outside its steps{why}")
    gate = next((name for name in GATES if name in steps), None)
    if gate and not any(map(run.has_done, DEPLOYING)):
        decided, reasons = _read_gate(gate, read)
        lines = "\n  ".join(reasons)
        raise GateRefused(f"the gate {decided}, nothing was deployed:\n  {lines}")


def _raise_failure(run: PipelineRun, step: str, read: Callable[[str], str]) -> None:
    try:
        log = read(step)
    except RefitError as error:
        raise RefitError(f"step {step} of run {run.name} failed; {error}") from None
    text, code = read_failure(log)
    kind = BY_EXIT_CODE.get(code, RefitError)
    raise kind(f"step {step} failed: {text}\nfull log: refit logs {run.name} {step}")


def read_failure(log: str) -> tuple[str, int]:
    """Read a failed step's error and exit code from its log.

    The launcher that KFP runs a step with has its own exit code, and writes the step's to its last
    line; Argo adds lines after that.

    Returns:
        The step's error message with the lines that belong to it, or else its last line; and the
        exit code, 1 if the log does not hold it.
    """
    lines = log.rstrip().splitlines()
    own = [line for line in lines if not _OF_THE_LAUNCHER.match(line)]
    launcher = [line for line in lines if _OF_THE_LAUNCHER.match(line)]
    codes = [int(m["code"]) for line in launcher for m in _EXIT_CODE.finditer(line)]
    errors = [number for number, line in enumerate(own) if _ERROR.match(line)]
    if errors:
        first = _ERROR.match(own[errors[-1]])
        text = "\n".join([first["text"] if first else "", *own[errors[-1] + 1 :]])
    else:
        written = [line for line in own if line.strip()] or launcher
        text = written[-1].strip() if written else "its log is empty"
    return text.rstrip(), codes[-1] if codes else 1


def _read_gate(gate: str, read: Callable[[str], str]) -> tuple[str, list[str]]:
    """What a gate that did not pass decided, and why, from its log."""
    try:
        log = read(gate)
    except RefitError as error:
        return "refused", [f"its reasons could not be read: {error}"]
    texts = [found["text"] for line in log.splitlines() if (found := _GATE.match(line))]
    decided = "cannot tell" if "cannot tell" in texts else "refused"
    reasons = [text for text in texts if not text.startswith(("started", "done in", decided))]
    return decided, reasons or ["the gate gave no reason"]


def log_reader(api: Kubeflow, cluster: ClusterSettings, run: PipelineRun) -> Callable[[str], str]:
    """A function that reads the log of one of the run's steps."""
    steps = {step.name: step for step in steps_of(run)}

    def read(name: str) -> str:
        if name not in steps:
            ran = ", ".join(steps) or "none yet"
            raise UsageError(f"step {name!r} did not run in {run.name}; steps that ran: {ran}")
        return read_step_log(api, cluster, run.run_id, name, steps[name].pods)

    return read
