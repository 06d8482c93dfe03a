"""Whether the recommender wants requests, looked at once a second."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refit.progress import log_message

LOOK_SECONDS = 1.0


@dataclass
class Readiness:
    """What both APIs, the health services and the supervisor say of a worker.

    A recommender that does not want requests says so in its status (``ready``), for example one
    that is behind its feeds. Towers that are down do not make it unready, because it answers.

    Attributes:
        ready: What it said last; not ready before it was asked.
    """

    ready: bool = False

    async def watch(self, status: Callable[[], dict[str, Any]]) -> None:
        """Look again and again; a status that cannot be had, or does not say it, is not ready."""
        told = ""
        while True:
            try:
                # Not on the threads that answer: these may all be busy.
                self.ready = bool((await asyncio.to_thread(status))["ready"])
                told = ""
            except Exception as error:
                self.ready, why = False, f"{type(error).__name__}: {error}"
                if why != told:
                    log_message(f"not ready, the status cannot be had: {why}")
                told = why
            await asyncio.sleep(LOOK_SECONDS)
