"""Where a messenger listens: ports, ranges, IPv6, host names; what stands in the way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from mpmsgr import ConfigError, ConnectError, Message, Messenger
from mpmsgr.messenger.accepter import bind_sockets, parse_bind
from mpmsgr.wire.address import AF_INET6
from tests.unit.messenger_peers import (
    ECHO,
    Recorder,
    both_loops,
    client,
    connected,
    pair,
    peer,
    place,
    serving,
)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback on this machine")


@contextmanager
def taken(*ports: int) -> Iterator[list[int]]:
    """So many ports of the loopback in use; 0 is any."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", port))) for port in ports]
        yield [sock_port(sock) for sock in sockets]


def free_range(size: int) -> range:
    """So many ports in a row that nobody uses."""
    for first in range(20000, 30000, size):  # below the ports of outgoing connections
        ports = range(first, first + size)
        with suppress(OSError), taken(*ports):
            return ports
    raise AssertionError("no free ports")


def sock_port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def bound(*binds: str, avoid: tuple[int, ...] = ()) -> list[int]:
    """The ports that `bind_sockets` chose."""
    sockets = bind_sockets(list(binds), avoid)
    ports = [sock_port(sock) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


# texts


@pytest.mark.parametrize(
    ("text", "host", "ports"),
    [
        ("127.0.0.1:6800", "127.0.0.1", range(6800, 6801)),
        ("localhost:1-3", "localhost", range(1, 4)),
        ("[::1]:7", "::1", range(7, 8)),
        ("[::1]:7-9", "::1", range(7, 10)),
        ("127.0.0.1:0", "127.0.0.1", range(6800, 7301)),
        ("127.0.0.1:65535", "127.0.0.1", range(65535, 65536)),
    ],
)
def test_what_is_a_bind(text: str, host: str, ports: range) -> None:
    assert parse_bind(text) == (host, ports)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":6800",
        "h:x",
        "h:1-",
        "h:-1",
        "h:3-1",
        "h:0-5",
        "h:65536",
        "h:1-65536",
        "::1:5",
        "h:1-2-3",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_bind(text)
    assert (raised.value.field, raised.value.value) == ("bind", text)


# ports


def test_the_first_free_port_of_a_range() -> None:
    ports = free_range(4)
    text = f"127.0.0.1:{ports[0]}-{ports[-1]}"
    assert bound(text) == [ports[0]]
    with taken(ports[0], ports[1]):
        assert bound(text) == [ports[2]]
        assert bound(text, avoid=(ports[2],)) == [ports[3]]
        assert bound(text, text) == [ports[2], ports[3]]


def test_a_range_without_a_free_port() -> None:
    ports = free_range(2)
    text = f"127.0.0.1:{ports[0]}-{ports[1]}"
    with taken(*ports), pytest.raises(ConfigError) as raised:
        bind_sockets([text])
    assert str(raised.value) == (
        f"bind = '{text}': 127.0.0.1 port {ports[0]}-{ports[1]}: Address already in use"
    )
    with pytest.raises(ConfigError, match="every port is to be avoided"):
        bind_sockets([text], ports)


def test_a_port_in_use_leaves_none_behind() -> None:
    with taken(0) as (port,), pytest.raises(ConfigError, match=f"port {port}: Address already in"):
        bind_sockets(["127.0.0.1:0", f"127.0.0.1:{port}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no-such-host.invalid:1", "no-such-host.invalid cannot be resolved"),
        ("203.0.113.7:0", "Cannot assign requested address"),
    ],
)
def test_hosts_one_cannot_listen_on(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bind_sockets([text])


@both_loops
async def test_the_port_of_a_server_that_ended_can_be_taken_at_once() -> None:
    async with pair() as (server, con):
        where = place(server)
        await con.request(Message(ECHO), timeout=5)
    # The server closed first: its side of the connection is in TIME_WAIT now.
    with closing(bind_sockets([where])[0]) as again:
        assert where.endswith(f":{sock_port(again)}")


# messengers


@both_loops
async def test_several_places() -> None:
    async with Messenger("svc.0", drain_s=0.5) as server, client() as messenger:
        server.add_dispatcher_tail(Recorder())
        first, second = free_range(2)
        addr = await server.bind(f"127.0.0.1:{first}", f"127.0.0.1:{second}")
        assert (addr.port, server.addr) == (first, addr)
        for port in (first, second):
            con = await connected(messenger, f"127.0.0.1:{port}")
            assert con.peer_addr == addr._replace(port=port)
            await con.request(Message(ECHO), timeout=5)


@needs_ipv6
@both_loops
async def test_ipv6() -> None:
    async with serving(bind="[::1]:0") as server, client() as messenger:
        assert server.addr.family == AF_INET6
        assert place(server).startswith("[::1]:")
        con = await connected(messenger, place(server))
        assert con.peer_addr == server.addr
        assert con.handshake is not None
        assert str(con.handshake.seen).startswith("[::1]:")
        await con.request(Message(ECHO), timeout=5)


@needs_ipv6
def test_ipv6_leaves_ipv4_alone() -> None:
    (port,) = free_range(1)
    assert bound(f"[::1]:{port}", f"127.0.0.1:{port}") == [port, port]


@both_loops
async def test_nothing_is_accepted_before_there_is_a_dispatcher() -> None:
    async with Messenger("svc.0", drain_s=0.5) as server, client() as messenger:
        await server.bind("127.0.0.1:0")
        con = peer(messenger, place(server))
        with pytest.raises(ConnectError):
            await con.wait_connected(0.05)
        assert server.statistics()["accepted"] == 0
        server.add_dispatcher_tail(Recorder())
        await con.request(Message(ECHO), timeout=5)


@both_loops
async def test_a_second_messenger_in_one_place() -> None:
    async with serving() as server, Messenger("svc.1") as second:
        with pytest.raises(ConfigError, match="Address already in use"):
            await second.bind(place(server))


@both_loops
async def test_a_stopped_server_refuses_connections() -> None:
    async with serving() as server:
        host, port = server.addr.host, server.addr.port
        await server.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=5)
