"""Pushed messages: streams of a type, dispatchers for the rest, until the session ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import mpmsgr
from mpmsgr import Message, Messenger, SessionReset, message
from mpmsgr.dispatch import payload
from mpmsgr.messenger import stream as stream_module
from mpmsgr.messenger.connection import MessengerConnection
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


@pytest.fixture(autouse=True)
def _classes_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_classes", {})


@asynccontextmanager
async def pushing() -> AsyncIterator[tuple[MessengerConnection, MessengerConnection]]:
    """Both ends of a session: the server's, the client's."""
    async with pair() as (server, con):
        await eventually_async(lambda: len(server.endpoint.registry))
        yield server_side(server), con


async def take(stream: Any, count: int) -> list[Any]:
    return [await anext(stream) for _ in range(count)]


@both_loops
async def test_pushes_come_in_order() -> None:
    async with pushing() as (server, con):
        pushes = con.messages(PUSH)
        for i in range(500):
            server.send_message(Message(PUSH, b"%d" % i))
        got = await take(pushes, 500)
        assert [bytes(m.front) for m in got] == [b"%d" % i for i in range(500)]
        assert len({m.tid for m in got}) == 500, "every push has a name of its own"


@both_loops
async def test_objects_come_as_objects() -> None:
    @message(0x9101)
    @dataclass
    class Alarm:
        text: str

    async with pushing() as (server, con):
        alarms = con.messages(Alarm)
        assert con.messages(0x9101) is alarms
        server.send_message(Alarm("fire"))
        assert await take(alarms, 1) == [Alarm("fire")]


@pytest.mark.parametrize("front", [b"", b"\xc1", b"\x81\x90\x01", b"\x80"])
@both_loops
async def test_a_push_that_does_not_fit_is_passed_over(
    front: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    @message(0x9101)
    @dataclass
    class Alarm:
        text: str

    async with pushing() as (server, con):
        alarms = con.messages(Alarm)
        server.send_message(Message(0x9101, front))
        server.send_message(Alarm("fire"))
        assert await take(alarms, 1) == [Alarm("fire")]
        assert con.is_connected
        assert "payload of message type 0x9101" in caplog.text


@both_loops
async def test_what_no_stream_takes_goes_to_dispatchers() -> None:
    seen = Recorder(SILENT)
    async with pushing() as (server, con):
        con.messenger.add_dispatcher_tail(seen)
        pushes = con.messages(PUSH)
        server.send_message(Message(SILENT, b"1"))
        server.send_message(Message(PUSH, b"2"))
        (push,) = await take(pushes, 1)
        assert bytes(push.front) == b"2"
        assert [bytes(m.front) for m in seen.messages] == [b"1"]


@both_loops
async def test_dispatchers_of_connect() -> None:
    seen = Recorder(SILENT)
    async with (
        serving() as server,
        mpmsgr.connect(place(server), timeout=5, dispatchers=[seen]) as con,
    ):
        await eventually_async(lambda: len(server.endpoint.registry))
        server_side(server).send_message(Message(SILENT, b"1"))
        await con.request(Message(ECHO), timeout=5)
        assert [bytes(m.front) for m in seen.messages] == [b"1"]


@both_loops
async def test_a_request_and_a_push_of_one_type() -> None:
    async with pushing() as (server, con):
        pushes = con.messages(ECHO)
        server.send_message(Message(ECHO, b"push"))
        reply = await con.request(Message(ECHO, b"reply"), timeout=5)
        assert bytes(reply.front) == b"reply"
        assert bytes((await take(pushes, 1))[0].front) == b"push"


@both_loops
async def test_two_who_iterate_share_the_stream() -> None:
    async with pushing() as (server, con):
        pushes = con.messages(PUSH)
        takers = [asyncio.ensure_future(take(pushes, 1)) for _ in range(3)]
        await asyncio.sleep(0)
        for i in range(3):
            server.send_message(Message(PUSH, b"%d" % i))
        got = await asyncio.wait_for(asyncio.gather(*takers), 5)
        assert sorted(bytes(m.front) for (m,) in got) == [b"0", b"1", b"2"]


@both_loops
async def test_a_taker_that_is_cancelled_takes_nothing_along() -> None:
    async with pushing() as (server, con):
        pushes = con.messages(PUSH)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(pushes), 0.02)
        server.send_message(Message(PUSH, b"1"))
        assert bytes((await take(pushes, 1))[0].front) == b"1"


@both_loops
async def test_a_consumer_that_is_behind_loses_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "BACKLOG", 10)
    async with pushing() as (server, con):
        pushes = con.messages(PUSH)
        for i in range(25):
            server.send_message(Message(PUSH, b"%d" % i))
        await eventually_async(lambda: con.session.in_seq == 25)
        got = await take(pushes, 10)
        assert [bytes(m.front) for m in got] == [b"%d" % i for i in range(15, 25)]
        assert pushes.dropped == 15


# the end


@both_loops
async def test_what_came_before_the_end_is_there_still() -> None:
    async with pushing() as (server, con):
        pushes = con.messages(PUSH)
        server.send_message(Message(PUSH, b"last"))
        await server.messenger.shutdown()
        assert bytes((await take(pushes, 1))[0].front) == b"last"
        for _ in range(2):
            with pytest.raises(SessionReset):
                await asyncio.wait_for(anext(pushes), 5)


@both_loops
async def test_a_waiting_stream_ends_with_the_session() -> None:
    async with pushing() as (_, con):
        waiting = asyncio.ensure_future(anext(con.messages(PUSH)))
        await asyncio.sleep(0)
        con.mark_down()
        with pytest.raises(SessionReset):
            await asyncio.wait_for(waiting, 5)


@both_loops
async def test_a_stream_of_a_dead_session_ends_at_once() -> None:
    async with pushing() as (_, con):
        con.mark_down()
        with pytest.raises(SessionReset):
            await asyncio.wait_for(anext(con.messages(PUSH)), 5)


@both_loops
async def test_a_stream_goes_on_in_the_next_session() -> None:
    async with pushing() as (server, con):
        pushes = con.messages(PUSH)
        messenger = server.messenger
        server.mark_down()
        await eventually_async(lambda: con.last_reset is not None and con.is_connected)
        server_side(messenger).send_message(Message(PUSH, b"again"))
        assert bytes((await take(pushes, 1))[0].front) == b"again"


@both_loops
async def test_pushes_to_another_connection_by_id() -> None:
    class Post(Recorder):
        def dispatch(self, con: Any, m: Message) -> None:
            con.connection(int(bytes(m.front))).send_message(Message(PUSH, m.data))

    post = Post()
    async with serving(post) as server, client() as one, client() as two:
        con_one = await connected(one, place(server))
        pushes = con_one.messages(PUSH)
        await eventually_async(lambda: len(post.cons) == 1)
        con_two = await connected(two, place(server))
        con_two.send_message(Message(SILENT, b"%d" % post.cons[0].id, data=b"psst"))
        assert bytes((await take(pushes, 1))[0].front) == b"psst"
        gone = post.cons[0].connection(999)
        assert (gone.id, gone.failed, gone.is_connected) == (999, True, False)
        assert not gone.send_message(Message(PUSH))
        assert not await gone.send(Message(PUSH))


def test_a_messenger_that_was_not_started() -> None:
    with pytest.raises(mpmsgr.MessengerError, match="use `async with Messenger"):
        Messenger("client.1").now()
