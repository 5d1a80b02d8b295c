"""Who is who: host names, nonces, addresses behind NAT and port maps."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import mpmsgr
from mpmsgr import ConfigError, ConnectError, Message, Messenger
from tests.fault_proxy import FaultProxy, Kind, proxy_in_thread
from tests.loopback import HOST
from tests.unit.messenger_peers import (
    ECHO,
    both_loops,
    client,
    connected,
    pair,
    peer,
    place,
    server_side,
    serving,
)

#: A forwarder that breaks nothing.
NEVER = 1 << 60


@asynccontextmanager
async def forwarder(**options: object) -> AsyncIterator[tuple[Messenger, str]]:
    """A server and the place of a port map in front of it."""
    proxy = FaultProxy(None, 1, mean_bytes=NEVER, kinds=(Kind.CUT,))
    with proxy_in_thread(proxy) as (host, port):
        async with serving(**options) as server:  # type: ignore[arg-type]
            proxy.target = (server.addr.host, server.addr.port)
            yield server, f"{host}:{port}"


# nonces


@both_loops
async def test_an_address_without_a_nonce_takes_the_one_that_is_announced() -> None:
    async with serving(nonce=77) as server, client() as messenger:
        con = await connected(messenger, place(server))
        assert str(con.peer_addr) == f"{place(server)}/77"


@both_loops
async def test_the_right_nonce() -> None:
    async with serving(nonce=77) as server, client() as messenger:
        con = await connected(messenger, f"{place(server)}/77")
        assert con.peer_addr.nonce == 77


@both_loops
async def test_another_nonce_is_another_peer() -> None:
    async with serving(nonce=77) as server, client() as messenger:
        con = peer(messenger, f"{place(server)}/78")
        with pytest.raises(ConnectError) as raised:
            await con.wait_connected(0.3)
        assert raised.value.cause == (
            f"handshake refused with wrong peer: nonce 78 wanted, it announces {server.addr}"
        )
        con.mark_down()


@both_loops
async def test_each_client_has_a_nonce_of_its_own() -> None:
    async with serving() as server, client() as one, client() as two:
        for messenger in (one, two):
            con = await connected(messenger, place(server))
            assert con.handshake is not None
            assert con.handshake.own.nonce == messenger.addr.nonce
            assert str(messenger.addr).startswith("127.0.0.1:0/"), "learned from the server"
        assert one.addr.nonce != two.addr.nonce
        assert len(server.endpoint.registry) == 2


# host names


@both_loops
async def test_a_host_name() -> None:
    async with serving(bind="127.0.0.1:0") as server, client() as messenger:
        con = await connected(messenger, f"localhost:{server.addr.port}")
        assert con.peer_addr == server.addr
        assert bytes((await con.request(Message(ECHO, b"x"), timeout=5)).front) == b"x"


@both_loops
async def test_a_server_bound_to_a_host_name() -> None:
    async with serving(bind="localhost:0") as server, client() as messenger:
        await connected(messenger, f"localhost:{server.addr.port}")


# behind a port map


@both_loops
async def test_another_address_than_dialled_is_refused() -> None:
    async with forwarder() as (server, mapped), client() as messenger:
        con = peer(messenger, mapped)
        with pytest.raises(ConnectError) as raised:
            await con.wait_connected(0.3)
        assert raised.value.cause == (
            f"handshake refused with wrong peer: dialled {mapped}, it announces {server.addr}"
        )
        con.mark_down()


@both_loops
async def test_unless_the_client_does_not_mind() -> None:
    async with forwarder() as (server, mapped), client() as messenger:
        con = await connected(messenger, mapped, verify_address=False)
        assert con.peer_addr == server.addr
        assert bytes((await con.request(Message(ECHO, b"x"), timeout=5)).front) == b"x"


@both_loops
async def test_connect_takes_verify_address_along() -> None:
    async with (
        forwarder() as (_, mapped),
        mpmsgr.connect(mapped, timeout=5, verify_address=False) as con,
    ):
        await con.request(Message(ECHO), timeout=5)


@both_loops
async def test_a_server_that_advertises_the_port_map() -> None:
    proxy = FaultProxy(None, 1, mean_bytes=NEVER, kinds=(Kind.CUT,))
    with proxy_in_thread(proxy) as (host, port):
        async with serving(advertise=f"{host}:{port}") as server, client() as messenger:
            (listener,) = server.binding.accepters[0]._listeners
            proxy.target = listener.getsockname()
            con = await connected(messenger, f"{host}:{port}")
            assert (con.peer_addr, place(server)) == (server.addr, f"{host}:{port}")
            await con.request(Message(ECHO), timeout=5)


@both_loops
async def test_a_name_may_be_advertised() -> None:
    async with serving(advertise="localhost:6789") as server:
        assert place(server) in ("127.0.0.1:6789", "[::1]:6789")


@pytest.mark.parametrize("text", ["nonsense:x", "no-such-host.invalid:1"])
def test_what_cannot_be_advertised(text: str) -> None:
    with pytest.raises(ConfigError, match="must be HOST:PORT that resolves") as raised:
        Messenger("svc.0", advertise=text)
    assert (raised.value.field, raised.value.value) == ("advertise", text)


@both_loops
async def test_a_wildcard_address_is_announced_as_what_the_client_dialled() -> None:
    async with serving(bind="0.0.0.0:0") as server, client() as messenger:
        con = await connected(messenger, f"127.0.0.1:{server.addr.port}")
        assert con.handshake is not None
        assert con.handshake.announced.host == "127.0.0.1"


@both_loops
async def test_a_service_that_moved_is_another_incarnation() -> None:
    async with pair() as (server, con):
        nonce = server.addr.nonce
        where = await server.rebind()
        assert where.nonce == (nonce + 1_000_000) & 0xFFFFFFFF
        async with client() as messenger:
            again = await connected(messenger, place(server))
            assert again.peer_addr == where
            await again.request(Message(ECHO), timeout=5)
        con.mark_down()


# two services


@both_loops
async def test_two_services_that_call_each_other_share_a_session() -> None:
    async with serving() as one, serving() as two:
        there = await connected(one, str(two.addr))
        await there.request(Message(ECHO), timeout=5)
        back = two.get_connection(str(one.addr))
        assert back.id == server_side(two).id
        reply = await back.request(Message(ECHO, b"x"), timeout=5)
        assert bytes(reply.front) == b"x"
        assert (len(one.endpoint.registry), len(two.endpoint.registry)) == (1, 1)


@both_loops
async def test_services_that_call_at_the_same_time_share_a_session_too() -> None:
    async with serving() as one, serving() as two:
        ends = [one.get_connection(two.addr), two.get_connection(one.addr)]
        for i, con in enumerate(ends):
            reply = await con.request(Message(ECHO, b"%d" % i), timeout=10)
            assert bytes(reply.front) == b"%d" % i
        assert (len(one.endpoint.registry), len(two.endpoint.registry)) == (1, 1)


@both_loops
async def test_a_peer_that_is_no_messenger() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        listener.setblocking(False)
        async with client() as messenger:
            con = peer(messenger, f"{HOST}:{port}")
            other, _ = await asyncio.get_running_loop().sock_accept(listener)
            other.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            with pytest.raises(ConnectError, match="banner"):
                await con.wait_connected(0.3)
            con.mark_down()
            other.close()
