import socket

import pytest

from refit import ports
from refit.errors import UsageError
from refit.ports import FIRST, LAST, check_port, free_port, free_ports


def test_free_ports_are_different_and_no_outgoing_connection_takes_them():
    found = free_ports(500)
    assert len(set(found)) == 500
    assert FIRST <= min(found) <= max(found) <= LAST


def test_a_port_that_has_a_use_already_is_not_given(monkeypatch):
    monkeypatch.setattr(ports, "FIRST", LAST - 3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", LAST - 1))
        assert set(free_ports(2, besides=[LAST])) == {LAST - 3, LAST - 2}
        with pytest.raises(UsageError, match="no 3 ports"):
            free_ports(3, besides=[LAST])


def test_a_port_in_use_is_reported_with_its_setting():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} for REST .* set http_port"):
            check_port(port, "REST", "http_port")
    check_port(free_port(), "REST", "http_port")
