"""Find free TCP ports, and check that a wanted one is free."""

import socket
from collections.abc import Collection
from contextlib import ExitStack

from refit.errors import UsageError


def free_port(host: str = "127.0.0.1") -> int:
    """Find a port that no process listens on."""
    (port,) = free_ports(1, host)
    return port


def free_ports(
    count: int, host: str = "127.0.0.1", besides: Collection[int] = ()
) -> tuple[int, ...]:
    """Find ports that no process listens on, each another, and none of ``besides``."""
    found: list[int] = []
    with ExitStack() as held:  # a port that is let go may be given a second time
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
            if port not in besides:
                found.append(port)
    return tuple(found)


def check_port(port: int, what: str, setting: str, host: str = "0.0.0.0") -> None:
    """Check that a port is free.

    Raises:
        UsageError: The port is in use.
    """
    with socket.socket() as probe:
        # As servers do, so that a recently closed connection does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"port {port} for {what} cannot be used ({error.strerror}); stop the process "
                f"that uses it, or set {setting} to another port, or to 0 for a free one"
            ) from None
