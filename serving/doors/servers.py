"""Uvicorn servers that leave signals and logging to their process."""

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any

import uvicorn


class QuietServer(uvicorn.Server):
    """A server that is stopped by ``stop``, not by signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Stop it; called on its event loop."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        """Wait for ``stop``; Uvicorn's own looks ten times a second."""
        await self.on_tick(0)
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield


def quiet_config(app: Any, **options: Any) -> uvicorn.Config:
    """A configuration without logging set-up, access log, lifespan, WebSockets and own headers."""
    return uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        **options,
    )


def health_config(app: Any) -> uvicorn.Config:
    """Of a server for probes and metrics."""
    return quiet_config(app, timeout_keep_alive=75, timeout_graceful_shutdown=1)
