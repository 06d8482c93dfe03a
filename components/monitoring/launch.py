"""Start a refit: by a command on this machine, or as a run of its own on a cluster."""

import json
import os
import subprocess
from collections.abc import Sequence

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


def command_launcher(command: Sequence[str]) -> Launch:
    """A launcher that runs ``command --run-id KEY --reason WHY --json`` and waits for it.

    The refit's key is the run's id: after a crash the command finds the run that the first
    attempt started and does not start a second one. Its progress goes to standard error.
    """

    def launch(refit: Refit, alert: Alert) -> str:
        process = subprocess.run(
            [*command, "--run-id", refit.key, "--reason", _reason(alert), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if name != KFP_RUNTIME},
        )
        if process.returncode not in (0, GateRefused.exit_code):
            raise RefitError(f"run {refit.key} ended with {process.returncode}; see its log")
        steps = {
            record["step"]: record["metadata"] for record in json.loads(process.stdout)["steps"]
        }
        if process.returncode:
            raise GateRefused("; ".join(steps["gate"]["reasons"]))
        return str(steps["deploy"]["bundle_id"])

    return launch


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
