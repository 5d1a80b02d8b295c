"""The pool's two ends on one loop: stale workers, moved lanes, ended sessions."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from mpmsgr import Connection, Dispatcher, ErrorCode, Message, Messenger, RemoteError
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.payload import reply_to, unpack
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.pool.envelope import BATCH, READY, identity, pack
from mpmsgr.pool.front import PoolFront, SessionLane
from mpmsgr.pool.link import Link
from mpmsgr.pool.remote import RemoteConnection
from mpmsgr.pool.runtime import Runtime
from mpmsgr.wire.name import EntityName
from tests.support import eventually_async
from tests.unit.messenger_peers import client, connected, place

ASK, HOLD, DOWN, PUSH = 0x9001, 0x9002, 0x9003, 0x9004
INCARNATION = 3


class Worker(Dispatcher):
    """A dispatcher that says which worker it is in; what is held ends when it is let go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.let_go = asyncio.Event()
        self.seen: list[tuple[int, str]] = []
        self.cons: list[Connection] = []

    async def dispatch(self, con: Connection, m: Message) -> None:
        self.seen.append((m.type, bytes(m.front).decode()))
        if con not in self.cons:
            self.cons.append(con)
        if m.type == HOLD:
            await self.let_go.wait()
        elif m.type == DOWN:
            con.mark_down()
        con.send_message(reply_to(m, [self.name, con.peer_type, con.peer_addr.nonce]))


class Pool:
    """A messenger whose sink is a pool front, and workers as they come and go."""

    def __init__(self, directory: str, **options: int) -> None:
        self.endpoint = f"ipc://{directory}/io.ipc"
        self.front = PoolFront(
            self.endpoint, INCARNATION, **{"credit": 100, "dispatch_bytes": 1 << 20, **options}
        )
        self.messenger = Messenger(
            "svc.0", sink=self.front, first_id=(INCARNATION << 32) + 1, drain_s=0.1
        )
        self.links: list[Link] = []
        self.runtimes: list[Runtime] = []

    async def start(self) -> None:
        self.messenger.start()
        self.front.attach(self.messenger.driver)
        await self.messenger.bind("127.0.0.1:0")

    async def worker(self, slot: int, generation: int = 1) -> tuple[Runtime, Worker]:
        """One more worker, when it is known to the front."""
        dispatcher = Worker(f"{slot}.{generation}")
        chain = Chain()
        chain.add_tail(dispatcher)
        runtime = Runtime(chain, EntityName(0x40, 0), slot, generation, lambda: None, lambda: None)
        linked = asyncio.Event()
        runtime.connect(self.endpoint, INCARNATION, linked.set)
        self.runtimes.append(runtime)
        await asyncio.wait_for(linked.wait(), 5)
        return runtime, dispatcher

    def stray(self, slot: int, generation: int) -> Link:
        """A connection of that name which says only what the test says."""
        link = Link.dealer(self.endpoint, identity(slot, generation), lambda parts: None)
        self.links.append(link)
        return link

    @property
    def ready(self) -> dict[int, int]:
        """Generation by slot of the workers that get work."""
        return {slot: w.generation for slot, w in self.front._lanes.workers.items()}

    def lane(self) -> SessionLane:
        """The lane of the only session."""
        (lane,) = self.front._by_id.values()
        return lane

    async def stop(self) -> None:
        await self.messenger.shutdown(0.1)
        for runtime in self.runtimes:
            runtime.runner.cancel()
            await runtime.runner.stop()
            runtime.disconnect()
        for link in self.links:
            link.close()
        self.front.close()


