"""A baseline that states that it cannot run."""

from typing import Any

from components.evaluation.tuning import NotRun, Tuned


class _Silent:
    NAME = "silent"
    NEEDS = ()

    def tune(self, validation: Any, options: Any) -> Tuned | NotRun:
        return NotRun("it has nothing to count")


SILENT = _Silent()
