"""The demo types the same commands that a person would."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refit.errors import BY_EXIT_CODE, GateRefused, RefitError


def run_command(
    arguments: Sequence[str], on_line: Callable[[str], None], log: Callable[[str], None]
) -> Mapping[str, Any]:
    """Run ``refit ... --json`` and return what it printed.

    Args:
        arguments: Without ``refit`` and ``--json``.
        on_line: Gets each line of progress.
        log: Gets the command as a person would type it.

    Raises:
        RefitError: The command failed; a refusal by a gate is no failure, its JSON is returned.
    """
    log("$ refit " + " ".join(arguments))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    errors: list[str] = []

    def read_errors() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            errors.append(line.rstrip())
            on_line(line.rstrip())

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
        raise kind(f"refit {' '.join(arguments)} ended with {code}:\n" + "\n".join(errors[-12:]))
    value: Mapping[str, Any] = json.loads(printed)
    return value