@asynccontextmanager
async def pool(**options: int) -> AsyncIterator[tuple[Pool, Messenger]]:
    """A pool without workers, and a client's messenger."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        pool = Pool(directory, **options)
        await pool.start()
        try:
            async with client(drain_s=0.1) as messenger:
                yield pool, messenger
        finally:
            await pool.stop()


def on_uvloop(test: Callable[[], Any]) -> Callable[[], None]:
    """The coroutine function as a test."""

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(), 20))

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return run


async def session(pool: Pool, messenger: Messenger) -> MessengerConnection:
    return await connected(messenger, place(pool.messenger))


async def home(con: MessengerConnection) -> str:
    """The worker that answers."""
    name: str = unpack(await con.request(Message(ASK), timeout=5))[0]
    return name


def held(con: MessengerConnection, count: int = 1) -> list[asyncio.Task[Message]]:
    """Requests that are not answered until they are let go."""
    return [asyncio.ensure_future(con.request(Message(HOLD), timeout=15)) for _ in range(count)]


async def lost(task: asyncio.Task[Message]) -> str:
    """The text of the error reply that ends it."""
    with pytest.raises(RemoteError) as raised:
        await task
    assert raised.value.code == ErrorCode.WORKER_LOST
    return raised.value.text


# readiness


@on_uvloop
async def test_a_worker_learns_that_it_is_known() -> None:
    async with pool() as (p, messenger):
        await p.worker(0)
        assert p.ready == {0: 1}, "at once, when it says so"
        assert await home(await session(p, messenger)) == "0.1"


@on_uvloop
async def test_the_ready_of_a_dead_worker_that_arrives_late() -> None:
    async with pool() as (p, messenger):
        p.front.worker_lost(0, 1, "signal 9")
        p.stray(0, 1).send(pack((INCARNATION, 1, READY, None)))
        await p.worker(1)  # what came before it has been read
        assert p.ready == {1: 1}
        con = await session(p, messenger)
        assert [await home(con) for _ in range(3)] == ["1.1"] * 3


@on_uvloop
async def test_a_new_worker_before_the_old_one_s_death_is_known() -> None:
    async with pool() as (p, messenger):
        _, old = await p.worker(0, 1)
        con = await session(p, messenger)
        tasks = held(con, 3)
        await eventually_async(lambda: old.seen)
        await p.worker(0, 2)
        for task in tasks:
            assert await lost(task) == "worker 0 was lost: another one took its place"
        p.front.worker_lost(0, 1, "signal 9")
        assert p.ready == {0: 2}
        assert await home(con) == "0.2"


@on_uvloop
async def test_frames_that_are_stale() -> None:
    async with pool() as (p, messenger):
        await p.worker(0, 2)
        con = await session(p, messenger)
        assert await home(con) == "0.2"
        id_ = p.lane().session.id
        bogus: list[tuple[int, int, list[bytes]]] = [(id_, 1, [])]
        for incarnation, generation, name in ((2, 2, 2), (INCARNATION, 1, 1), (INCARNATION, 3, 2)):
            link = p.stray(0, name) if name != 2 else p.stray(5, name)
            link.send(pack((incarnation, generation, BATCH, bogus)))
        p.stray(6, 1).send(pack((INCARNATION, 1, READY, None)))
        await eventually_async(lambda: 6 in p.ready)
        assert (p.lane().inflight, p.lane().worker) == ([], p.front._lanes.workers[0])


# a worker's end


@on_uvloop
async def test_what_a_dead_worker_held_is_answered_and_the_lane_goes_on() -> None:
    async with pool() as (p, messenger):
        runtime, first = await p.worker(0)
        con = await session(p, messenger)
        tasks = held(con, 3)
        await eventually_async(lambda: first.seen)
        runtime.disconnect()
        await p.worker(1)
        p.front.worker_lost(0, 1, "signal 9")
        for task in tasks:
            assert await lost(task) == "worker 0 was lost: signal 9"
        assert await home(con) == "1.1"


@on_uvloop
async def test_what_waits_for_a_worker_gets_the_next_one() -> None:
    async with pool() as (p, messenger):
        con = await session(p, messenger)
        waiting = asyncio.ensure_future(home(con))
        await eventually_async(lambda: len(p.lane().waiting) == 2)  # accept, and the message
        await p.worker(0)
        assert await waiting == "0.1"


@on_uvloop
async def test_a_worker_that_says_goodbye() -> None:
    async with pool() as (p, messenger):
        runtime, _ = await p.worker(0)
        con = await session(p, messenger)
        assert await home(con) == "0.1"
        runtime.goodbye()
        await p.worker(1)
        await eventually_async(lambda: p.ready == {1: 1})
        assert await home(con) == "1.1"


# moving


async def move(p: Pool) -> None:
    """Make the next message of the only lane go elsewhere."""
    lane = p.lane()
    await eventually_async(lambda: not lane.inflight)
    assert lane.worker is not None
    lane.worker.held += 50


@on_uvloop
async def test_a_moved_lane_is_forgotten_where_it_was() -> None:
    async with pool() as (p, messenger):
        workers = [await p.worker(slot) for slot in (0, 1)]
        con = await session(p, messenger)
        assert await home(con) == "0.1"
        await move(p)
        assert await home(con) == "1.1"
        await eventually_async(lambda: workers[0][0]._cons == {})
        assert len(workers[1][0]._cons) == 1


@on_uvloop
async def test_a_stored_connection_of_a_moved_lane_still_reaches_its_peer() -> None:
    async with pool() as (p, messenger):
        (_, first), _ = [await p.worker(slot) for slot in (0, 1)]
        con = await session(p, messenger)
        pushes = con.messages(PUSH)
        assert await home(con) == "0.1"
        (stored,) = first.cons
        await move(p)
        assert await home(con) == "1.1"
        await asyncio.sleep(0)
        assert stored.send_message(Message(PUSH, b"from afar")) is True
        assert bytes((await anext(pushes)).front) == b"from afar"
        stored.mark_down()
        await eventually_async(lambda: con.last_reset)


@on_uvloop
async def test_a_lane_that_moves_after_a_reconnect() -> None:
    async with pool() as (p, messenger):
        workers = [await p.worker(slot) for slot in (0, 1)]
        con = await session(p, messenger)
        assert await home(con) == "0.1"
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        assert await home(con) == "0.1"
        await move(p)
        assert await home(con) == "1.1"
        await eventually_async(lambda: workers[0][0]._cons == {})


# the end of a session


@on_uvloop
async def test_a_closed_session_is_forgotten_everywhere() -> None:
    async with pool() as (p, messenger):
        runtime, dispatcher = await p.worker(0)
        con = await session(p, messenger)
        await home(con)
        (stored,) = dispatcher.cons
        await messenger.shutdown()
        await eventually_async(lambda: not p.front._by_id and not runtime._cons)
        assert (stored.is_connected, stored.send_message(Message(PUSH))) == (False, False)


@on_uvloop
async def test_messages_behind_a_mark_down_are_handled_and_know_their_sender() -> None:
    async with pool() as (p, messenger):
        runtime, dispatcher = await p.worker(0)
        con = await session(p, messenger)
        await home(con)
        con.send_message(Message(HOLD, b"1"))
        con.send_message(Message(DOWN, b"2"))
        con.send_message(Message(ASK, b"3"))
        (old,) = p.front._by_id
        await eventually_async(lambda: len(p.front._by_id[old].inflight) == 3)
        dispatcher.let_go.set()
        await eventually_async(lambda: con.last_reset)
        await eventually_async(lambda: old not in p.front._by_id and old not in runtime._cons)
        assert [text for _, text in dispatcher.seen] == ["", "1", "2", "3"]
        marked = [c for c in dispatcher.cons if c.id == old]
        assert len(marked) == 1, "one connection, from first to last"
        assert isinstance(marked[0], RemoteConnection)
        assert (marked[0].gone, marked[0].peer_type) == (True, 8)
        assert await home(con) == "0.1", "in a new session"
        assert p.front._items == p.front._bytes == 0


@on_uvloop
async def test_reading_pauses_above_the_limit_and_goes_on() -> None:
    async with pool(dispatch_bytes=10_000) as (p, messenger):
        con = await session(p, messenger)
        tasks = [
            asyncio.ensure_future(con.request(Message(ASK, b"x" * 1000), timeout=15))
            for _ in range(400)
        ]
        await eventually_async(lambda: p.front._bytes > 10_000)
        await eventually_async(lambda: p.lane().session.paused)
        assert p.front._bytes < 400 * 1000
        await p.worker(0)
        await asyncio.gather(*tasks)
        assert (p.front._bytes, bool(p.lane().session.paused)) == (0, False)
