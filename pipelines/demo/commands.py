"""The demo runs the same commands that a user would type."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.reporter import Reporter
from refit.errors import BY_EXIT_CODE, GateRefused, RefitError
from refit.progress import EVENTS_VARIABLE, parse_event

ERROR_LINES = 12
"""So many of a failed command's last lines are part of the error."""


def run_command(arguments: Sequence[str], reporter: Reporter) -> Mapping[str, Any]:
    """Run ``refit ... --json`` and return the JSON that it printed.

    Args:
        arguments: Without ``refit`` and ``--json``.
        reporter: Gets the command as a user would type it, its log lines and its events.

    Raises:
        RefitError: The command failed. A refusal by a gate is no failure: its JSON is returned.
    """
    reporter.message("$ refit " + " ".join(arguments))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", EVENTS_VARIABLE: "1"},
    )
    errors: list[str] = []

    def read_errors() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if event := parse_event(line):
                reporter.event(event)
                continue
            errors.append(line.rstrip())
            reporter.message(f"  {line.rstrip()}")

    reader = threading.Thread(target=read_errors)
    reader.start()
    try:
        assert process.stdout is not None
        printed = process.stdout.read()
    except BaseException:
        process.terminate()
        raise
    finally:
        reader.join()
        code = process.wait()
    if code not in (0, GateRefused.exit_code):
        kind = BY_EXIT_CODE.get(code, RefitError)
        last = "\n".join(errors[-ERROR_LINES:])
        raise kind(f"refit {' '.join(arguments)} ended with exit code {code}:\n{last}")
    value: Mapping[str, Any] = json.loads(printed)
    return value
