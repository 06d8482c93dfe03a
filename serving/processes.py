"""Start, watch and end child processes, each in its own process group."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from refit.errors import ServiceUnreachable, UsageError
from refit.parent_watch import ParentWatch, signal_group

PROJECT = Path(__file__).resolve().parent.parent
"""The folder with Refit's packages."""
TERM_SECONDS = 10.0
TAIL_LINES = 15


class Process:
    """A child process with its output in a file; it ends with this process, even if that is killed.

    Args:
        name: Its name in messages.
        command: Program and arguments.
        log: File that its output is appended to.
        variables: Environment variables in addition to those of this process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        self._watch = ParentWatch()
        # Installed packages are not shared: the other environment has its own copy.
        ours = "" if PROJECT.name == "site-packages" else str(PROJECT)
        paths = [ours, os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **(variables or {}),
        }
        try:
            with log.open("ab") as output:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            self._watch.close()
            raise UsageError(f"cannot start the {name}: {error}") from None
        self._watch.watch(self.pid)

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._child.pid

    def is_running(self) -> bool:
        """Whether the process itself is running."""
        return self._child.poll() is None

    def output(self) -> str:
        """The output of the process since its start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def tail(self) -> str:
        """The last lines of its output, for an error message."""
        lines = self.output().splitlines()[-TAIL_LINES:]
        return "\n".join([f"last lines of {self.log}:", *(f"  {line}" for line in lines)])

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until ``is_ready`` returns true.

        Raises:
            ServiceUnreachable: The process ended, or was not ready in time.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            if not self.is_running():
                code = self._child.returncode
                raise ServiceUnreachable(f"the {self.name} ended with code {code}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServiceUnreachable(
                    f"the {self.name} was not ready after {seconds:.0f} s\n{self.tail()}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End the process group with SIGTERM, then after a timeout with SIGKILL; safe to repeat."""
        if signal_group(self.pid, signal.SIGTERM):
            deadline = time.monotonic() + TERM_SECONDS
            while signal_group(self.pid, 0) and time.monotonic() < deadline:
                self._child.poll()
                time.sleep(0.05)
            signal_group(self.pid, signal.SIGKILL)
        self._child.wait()
        self._watch.close()  # until here a kill of this process must end the group
