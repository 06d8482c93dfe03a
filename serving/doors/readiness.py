"""Whether the recommender wants requests, looked at once a second."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from refit.progress import log_message

LOOK_SECONDS = 1.0


@dataclass
class Readiness:
    """What both APIs, the health services and the supervisor say of a worker.

    A recommender does not want requests while, for example, it is behind its feeds. Towers that are
    down do not make it unready, because it answers.

    Attributes:
        ready: What it said last; not ready before it was asked.
    """

    ready: bool = False

    async def watch(self, is_ready: Callable[[], bool]) -> None:
        """Look again and again; one that cannot say it is not ready.

        Args:
            is_ready: Says it at once, waiting for nothing.
        """
        told = ""
        while True:
            try:
                self.ready = is_ready()
                told = ""
            except Exception as error:
                self.ready, why = False, f"{type(error).__name__}: {error}"
                if why != told:
                    log_message(f"not ready, the recommender cannot say: {why}")
                told = why
            await asyncio.sleep(LOOK_SECONDS)
