"""A messenger that talks to itself: not encoded, in order, requests included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mpmsgr import Message, Messenger, RemoteError, RequestTimeout, SessionReset
from mpmsgr.messenger.loopback import LoopbackConnection
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    FAIL,
    PUSH,
    SILENT,
    Recorder,
    both_loops,
    pending,
    place,
    serving,
)


@asynccontextmanager
async def itself(
    dispatcher: Recorder | None = None,
) -> AsyncIterator[tuple[Messenger, LoopbackConnection]]:
    """A bound messenger, and its connection to itself."""
    async with serving(dispatcher) as server:
        con = server.get_connection(place(server))
        assert isinstance(con, LoopbackConnection)
        yield server, con


@both_loops
async def test_it_is_found_by_any_spelling_of_the_own_address() -> None:
    async with itself() as (server, con):
        assert server.get_connection(server.addr) is con
        assert server.get_connection(str(server.addr)) is con
        other = server.get_connection(f"{place(server)}/{server.addr.nonce ^ 1}")
        assert not isinstance(other, LoopbackConnection)
        other.mark_down()


@both_loops
async def test_what_it_is() -> None:
    async with itself() as (server, con):
        assert (con.peer_addr, con.my_addr) == (server.addr, server.addr)
        assert (str(con.peer_name), con.is_connected) == ("svc.?", True)
        con.mark_down()
        assert con.is_connected


@both_loops
async def test_a_request() -> None:
    async with itself() as (server, con):
        asked = Message(ECHO, b"f", b"m", b"d")
        reply = await con.request(asked, timeout=5)
        assert (reply.front, reply.middle, reply.data) == (b"f", b"m", b"d")
        assert (reply.tid, reply.src, reply.nonce) == (asked.tid, server.name, server.addr.nonce)


@both_loops
async def test_messages_are_dispatched_in_order() -> None:
    seen = Recorder()
    async with itself(seen) as (_, con):
        for i in range(100):
            con.send_message(Message(SILENT, b"%d" % i))
        assert seen.messages == [], "in the next turn of the loop"
        await eventually_async(lambda: len(seen.messages) == 100)
        assert [m.front for m in seen.messages] == [b"%d" % i for i in range(100)]


@both_loops
async def test_errors() -> None:
    async with itself() as (_, con):
        with pytest.raises(RemoteError, match="as it was told"):
            await con.request(Message(FAIL), timeout=5)
        with pytest.raises(RequestTimeout, match=r"\(session open\)"):
            await con.request(Message(SILENT), timeout=0.02)


@both_loops
async def test_pushes() -> None:
    class Pushes(Recorder):
        def dispatch(self, con: object, m: Message) -> None:
            assert isinstance(con, LoopbackConnection)
            con.send_message(Message(PUSH, m.front))

    async with itself(Pushes(SILENT)) as (_, con):
        pushes = con.messages(PUSH)
        con.send_message(Message(SILENT, b"1"))
        assert (await asyncio.wait_for(anext(pushes), 5)).front == b"1"


@both_loops
async def test_a_pending_request_ends_with_the_messenger() -> None:
    async with itself() as (server, con):
        waiting = asyncio.ensure_future(con.request(Message(SILENT)))
        stream = asyncio.ensure_future(anext(con.messages(PUSH)))
        await eventually_async(lambda: pending(con))
        await server.shutdown()
        for task in (waiting, stream):
            with pytest.raises(SessionReset):
                await asyncio.wait_for(task, 5)
        assert (con.is_connected, con.send_message(Message(ECHO))) == (False, False)
        with pytest.raises(SessionReset):
            await con.request(Message(ECHO), timeout=5)
