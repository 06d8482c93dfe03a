import socket

import pytest

from refit.errors import UsageError
from refit.ports import check_port, free_port, free_ports


def test_no_free_port_is_given_twice():
    # Asked one by one, some of these would be the same.
    assert len(set(free_ports(500))) == 500


def test_a_port_that_has_a_use_already_is_not_given():
    (port,) = free_ports(1, besides=[port for port in range(2**16) if port % 4])
    assert port % 4 == 0


def test_a_port_in_use_is_reported_with_its_setting():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} for REST .* set http_port"):
            check_port(port, "REST", "http_port")
    check_port(free_port(), "REST", "http_port")
