"""TCP_INFO: the fields of the kernel's structure, whole or cut."""

from __future__ import annotations

import socket
import sys

import pytest

from mpmsgr.messenger.tcp_info import parse_tcp_info, read_tcp_info
from tests.loopback import HOST

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


def test_fields_are_where_the_kernel_has_them() -> None:
    data = bytearray(168)
    memoryview(data).cast("I")[68 // 4] = 1500
    memoryview(data).cast("Q")[128 // 8] = 1 << 40
    found = parse_tcp_info(bytes(data))
    assert (found["rtt_us"], found["received_bytes"], found["cwnd"]) == (1500, 1 << 40, 0)


def test_an_older_kernel_tells_less() -> None:
    assert set(parse_tcp_info(bytes(104))) == {"rtt_us", "rttvar_us", "cwnd", "retransmits_total"}
    assert parse_tcp_info(b"") == {}


def test_a_real_connection() -> None:
    with socket.create_server((HOST, 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            client.sendall(b"x" * 1000)
            assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
            assert read_tcp_info(server)["received_bytes"] == 1000
            assert read_tcp_info(client)["cwnd"] > 0


def test_a_socket_that_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert read_tcp_info(one) == {}
