"""Serve the review application until it is ended."""

import socket
from collections.abc import Callable
from typing import Any

from refit.errors import UsageError


def serve(app: Any, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve an application.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        ready: Told the URL once the port is open.

    Raises:
        UsageError: The address or port cannot be used.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: {error.strerror}; give another --port"
            ) from None
        opened.listen(128)  # requests wait from now on, until the application has started
        name = f"[{host}]" if family == socket.AF_INET6 else host
        ready(f"http://{name}:{opened.getsockname()[1]}/")
        config = uvicorn.Config(
            app,
            # Nobody but the settings says whose headers are believed.
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[opened])
