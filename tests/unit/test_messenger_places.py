"""Sockets whose long messages land where the sink says, when it says so."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.sink import HEAP, Sink
from mpmsgr.session.actions import Event, EventKind
from mpmsgr.session.inject import Injection
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.policy import STATEFUL_SERVER, Policies
from mpmsgr.session.session import Pause, Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.v1.parcel import decode_raw
from mpmsgr.wire.v1.tags import Tag
from tests.loopback import ANY_PORT
from tests.raw_peer import RawPeer
from tests.streams import message_frame
from tests.support import eventually_async
from tests.unit.messenger_peers import both_loops, client, connected, place

TYPE = 0x9001
LONG = bytes(range(256)) * 400
_POLICIES = Policies(replace(STATEFUL_SERVER, keepalive_timeout_s=0.0))


class Memory(bytearray):
    """A place whose end can be noticed."""


class Places(Sink):
    """Gives a place for each long message while it has one; remembers everything.

    free: places there are; each comes back with the message that was in it. heap: it wants none
    of them; late: each has to wait for a turn of the loop.
    """

    claims_above = 20_000

    def __init__(self, free: int) -> None:
        self.free = free
        self.heap = self.late = False
        self.driver: Driver
        self.waiting: deque[tuple[Pipe, int]] = deque()
        self.given: list[memoryview] = []
        self.unplaced: list[Pipe] = []
        self.raws: list[Bytes] = []
        self.seqs: dict[Session, list[int]] = {}
        self.sessions: list[Session] = []

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        for raw in raws:
            self.raws.append(raw)
            self.seqs.setdefault(session, []).append(decode_raw(raw).seq)
            if any(raw is view for view in self.given):
                self.free += 1
                self.grant_next()

    def event(self, event: Event) -> None:
        if event.kind is EventKind.ACCEPT:
            self.sessions.append(event.session)

    def full(self, session: Session, full: bool) -> None:
        pass

    async def drain(self) -> None:
        pass

    def place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        assert size > self.claims_above
        if self.heap:
            return HEAP
        if self.late:
            asyncio.get_running_loop().call_soon(self.grant_next)
        if self.late or not self.free:
            self.waiting.append((pipe, size))
            return None
        return self.take(size)

    def take(self, size: int) -> memoryview:
        self.free -= 1
        self.given.append(memoryview(Memory(size)))
        return self.given[-1]

    def grant_next(self) -> bool:
        """Give the first of those who wait its place, if there is one for it."""
        while self.waiting and self.free:
            pipe, size = self.waiting.popleft()
            if self.driver.grant(pipe, self.take(size)):
                return True
            self.given.pop()
            self.free += 1
        return False

    def unplace(self, pipe: Pipe) -> None:
        self.unplaced.append(pipe)
        self.waiting = deque(one for one in self.waiting if one[0] is not pipe)


@asynccontextmanager
async def serving(
    free: int, injection: Injection | None = None
) -> AsyncIterator[tuple[Messenger, Places]]:
    """A server with *free* places."""
    sink = Places(free)
    server = Messenger("svc.0", sink=sink, policies=_POLICIES, injection=injection, drain_s=0.1)
    async with server:
        sink.driver = server.driver
        await server.bind(ANY_PORT)
        yield server, sink


async def handshake(server: Messenger, **changes: int) -> RawPeer:
    """A peer with an open session."""

    def open_session() -> RawPeer:
        raw = RawPeer(place(server))
        raw.handshake(Tag.SEQ if changes.get("connect_seq") else Tag.READY, **changes)
        return raw

    return await asyncio.to_thread(open_session)


def frame(seq: int, data: bytes = LONG) -> bytes:
    return message_frame(Message(TYPE, b"%d" % seq, data=data, tid=seq), seq)


# given


@both_loops
async def test_long_messages_land_where_the_sink_says() -> None:
    async with serving(10) as (server, sink), client() as messenger:
        con = await connected(messenger, place(server))
        sizes = [600_000, 10, 400_000, 1_000_000, 10, 10, 300_000]  # more than a read brings
        for size in sizes:
            con.send_message(Message(TYPE, data=bytes(size)))
        await eventually_async(lambda: len(sink.raws) == len(sizes))
        assert [len(decode_raw(raw).data) for raw in sink.raws] == sizes
        landed = [raw for raw, size in zip(sink.raws, sizes, strict=True) if size > 10]
        assert [id(raw) for raw in landed] == [id(view) for view in sink.given]
        assert all(type(raw) is bytes for raw in sink.raws if len(raw) < 1000)


@both_loops
async def test_a_socket_reads_no_further_than_the_end_of_the_message() -> None:
    async with serving(10) as (server, sink):
        raw = await handshake(server)
        with raw:
            raw.send(frame(1)[:5000])
            await eventually_async(lambda: sink.given)
            raw.send(frame(1)[5000:] + frame(2)[:5000])
            await eventually_async(lambda: len(sink.given) == 2)
            assert sink.raws[0] is sink.given[0]
            raw.send(frame(2)[5000:])
            await eventually_async(lambda: len(sink.raws) == 2)
            assert sink.raws[1] is sink.given[1]
            assert sink.given[1] == frame(2)[1:]


@both_loops
async def test_reads_are_short_while_long_messages_are_expected() -> None:
    async with serving(1000) as (server, sink):
        raw = await handshake(server)
        with raw:
            (session,) = sink.sessions
            assert session.pipe is not None
            stream = b"".join(frame(seq) for seq in range(1, 61))
            sending = asyncio.create_task(asyncio.to_thread(raw.send, stream))
            await eventually_async(lambda: len(sink.raws) == 60)
            await sending
            # a read of 256 KiB may bring two of them whole, before the first one landed
            assert len(sink.given) >= 57
            assert len(server.driver.receive_buffer(session.pipe)) == 16 * 1024
            raw.send(frame(61, b""))
            await eventually_async(lambda: len(sink.raws) == 61)
            assert len(server.driver.receive_buffer(session.pipe)) == 256 * 1024


@both_loops
async def test_a_message_that_the_sink_does_not_want_is_received_as_ever() -> None:
    async with serving(10) as (server, sink):
        sink.heap = True
        raw = await handshake(server)
        with raw:
            for seq in (1, 2, 3):
                raw.send(frame(seq)[:5000])
                raw.send(frame(seq)[5000:])
            await eventually_async(lambda: len(sink.raws) == 3)
            assert sink.given == []
            assert [bytes(r) for r in sink.raws] == [frame(seq)[1:] for seq in (1, 2, 3)]


# not yet


@both_loops
async def test_a_session_waits_for_its_place_and_nobody_else_does() -> None:
    async with serving(0) as (server, sink), client() as messenger:
        raw = await handshake(server)
        with raw:
            (session,) = sink.sessions
            raw.send(frame(1)[:5000])
            await eventually_async(lambda: sink.waiting)
            assert session.paused == Pause.ARENA
            raw.send(frame(1)[5000:] + frame(2, b""))
            con = await connected(messenger, place(server))
            for _ in range(5):
                con.send_message(Message(TYPE, b"undisturbed"))
            await eventually_async(lambda: len(sink.raws) == 5)
            assert session not in sink.seqs

            sink.free = 1
            assert sink.grant_next()
            assert not session.paused
            await eventually_async(lambda: sink.seqs.get(session) == [1, 2])
            assert sink.raws[5] is sink.given[0]
            assert sink.given[0] == frame(1)[1:]


@both_loops
async def test_what_is_granted_may_be_the_heap() -> None:
    async with serving(0) as (server, sink):
        raw = await handshake(server)
        with raw:
            raw.send(frame(1)[:5000])
            await eventually_async(lambda: sink.waiting)
            pipe, _size = sink.waiting.popleft()
            assert server.driver.grant(pipe, HEAP)
            assert not server.driver.grant(pipe, HEAP), "only once"
            raw.send(frame(1)[5000:])
            await eventually_async(lambda: len(sink.raws) == 1)
            assert sink.raws == [frame(1)[1:]]


@both_loops
async def test_one_place_serves_many_sessions() -> None:
    async with serving(1) as (server, sink), client() as a, client() as b, client() as c:
        cons = [await connected(one, place(server)) for one in (a, b, c)]
        for _ in range(6):
            for con in cons:
                con.send_message(Message(TYPE, data=LONG * 10))
                con.send_message(Message(TYPE, b"short"))
        await eventually_async(lambda: len(sink.raws) == 36, 20)
        assert list(sink.seqs.values()) == [list(range(1, 13))] * 3
        assert sink.free == 1
        assert not any(session.paused for session in sink.sessions)


@both_loops
async def test_a_pause_for_another_reason_goes_on() -> None:
    async with serving(0) as (server, sink):
        raw = await handshake(server)
        with raw:
            (session,) = sink.sessions
            raw.send(frame(1)[:5000])
            await eventually_async(lambda: sink.waiting)
            server.driver.pause_reading(session, Pause.DISPATCH)
            sink.free = 1
            assert sink.grant_next()
            assert session.paused == Pause.DISPATCH
            raw.send(frame(1)[5000:])
            server.driver.resume_reading(session, Pause.DISPATCH)
            await eventually_async(lambda: len(sink.raws) == 1)


# over


@both_loops
async def test_the_sink_hears_of_the_end_of_each_message_before_it_gets_it() -> None:
    class Ends(Places):
        def unplace(self, pipe: Pipe) -> None:
            super().unplace(pipe)
            known.append(len(self.raws))

    known: list[int] = []
    sink = Ends(10)
    async with Messenger("svc.0", sink=sink, policies=_POLICIES, drain_s=0.1) as server:
        sink.driver = server.driver
        await server.bind(ANY_PORT)
        raw = await handshake(server)
        with raw:
            for seq in (1, 2, 2, 3):  # a repeat is not delivered
                raw.send(frame(seq)[:5000])
                await eventually_async(lambda: len(sink.given) == len(known) + 1)
                raw.send(frame(seq)[5000:])
                await eventually_async(lambda: len(sink.given) == len(known))
            await eventually_async(lambda: len(sink.raws) == 3)
            assert known == [0, 1, 2, 2]


# too late


@both_loops
async def test_a_socket_that_was_replaced_waits_no_longer() -> None:
    async with serving(0) as (server, sink):
        first = await handshake(server)
        (session,) = sink.sessions
        first.send(frame(1)[:5000])
        await eventually_async(lambda: sink.waiting)
        pipe = sink.waiting[0][0]
        second = await handshake(server, connect_seq=2, global_seq=2)
        with first, second:
            await eventually_async(lambda: sink.unplaced == [pipe])
            assert not server.driver.grant(pipe, HEAP)
            await eventually_async(lambda: not session.paused)
            second.send(frame(1)[:5000])
            await eventually_async(lambda: sink.waiting)
            assert session.paused == Pause.ARENA
            assert not server.driver.grant(pipe, HEAP), "it is the other one that waits"
            sink.free = 1
            assert sink.grant_next()
            second.send(frame(1)[5000:])
            await eventually_async(lambda: sink.seqs.get(session) == [1])


@both_loops
async def test_a_session_that_ends_waits_no_longer() -> None:
    async with serving(0) as (server, sink):
        raw = await handshake(server)
        with raw:
            (session,) = sink.sessions
            raw.send(frame(1)[:5000])
            await eventually_async(lambda: sink.waiting)
            pipe = sink.waiting[0][0]
            server.endpoint.mark_down(session)
            assert not server.driver.grant(pipe, memoryview(bytearray(sink.waiting[0][1])))
            server.driver.run()
            assert sink.unplaced == [pipe]
            assert not session.paused


@both_loops
async def test_a_shutdown_ends_the_waiting() -> None:
    async with serving(0) as (server, sink):
        raw = await handshake(server)
        with raw:
            raw.send(frame(1)[:5000])
            await eventually_async(lambda: sink.waiting)
            pipe = sink.waiting[0][0]
            await server.shutdown(0.1)
            assert sink.unplaced == [pipe]


@both_loops
async def test_a_message_that_is_cut_leaves_its_place() -> None:
    async with serving(5) as (server, sink):
        raw = await handshake(server)
        (session,) = sink.sessions
        raw.send(frame(1)[:5000])
        await eventually_async(lambda: sink.given)
        pipe = session.pipe
        assert pipe is not None
        raw.send(frame(1)[5000:9000])
        memory = weakref.ref(sink.given.pop().obj)
        gc.collect()
        assert memory() is not None
        raw.reset()
        await eventually_async(lambda: pipe.closed)
        gc.collect()
        assert memory() is None
        assert sink.raws == []


# among faults


@pytest.mark.parametrize("seed", range(3))
@both_loops
async def test_places_among_cuts_and_short_reads(seed: int) -> None:
    injection = Injection(seed=seed, socket_failures=25, short_reads=0.3)
    async with serving(1000, injection) as (server, sink), client() as messenger:
        sink.late = True
        con = await connected(messenger, place(server))
        sizes = [100, 30_000, 400_000, 0, 60_000] * 8
        for size in sizes:
            con.send_message(Message(TYPE, data=bytes(size)))
        await eventually_async(lambda: len(sink.raws) == len(sizes), 20)
        assert [len(decode_raw(raw).data) for raw in sink.raws] == sizes
        assert list(sink.seqs.values()) == [list(range(1, len(sizes) + 1))]
