"""Following a run on a cluster: its steps, what they said, and what the end means."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from components.kubeflow import Kubeflow, PipelineRun, Task
from pipelines.cluster.logs import read_step_log
from pipelines.cluster.settings import STEPS, ClusterSettings
from refit.errors import BY_EXIT_CODE, GateRefused, RefitError, UsageError

GATES = ("gate", "reindex_listings")
"""Steps whose answer decides whether anything is deployed."""
DEPLOYING = ("deploy-bundle", "deploy-refreshed-index")

_ERROR = re.compile(r"^\d\d:\d\d:\d\d \[\w+\] error: (?P<text>.*)$")
_GATE = re.compile(r"^\d\d:\d\d:\d\d \[gate\] (?P<text>.*)$")
_OF_THE_LAUNCHER = re.compile(
    r'^([IWEF]\d{4} \d\d:\d\d:\d\d|time="?\d{4}-|Error: exit status \d+$)'
)
_EXIT_CODE = re.compile(r"failed to execute component: .*exit status (?P<code>\d+)")


@dataclass(frozen=True)
class StepStatus:
    """One of our steps in a run.

    Attributes:
        name: As settings and code call it, such as ``train_towers``.
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` ..., as the API says.
        pods: Where it ran, as far as the API tells.
    """

    name: str
    state: str
    started_at: datetime | None
    finished_at: datetime | None
    pods: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it is not over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


def steps_of(run: PipelineRun) -> list[StepStatus]:
    """The run's steps in the order of their starts; what the cluster does around them is left out.

    A step whose driver failed has failed.
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
    """A run by id or by name.

    Raises:
        UsageError: There is none.
    """
    experiment = api.find_experiment(cluster.experiment, cluster.api_namespace)
    if runs := api.find_runs(named, experiment):
        return api.get_run(runs[0].run_id)
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", named):
        return api.get_run(named)
    raise UsageError(f"no run {named!r} in experiment {cluster.experiment}; see refit status")


def raise_for_end(run: PipelineRun, read: Callable[[str], str]) -> None:
    """Raise what a finished run's end means, of the kind that the failing step gave.

    Args:
        run: With its tasks.
        read: Gives a step's log; RefitError where there is none.

    Raises:
        RefitError: A step failed, or the run was cancelled.
        GateRefused: Every step went well and the gate said no.
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
        reasons = "\n  ".join(_gate_reasons(gate, read))
        raise GateRefused(f"the gate refused, nothing was deployed:\n  {reasons}")


def _raise_failure(run: PipelineRun, step: str, read: Callable[[str], str]) -> None:
    try:
        log = read(step)
    except RefitError as error:
        raise RefitError(f"step {step} of run {run.name} failed; {error}") from None
    text, code = read_failure(log)
    kind = BY_EXIT_CODE.get(code, RefitError)
    raise kind(f"step {step} failed: {text}\nfull log: refit logs {run.name} {step}")


def read_failure(log: str) -> tuple[str, int]:
    """A failed step's own error and its exit code, from its log.

    The launcher that KFP puts around a step ends with a code of its own, and writes the step's
    into its last line; Argo adds lines after it.

    Returns:
        The step's error line with what belongs to it, else its last line; and the code, 1 where
        the log does not tell it.
    """
    lines = log.rstrip().splitlines()
    own = [line for line in lines if not _OF_THE_LAUNCHER.match(line)]
    launcher = [line for line in lines if _OF_THE_LAUNCHER.match(line)]
    codes = [int(m["code"]) for line in launcher for m in _EXIT_CODE.finditer(line)]
    places = [place for place, line in enumerate(own) if _ERROR.match(line)]
    if places:
        first = _ERROR.match(own[places[-1]])
        text = "\n".join([first["text"] if first else "", *own[places[-1] + 1 :]])
    else:
        said = [line for line in own if line.strip()] or launcher
        text = said[-1].strip() if said else "its log is empty"
    return text.rstrip(), codes[-1] if codes else 1


def _gate_reasons(gate: str, read: Callable[[str], str]) -> list[str]:
    try:
        log = read(gate)
    except RefitError as error:
        return [f"its reasons could not be read: {error}"]
    said = [found["text"] for line in log.splitlines() if (found := _GATE.match(line))]
    reasons = [text for text in said if not text.startswith(("started", "done in", "refused"))]
    return reasons or ["the gate gave no reason"]


def log_reader(api: Kubeflow, cluster: ClusterSettings, run: PipelineRun) -> Callable[[str], str]:
    """What reads the log of a step of this run."""
    steps = {step.name: step for step in steps_of(run)}

    def read(name: str) -> str:
        if name not in steps:
            ran = ", ".join(steps) or "none yet"
            raise UsageError(f"step {name!r} did not run in {run.name}; steps that ran: {ran}")
        return read_step_log(api, cluster, run.run_id, name, steps[name].pods)

    return read
