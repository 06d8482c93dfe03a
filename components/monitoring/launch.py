"""Start a refit by running a command; what a local installation does."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence

from monitoring.store import Refit
from refit.alert import Alert
from refit.errors import GateRefused, RefitError

KFP_RUNTIME = "_KFP_RUNTIME"
"""Set inside a step; with it, kfp gives a process no more than a step needs."""


def command_launcher(command: Sequence[str]) -> Callable[[Refit, Alert], str]:
    """A launcher that runs ``command --run-id KEY --reason WHY --json`` and waits for it.

    The refit's key is the run's id: started again after a crash, the command finds the run that
    the first attempt left and does not do it twice. Its progress goes to our standard error.
    """

    def launch(refit: Refit, alert: Alert) -> str:
        reason = f"drift alert {alert.alert_id}"
        process = subprocess.run(
            [*command, "--run-id", refit.key, "--reason", reason, "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if name != KFP_RUNTIME},
        )
        if process.returncode not in (0, GateRefused.exit_code):
            raise RefitError(f"run {refit.key} ended with {process.returncode}; see its log")
        steps = {record["step"]: record["facts"] for record in json.loads(process.stdout)["steps"]}
        if process.returncode:
            raise GateRefused("; ".join(steps["gate"]["reasons"]))
        return str(steps["deploy"]["bundle_id"])

    return launch
