"""One line of the data's health page: what was measured, whether it is ok, and what to do."""

from collections.abc import Iterable
from typing import Literal

from refit.settings import Settings

HealthState = Literal["ok", "look", "stop"]
"""``look``: a person should read the line; ``stop``: the run does not continue."""


class HealthCheck(Settings):
    """One line of the health page.

    Attributes:
        topic: Groups lines: a table (``events``, ``items``, ``users``) or ``assumptions``.
        name: What was measured, such as ``events without a known item``.
        shown: The measurement as a reader sees it, such as ``1,204 of 80,000 (1.5%)``.
        measured: The number that is compared with the thresholds; None: nothing is compared.
        look, stop: From which value on the state is ``look`` or ``stop``; None: never.
        advice: What it means for the following steps, or what to do about it.
        setting: The name of its thresholds in ``ingestion.health``; empty where none is theirs.
    """

    topic: str
    name: str
    shown: str
    measured: float | None = None
    look: float | None = None
    stop: float | None = None
    advice: str = ""
    setting: str = ""

    @property
    def state(self) -> HealthState:
        """The state by the thresholds; a threshold without a measurement gives ``look``."""
        if self.measured is None:
            return "ok" if self.look is None and self.stop is None else "look"
        if self.stop is not None and self.measured >= self.stop:
            return "stop"
        return "look" if self.look is not None and self.measured >= self.look else "ok"

    def __str__(self) -> str:
        advice = f": {self.advice}" if self.advice and self.state != "ok" else ""
        return f"{self.state}  {self.topic}: {self.name}: {self.shown}{advice}"


def count_share(n: int, total: int) -> str:
    """A count and its share, as the health page shows them."""
    return f"{n:,} of {total:,} ({n / total:.1%})" if total else f"{n:,} of 0"


def stopping(checks: Iterable[HealthCheck]) -> tuple[HealthCheck, ...]:
    """The lines that stop a run."""
    return tuple(check for check in checks if check.state == "stop")


def summarize_health(checks: Iterable[HealthCheck]) -> list[str]:
    """The lines that are not ok, the worst first, after one line that counts all."""
    by_state: dict[HealthState, list[HealthCheck]] = {"stop": [], "look": [], "ok": []}
    for check in checks:
        by_state[check.state].append(check)
    counts = [f"{len(found)} {name}" for name, found in by_state.items() if found]
    worst = (*by_state["stop"], *by_state["look"])
    return [f"health of the data: {', '.join(counts) or 'not checked'}", *(f"  {c}" for c in worst)]
