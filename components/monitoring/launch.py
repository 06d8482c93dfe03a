"""Start a refit by running a command; what a local installation does."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence

from monitoring.store import Refit
from refit.alert import Alert
from refit.errors import GateRefused, RefitError
from refit.progress import say

KFP_RUNTIME = "_KFP_RUNTIME"
"""Set inside a step; with it, kfp gives a process no more than a step needs."""
SAID_AT_MOST = 12
"""Lines of a failed command that are repeated."""


def command_launcher(command: Sequence[str]) -> Callable[[Refit, Alert], str]:
    """A launcher that runs ``command --run-id KEY --reason WHY --json`` and waits for it.

    The refit's key is the run's id: started again after a crash, the command finds the run that
    the first attempt left and does not do it twice.
    """

    def launch(refit: Refit, alert: Alert) -> str:
        reason = f"drift alert {alert.alert_id}"
        process = subprocess.Popen(
            [*command, "--run-id", refit.key, "--reason", reason, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != KFP_RUNTIME},
        )
        printed, errors = process.communicate()
        for line in errors.splitlines():
            say(f"  {line}")
        last = "\n".join(errors.splitlines()[-SAID_AT_MOST:])
        if process.returncode == GateRefused.exit_code:
            raise GateRefused(last)
        if process.returncode:
            raise RefitError(f"{' '.join(command)} ended with {process.returncode}:\n{last}")
        steps = {record["step"]: record["facts"] for record in json.loads(printed)["steps"]}
        return str(steps["deploy"]["bundle_id"])

    return launch
