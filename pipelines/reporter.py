"""Who is shown how a run goes: what the runner and the demo report to."""

from typing import Protocol

from refit.progress import Event


class Reporter(Protocol):
    """Shows progress to a user; ``pipelines.cli.live`` has those for terminals and pipes."""

    def message(self, text: str) -> None:
        """Show one line about what happens now."""
        ...

    def milestone(self, text: str) -> None:
        """Show one line that stays on the screen."""
        ...

    def event(self, event: Event) -> None:
        """Show how far a step or a piece of work is."""
        ...


class SilentReporter:
    """Shows nothing."""

    def message(self, text: str) -> None:
        """Drop the line."""

    def milestone(self, text: str) -> None:
        """Drop the line."""

    def event(self, event: Event) -> None:
        """Drop the event."""


SILENT: Reporter = SilentReporter()
