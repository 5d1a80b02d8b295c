"""The rest of a messenger's calls (dispatch spec §8), and of a connection's members (§7)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mpmsgr import Connection, EntityAddr, Message, Messenger
from mpmsgr.wire.features import SUPPORTED
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    PUSH,
    SILENT,
    Recorder,
    both_loops,
    client,
    connected,
    pair,
    place,
    server_side,
    serving,
)

_FOREIGN = 1 << 54


@both_loops
async def test_a_message_to_an_address() -> None:
    seen = Recorder()
    async with serving(seen) as server, client() as messenger:
        assert messenger.send_message(Message(SILENT, b"1"), place(server))
        await eventually_async(lambda: seen.messages)
        assert messenger.send_message(Message(SILENT, b"2"), server.addr, "svc")
        await eventually_async(lambda: len(seen.messages) == 2)
        assert len(messenger.endpoint.registry) == 1
        assert server.send_message(Message(SILENT, b"to myself"), server.addr)
        await eventually_async(lambda: len(seen.messages) == 3)
        with pytest.raises(ValueError, match="must be HOST:PORT"):
            messenger.send_message(Message(SILENT), "nowhere")


@both_loops
async def test_the_loopback_needs_no_address() -> None:
    async with client() as messenger:
        messenger.add_dispatcher_tail(Recorder())
        con = messenger.get_loopback_connection()
        assert messenger.get_loopback_connection() is con
        assert (await con.request(Message(ECHO, b"x"), timeout=5)).front == b"x"


@both_loops
async def test_mark_down_by_address() -> None:
    seen = Recorder()
    async with serving(seen) as server, client() as messenger:
        mine = Recorder()
        messenger.add_dispatcher_tail(mine)
        con = await connected(messenger, place(server))
        messenger.mark_down("127.0.0.1:1")  # nobody there
        messenger.mark_down(place(server))
        await eventually_async(lambda: mine.events == ["connect", "reset"])
        assert con.failed
        again = await connected(messenger, place(server))
        there = server_side(server)
        server.mark_down(there.peer_addr)  # known by its whole address only: it does not listen
        await eventually_async(lambda: seen.events.count("reset") == 1)
        assert (there.failed, again.failed) == (True, False)


@both_loops
async def test_a_reset_of_a_session_that_was_never_announced() -> None:
    seen = Recorder()
    async with serving() as server, client() as messenger:
        nobody = f"{place(server)}/{server.addr.nonce ^ 1}"
        messenger.add_dispatcher_tail(seen)
        con = messenger.get_connection(nobody)
        messenger.mark_down(nobody)
        await eventually_async(lambda: seen.events)
        assert (seen.events, seen.cons, con.failed) == (["reset"], [con], True)


@both_loops
async def test_mark_down_all() -> None:
    seen = Recorder()
    async with serving(seen) as server, client() as one, client() as two:
        cons = [await connected(each, place(server)) for each in (one, two)]
        server.mark_down_all()
        await eventually_async(lambda: seen.events.count("reset") == 2)
        await eventually_async(lambda: all(con.last_reset and con.is_connected for con in cons))


@both_loops
async def test_wait_returns_when_somebody_has_shut_it_down() -> None:
    tasks: list[asyncio.Task[int]] = []

    class Ends(Recorder):
        def dispatch(self, con: Any, m: Message) -> None:
            tasks.append(asyncio.ensure_future(con.messenger.shutdown()))
            con.send_message(m.reply(b"as you like"))

    async with serving(Ends()) as server, client() as messenger:
        waiting = asyncio.ensure_future(server.wait())
        con = await connected(messenger, place(server))
        assert (await con.request(Message(SILENT), timeout=5)).front == b"as you like"
        await asyncio.wait_for(waiting, 5)
        assert server.closed
        assert await tasks[0] == 0
    await server.wait()
    never = Messenger("client.?")
    await never.shutdown()
    await asyncio.wait_for(never.wait(), 5)


@both_loops
async def test_priorities() -> None:
    seen = Recorder()
    async with serving(seen, send_priority=196) as server, client() as messenger:
        con = await connected(messenger, place(server))
        pushes = con.messages(PUSH)
        reply = await con.request(Message(ECHO), timeout=5)
        assert (seen.messages[0].priority, reply.priority) == (127, 127)
        server_side(server).send_message(Message(PUSH))
        server_side(server).send_message(Message(PUSH, priority=64))
        assert [(await anext(pushes)).priority for _ in range(2)] == [196, 64]
        server.get_loopback_connection().send_message(Message(SILENT))
        await eventually_async(lambda: len(seen.messages) == 2)
        assert seen.messages[1].priority == 196


@both_loops
async def test_counts() -> None:
    async with serving(Recorder(ECHO)) as server, client() as messenger:
        con = await connected(messenger, place(server))
        for _ in range(3):
            con.send_message(Message(SILENT))
        await con.request(Message(ECHO), timeout=5)
        found = server.statistics()
        assert (found["sessions"], found["unhandled"], found["fast_dispatched"]) == (1, 3, 0)
        assert Messenger("client.?").statistics()["unhandled"] == 0


# connections


@both_loops
async def test_members_of_a_connection() -> None:
    async with pair() as (server, con):
        there = server_side(server)
        for one, kind, number in ((con, "svc", 0x40), (there, "client", 8)):
            assert one.peer_is(kind)
            assert one.peer_is(number)
            assert not one.peer_is("mon")
            assert one.features == SUPPORTED
            assert one.has_feature(SUPPORTED | _FOREIGN)
            assert not one.has_features(SUPPORTED | _FOREIGN)
            assert not one.has_feature(_FOREIGN)
            assert (one.is_connected, one.failed, one.last_keepalive) == (True, False, None)
        with pytest.raises(ValueError, match="entity type 'cat'"):
            con.peer_is("cat")
        before = server.now()
        await con.ping(5)
        assert there.last_keepalive is not None
        assert before <= there.last_keepalive <= server.now()
        assert con.last_keepalive_ack is not None
        assert con.last_keepalive is None
        con.mark_down()
        assert (con.failed, con.is_connected, con.features) == (True, False, SUPPORTED)


@both_loops
async def test_one_that_never_was() -> None:
    async with serving() as server:
        for id_ in (0, 999):
            con: Connection = server.connection(id_)
            assert (con.id, con.failed, con.is_connected, con.features) == (id_, True, False, 0)
            assert con.peer_addr == EntityAddr()
            assert not con.send_message(Message(PUSH))
            assert not await con.send(Message(PUSH))
            con.mark_down()
            con.mark_disposable()
            con.send_keepalive()
            con.group("all").join()
            con.group("all").send(Message(PUSH))
            assert server.group("all")._groups.members == {}  # type: ignore[attr-defined]
        assert len(server.endpoint.registry) == 0
