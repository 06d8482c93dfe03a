"""Find free TCP ports, and check that a wanted one is free."""

import random
import socket
from collections.abc import Collection
from itertools import islice

from refit.errors import UsageError

FIRST, LAST = 15_000, 29_999
"""Below the ports of Kubernetes' services, and of outgoing connections (Linux: from 32,768),
which could take a port before its server does."""


def free_port(host: str = "127.0.0.1") -> int:
    """Find a port that no process listens on."""
    (port,) = free_ports(1, host)
    return port


def free_ports(
    count: int, host: str = "127.0.0.1", besides: Collection[int] = ()
) -> tuple[int, ...]:
    """Find ports that no process listens on, drawn at random, all different, none of ``besides``.

    Raises:
        UsageError: There are not so many.
    """
    drawn = random.SystemRandom().sample(range(FIRST, LAST + 1), LAST + 1 - FIRST)
    candidates = (port for port in drawn if port not in besides and _is_free(port, host))
    found = list(islice(candidates, count))
    if len(found) < count:
        raise UsageError(f"no {count} ports from {FIRST} to {LAST} are free on {host}")
    return tuple(found)


def _is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


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
