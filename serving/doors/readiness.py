"""Whether the recommender wants requests, looked at once a second."""

import asyncio
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 1.0


class Readiness:
    """What both APIs, the health services and the supervisor say of a worker.

    A recommender that does not want requests says so in its status (``ready``), for example one
    that is behind its feeds. Towers that are down do not make it unready, because it answers.
    """

    def __init__(self) -> None:
        self.ready = True

    async def watch(self, status: Callable[[], dict[str, Any]]) -> None:
        """Look again and again; a status that cannot be had is not ready."""
        while True:
            try:
                # Not on the threads that answer: these may all be busy.
                found = await asyncio.to_thread(status)
                self.ready = bool(found.get("ready", True))
            except Exception:
                self.ready = False
            await asyncio.sleep(LOOK_SECONDS)
