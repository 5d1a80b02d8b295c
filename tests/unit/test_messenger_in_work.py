"""A messenger whose own dispatchers have much in work: who is read, and who goes on when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from mpmsgr import Connection, Dispatcher, Message, Messenger, Policies
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.local import LocalSink
from mpmsgr.session.policy import STATEFUL_SERVER
from mpmsgr.session.session import Pause, Session
from tests.loopback import ANY_PORT
from tests.support import eventually_async
from tests.unit.messenger_peers import both_loops, client, connected, place

HOLD, ASK_BACK, PUSH, BACK = 0x9001, 0x9002, 0x9003, 0x9004
KIB, MIB = 1 << 10, 1 << 20


class Gate(Dispatcher):
    """HOLD waits for `open`; ASK_BACK asks its sender first; PUSH sends so many KiB."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.done: list[str] = []

    async def dispatch(self, con: Connection, m: Message) -> None:
        if m.type == HOLD:
            await self.open.wait()
        elif m.type == ASK_BACK:
            await con.request(Message(BACK), timeout=5.0)
        elif m.type == PUSH:
            con.send_message(Message(PUSH, data=bytes(int(m.front) * KIB)))
        self.done.append(bytes(m.front).decode())
        con.send_message(m.reply())


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Messenger, Gate, MessengerConnection]]:
    """A server, its dispatcher, and a client's connection."""
    async with Messenger("svc.0", drain_s=0.5, **options) as server, client() as messenger:
        gate = Gate()
        server.add_dispatcher_tail(gate)
        await server.bind(ANY_PORT)
        yield server, gate, await connected(messenger, place(server))
        assert {one["current"] for one in gauges(server)} == {0}
        assert {one["waiting"] for one in gauges(server)} == {0}


def gauges(server: Messenger) -> list[dict[str, Any]]:
    """Of the server's throttles."""
    sink = server.driver.sink
    assert isinstance(sink, LocalSink)
    assert sink._in_work is not None
    return sink._in_work.throttles.statistics()


def held(server: Messenger) -> int:
    """Bytes that count for the dispatch."""
    current: int = gauges(server)[0]["current"]
    return current


def only(server: Messenger) -> Session:
    """The server's side."""
    (session,) = server.endpoint.registry
    return session


def ask(con: MessengerConnection, type_: int, front: object = "", size: int = 0) -> Any:
    m = Message(type_, str(front).encode(), data=bytes(size))
    return asyncio.ensure_future(con.request(m, timeout=10.0))


@both_loops
async def test_reading_pauses_above_the_limit_and_goes_on() -> None:
    async with serving(dispatch_bytes=10_000) as (server, gate, con):
        asked = [ask(con, HOLD, i, 1000) for i in range(400)]
        await eventually_async(lambda: only(server).paused == Pause.DISPATCH)
        assert 10_000 < held(server) < 10_000 + 300 * KIB
        gate.open.set()
        await asyncio.gather(*asked)
        assert gate.done == [str(i) for i in range(400)]


@both_loops
async def test_long_messages_wait_for_room_before_they_are_read() -> None:
    async with serving(dispatch_bytes=3 * MIB) as (server, gate, con):
        asked = [ask(con, HOLD, i, MIB) for i in range(8)]
        await eventually_async(lambda: only(server).paused == Pause.ARENA)
        assert 2 * MIB < held(server) < 3 * MIB
        gate.open.set()
        await asyncio.gather(*asked)
        assert gate.done == [str(i) for i in range(8)]


@both_loops
async def test_a_peer_type_has_a_throttle_of_its_own_without_any_other() -> None:
    policies = Policies(replace(STATEFUL_SERVER, throttle_messages=5))
    async with serving(policies=policies) as (server, gate, con):
        assert gauges(server)[0]["max"] == 0
        asked = []
        for i in range(20):
            asked.append(ask(con, HOLD, i))
            await asyncio.sleep(0)
        await eventually_async(lambda: only(server).paused == Pause.DISPATCH)
        gate.open.set()
        await asyncio.gather(*asked)


@both_loops
async def test_a_reply_that_a_handler_waits_for_is_read_although_there_is_no_room() -> None:
    async with serving(dispatch_bytes=10_000) as (_, gate, con):
        asks = con.messages(BACK)
        asked = [ask(con, ASK_BACK, i, 1000) for i in range(50)]

        async def answer() -> None:
            async for m in asks:
                con.send_message(m.reply(data=bytes(100 * KIB)))

        answering = asyncio.ensure_future(answer())
        await asyncio.gather(*asked)
        answering.cancel()
        assert len(gate.done) == 50


@both_loops
async def test_a_full_session_is_read_for_its_acks() -> None:
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=300 * KIB))
    async with serving(policies=policies, dispatch_bytes=10_000) as (server, gate, con):
        con.messages(PUSH)
        transport: Any = con.session.pipe.handle if con.session.pipe is not None else None
        transport.pause_reading()
        asked = [ask(con, PUSH, 400)]
        await eventually_async(lambda: only(server).full)
        asked += [ask(con, HOLD, i, 1000) for i in range(50)]
        await eventually_async(lambda: only(server).in_seq >= 51)
        assert held(server) < 10_000, "they wait for something else"
        gate.open.set()
        transport.resume_reading()
        await asyncio.gather(*asked)
        assert len(gate.done) == 51


@both_loops
async def test_what_has_to_wait_for_those_acks_does_not_count() -> None:
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=300 * KIB))
    async with serving(policies=policies, dispatch_bytes=100_000) as (server, gate, con):
        con.messages(PUSH)
        transport: Any = con.session.pipe.handle if con.session.pipe is not None else None
        transport.pause_reading()
        asked = [ask(con, HOLD, i, 1000) for i in range(5)]
        await eventually_async(lambda: held(server) >= 5000)
        server.connection_of(only(server)).send_message(Message(PUSH, data=bytes(400 * KIB)))
        await eventually_async(lambda: only(server).full)
        assert 1000 < held(server) < 2000, "only what runs"
        gate.open.set()
        transport.resume_reading()
        await asyncio.gather(*asked)


@both_loops
async def test_without_a_limit_nothing_is_counted() -> None:
    async with Messenger("svc.0") as server:
        sink = server.driver.sink
        assert isinstance(sink, LocalSink)
        assert (sink.claims_above, sink._in_work) == (0, None)
