"""Start a refit: by a command on this machine, or as a run of its own on a cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from components.kubeflow import Kubeflow, PipelineRun, RunRequest, wait_for
from monitoring.refits import Launch, UnderWay
from monitoring.store import Refit
from refit.alert import Alert
from refit.errors import GateRefused, RefitError
from refit.progress import log_message
from refit.registry import Registry

KFP_RUNTIME = "_KFP_RUNTIME"
"""Set inside a step; a process that has it gets only what a step needs from kfp."""
WAIT_SECONDS = 20.0
"""How long a monitor on a cluster waits for a refit that it started."""
DEPLOYING = "deploy-bundle"
"""The step that runs only when the gate has passed."""


POLL_SECONDS = 2.0
"""Between two looks at whether a refit is still wanted."""
ERROR = "error: "
"""How the command line begins the line with which a failed run ends."""
ENDING_SECONDS = 20.0
"""How long a run that is stopped may take to end by itself."""


def command_launcher(
    command: Sequence[str], is_wanted: Callable[[Refit], bool] = lambda refit: True
) -> Launch:
    """A launcher that runs ``command --run-id KEY --reason WHY --json`` and waits for it.

    The refit's key is the run's id: after a crash the command finds the run that the first
    attempt started and does not start a second one. Its progress goes to standard error.

    Args:
        command: The command.
        is_wanted: Asked while the run is under way; the run is ended when it is not.
    """

    def launch(refit: Refit, alert: Alert) -> str:
        words = [*command, "--run-id", refit.key, "--reason", _reason(alert), "--json"]
        return run_command(words, refit.key, lambda: is_wanted(refit))

    return launch


def run_command(
    words: Sequence[str], run_id: str, is_wanted: Callable[[], bool] = lambda: True
) -> str:
    """Run ``refit run ... --json``, wait for it, and return the bundle that it deployed.

    Raises:
        GateRefused: Its gate refused.
        RefitError: It failed, or was stopped.
    """
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != KFP_RUNTIME},
    )
    with ThreadPoolExecutor(2) as pool:
        said, failed = pool.submit(_read, process.stdout), pool.submit(_forward, process.stderr)
        try:
            _wait_while_wanted(process, run_id, is_wanted)
        finally:
            _end(process)
        output, error = said.result(), failed.result()
    if process.returncode not in (0, GateRefused.exit_code):
        why = f": {error}" if error else "; see its log"
        raise RefitError(f"run {run_id} ended with {process.returncode}{why}")
    steps = {record["step"]: record["metadata"] for record in json.loads(output)["steps"]}
    if process.returncode:
        raise GateRefused("; ".join(steps["gate"]["reasons"]))
    return str(steps["deploy"]["bundle_id"])


def _read(stream: IO[str] | None) -> str:
    return stream.read() if stream else ""


def _forward(stream: IO[str] | None) -> str:
    """Pass a run's progress on to our own standard error; returns its error, if it tells one."""
    error = ""
    for line in stream or ():
        sys.stderr.write(line)
        sys.stderr.flush()
        if line.startswith(ERROR):
            error = line.removeprefix(ERROR).strip()
    return error


def _wait_while_wanted(
    process: "subprocess.Popen[str]", run_id: str, is_wanted: Callable[[], bool]
) -> None:
    while True:
        try:
            process.wait(timeout=POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if not is_wanted():
                raise RefitError(f"run {run_id} was stopped") from None


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process that still runs; the steps of a run end with it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kfp_launcher(
    request: RunRequest, registry: Registry, wait_seconds: float = WAIT_SECONDS
) -> Launch:
    """A launcher that starts a run through the Kubeflow Pipelines API, once.

    The refit's key is the run's name: a run of that name is found, not started again. A refit
    takes hours, and a pod that only waits costs money: the launcher waits for a short while, and
    the next run of the monitor records the outcome.

    Args:
        request: The run; its ``reason`` becomes the alert.
        registry: Where the new bundle is found.
        wait_seconds: How long to wait for the run to end.
    """

    def launch(refit: Refit, alert: Alert) -> str:
        api = Kubeflow.for_step(request)
        arguments = {**request.arguments, "reason": _reason(alert)}
        run, started = api.start_once(
            refit.key, request.model_copy(update={"arguments": arguments})
        )
        log_message(
            f"monitor: refit run {run.name} {'started' if started else 'found'}: {run.run_id}"
        )
        run = wait_for(api, run.run_id, wait_seconds, every=min(5.0, wait_seconds))
        if not run.is_over:
            raise UnderWay(f"run {run.run_id} is {run.state.lower()}")
        return _find_bundle(run, registry, _reason(alert))

    return launch


def _find_bundle(run: PipelineRun, registry: Registry, reason: str) -> str:
    """The bundle that the run built, by the alert that the audit trail names as its reason.

    Raises:
        RefitError: The run failed.
        GateRefused: The gate refused its model.
    """
    failed = [task.name for task in run.tasks if task.state == "FAILED"]
    if run.state != "SUCCEEDED":
        where = f" at {', '.join(failed)}" if failed else ""
        raise RefitError(
            f"run {run.run_id} {run.state.lower()}{where}; see refit logs {run.run_id}"
        )
    if not run.has_done(DEPLOYING):
        raise GateRefused(f"run {run.run_id} deployed nothing: its gate refused")
    proposed = registry.candidate()
    built = [change.bundle_id for change in registry.history() if change.reason == reason]
    if proposed and proposed.reason == reason:
        built.append(proposed.bundle_id)
    return built[-1] if built else f"of run {run.run_id}; no rollout made it champion"


def _reason(alert: Alert) -> str:
    return f"drift alert {alert.alert_id}"
