"""Full outboxes behind the pool: a front and workers' runtimes on one loop, a real link between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, Message, Policies, RemoteError
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.handling import Handling
from mpmsgr.errors import OutboxFull
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.stream import MessageStream
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.pool.remote import RemoteConnection
from mpmsgr.pool.runtime import Runtime
from mpmsgr.session.policy import STATEFUL_SERVER
from mpmsgr.session.session import Session
from mpmsgr.wire.v1.parcel import FOOTER_SIZE
from tests.support import eventually_async
from tests.unit import pool_harness
from tests.unit.messenger_peers import ECHO, PUSH, SILENT, client, connected, place
from tests.unit.pool_harness import ask, on_uvloop
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import Pool

LIMIT = 10_000
COUNT = 40
GROW, DO, HOLD = 0x9301, 0x9302, 0x9303


class Worker(Dispatcher):
    """Answers ECHO and GROW, the latter with 3000 bytes more; DO runs what the test wants, and what
    that sends leaves at once; so it does for HOLD, but all together when it has completed.

    task(con, m): of DO and HOLD.
    """

    message_types = frozenset({ECHO, GROW, DO, HOLD, SILENT})

    def __init__(self, task: Callable[[Connection, Message], Any]) -> None:
        self.task = task
        self.handled: list[bytes] = []

    def dispatch(self, con: Connection, m: Message) -> Any:
        if m.type in (DO, HOLD):
            return self.task(con, m)
        self.handled.append(bytes(m.front))
        if m.type != SILENT:
            con.send_message(m.reply(m.front, data=bytes(3000) if m.type == GROW else b""))
        return None

    def handling(self, type_: int) -> Handling:
        return Handling(streaming=type_ == DO)


class Outboxes:
    """A pool, and what was handled in it."""

    def __init__(self, tasks: Iterable[Callable[[Connection, Message], Any]]) -> None:
        self.tasks = list(tasks)
        self.workers: list[Worker] = []
        self.pool: Pool

    def plugin(self, site: Site) -> list[Worker]:
        """The next worker's task."""
        self.workers.append(Worker(self.tasks[len(self.workers)]))
        return self.workers[-1:]

    @property
    def session(self) -> Session:
        """The first session."""
        return next(iter(self.pool.messenger.endpoint.registry))

    @property
    def handled(self) -> list[bytes]:
        """Fronts of what was handled, by all workers."""
        return [front for worker in self.workers for front in worker.handled]

    @property
    def counters(self) -> Any:
        """Of the endpoint."""
        return self.pool.messenger.endpoint.counters

    def runtime(self, slot: int = 0) -> Runtime:
        """Of the worker in *slot*."""
        return self.pool.workers[slot].runtime

    def end_sessions(self) -> None:
        """With a reset."""
        self.pool.messenger.endpoint.mark_down_all("enough")
        self.pool.messenger.driver.run()


def nothing(con: Connection, m: Message) -> None:
    """No task."""


@asynccontextmanager
async def pool(
    *tasks: Callable[[Connection, Message], Any], dispatch_bytes: int = 1 << 20, **changes: Any
) -> AsyncIterator[tuple[Outboxes, MessengerConnection]]:
    """A pool, one worker for each of *tasks*, and a client of it; in the end all is accounted."""
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=LIMIT, **changes))
    made = Outboxes(tasks or (nothing,))
    options: dict[str, Any] = {"policies": policies, "dispatch_bytes": dispatch_bytes}
    async with pool_harness.pool(made.plugin, len(made.tasks), **options) as (p, messenger):
        made.pool = p
        yield made, await pool_harness.session(p, messenger)
        await p.settled()


def handle(con: MessengerConnection) -> PipeTransport:
    assert con.session.pipe is not None
    assert isinstance(con.session.pipe.handle, PipeTransport)
    return con.session.pipe.handle


def stop_reading(con: MessengerConnection) -> None:
    """Acknowledge nothing from now on."""
    handle(con).pause_reading()


def read_again(con: MessengerConnection) -> None:
    handle(con).resume_reading()


def push(number: int, size: int = 1000) -> Message:
    return Message(PUSH, b"%d" % number, data=bytes(size))


async def take(pushes: MessageStream, count: int) -> list[int]:
    return [int((await anext(pushes)).front) for _ in range(count)]


async def fill(made: Outboxes, con: MessengerConnection) -> None:
    """Make the outbox full of a reply that is not read."""
    stop_reading(con)
    for i in range(4):
        ask(con, GROW, i)
    await eventually_async(lambda: made.session.full)


def no_pushes_dropped(made: Outboxes) -> bool:
    return not made.pool.front.pushes_dropped and not made.counters.pushes_dropped


# pushes of the worker that has the session


class Sender:
    """A task that pushes as many as it is told, with pauses if the number ends in 5."""

    def __init__(self, sizes: tuple[int, ...] = (1000,)) -> None:
        self.sizes, self.sent = sizes, 0

    async def __call__(self, con: Connection, m: Message) -> None:
        for _ in range(int(m.front)):
            if not await con.send(push(self.sent, self.sizes[self.sent % len(self.sizes)])):
                break
            self.sent += 1
            if bytes(m.front).endswith(b"5"):
                await asyncio.sleep(0)
        con.send_message(m.reply(b"%d" % self.sent))


@pytest.mark.parametrize("sizes", [(1000,), (3 * LIMIT, 10, 10), (6000, 3 * LIMIT), (7, 6000)])
@pytest.mark.parametrize("count", [44, 45])
@on_uvloop
async def test_a_handler_waits_for_the_reader(sizes: tuple[int, ...], count: int) -> None:
    sender = Sender(sizes)
    async with pool(sender) as (made, con):
        pushes = con.messages(PUSH)
        stop_reading(con)
        asked = ask(con, DO, count)
        await eventually_async(lambda: made.session.full)
        for _ in range(3):
            await asyncio.sleep(0.01)
        assert sender.sent < count
        assert made.session.outbox.nbytes <= 2 * (LIMIT + max(sizes) + 21)
        read_again(con)
        assert await take(pushes, count) == list(range(count))
        assert (await asked).front == b"%d" % count
        assert no_pushes_dropped(made)


@on_uvloop
async def test_a_handler_that_cannot_wait_is_told() -> None:
    sent: list[int] = []

    def flood(con: Connection, m: Message) -> None:
        for number in range(1000):
            con.send_message(push(number))
            sent.append(number)

    async with pool(flood) as (made, con):
        pushes = con.messages(PUSH)
        with pytest.raises(RemoteError, match=r"OutboxFull: \d+ bytes wait for 127.0.0.1:0/"):
            await ask(con, DO)
        assert await take(pushes, len(sent)) == sent == list(range(10))
        assert no_pushes_dropped(made)


@on_uvloop
async def test_it_fails_where_the_policy_says_so() -> None:
    async def send(con: Connection, m: Message) -> None:
        for number in range(1000):
            await con.send(push(number))

    async with pool(send, outbox_full="fail") as (_, con):
        con.messages(PUSH)
        with pytest.raises(RemoteError, match="OutboxFull"):
            await ask(con, DO)


@on_uvloop
async def test_the_newest_pushes_are_kept() -> None:
    def flood(con: Connection, m: Message) -> None:
        for number in range(50):
            con.send_message(push(number))

    async with pool(flood, outbox_full="drop_oldest") as (made, con):
        pushes = con.messages(PUSH)
        stop_reading(con)
        con.send_message(Message(HOLD))
        await eventually_async(lambda: made.counters.pushes_dropped)
        dropped = made.counters.pushes_dropped
        read_again(con)
        assert await take(pushes, 50 - dropped) == list(range(dropped, 50))
        assert dropped == 41


@on_uvloop
async def test_a_push_that_cannot_be_sent_makes_no_other_message_a_push() -> None:
    """A push would be dropped: everything in the outbox is written, and nothing fits beside it."""
    gate = asyncio.Event()

    async def task(con: Connection, m: Message) -> None:
        await gate.wait()
        with pytest.raises(ValueError, match="message front has"):
            con.send_message(Message(PUSH, bytes(17 << 20)))
        con.send_message(m.reply(b"here"))

    async with pool(task, outbox_full="drop_oldest") as (made, con):
        con.messages(PUSH)
        asked = ask(con, DO)
        await eventually_async(lambda: made.pool.workers[0].cons)
        stop_reading(con)
        elsewhere = made.runtime().connection(made.session.id)
        for count, size in ((9, 1000), (40, 1)):
            for _ in range(count):
                elsewhere.send_message(push(0, size))
            await eventually_async(lambda: len(made.session.outbox.sent) >= 9)
        await eventually_async(lambda: made.counters.pushes_dropped)
        await eventually_async(lambda: not made.session.outbox.queued)
        assert made.session.outbox_room < len(b"here") + FOOTER_SIZE
        gate.set()
        await eventually_async(lambda: made.session.full)
        read_again(con)
        assert (await asked).front == b"here"


@on_uvloop
async def test_one_message_to_many_is_a_push_to_each() -> None:
    def task(con: Connection, m: Message) -> None:
        told = push(1, 6000)
        results = []
        for _ in range(3):
            try:
                results.append(con.send_message(told))
            except OutboxFull:
                results.append(False)
        con.send_message(m.reply(repr(results).encode()))

    async with pool(task) as (_, con):
        con.messages(PUSH)
        assert (await ask(con, DO)).front == b"[True, True, False]"


@on_uvloop
async def test_a_waiting_handler_is_told_that_the_session_is_over() -> None:
    sender = Sender()
    async with pool(sender) as (made, con):
        stop_reading(con)
        con.send_message(Message(DO, b"100"))
        await eventually_async(lambda: made.session.full)
        session = made.session
        made.end_sessions()
        await made.pool.settled()
        assert sender.sent < 25
        assert (session.outbox.nbytes, made.pool.workers[0].cons) == (0, {})


@on_uvloop
async def test_a_waiting_handler_goes_on_after_a_reconnect() -> None:
    sender = Sender()
    async with pool(sender) as (made, con):
        pushes = con.messages(PUSH)
        stop_reading(con)
        asked = ask(con, DO, COUNT)
        await eventually_async(lambda: made.session.full)
        handle(con).abort()
        assert await take(pushes, COUNT) == list(range(COUNT))
        assert (await asked).front == b"%d" % COUNT


# pushes that are held


@pytest.mark.parametrize("later", [False, True])
@on_uvloop
async def test_a_handler_may_hold_as_much_as_the_outbox(later: bool) -> None:
    async def send_later(con: Connection, m: Message) -> None:
        for number in range(int(m.front)):
            await con.send(push(number))
        con.send_message(m.reply(m.front))

    def send(con: Connection, m: Message) -> None:
        for number in range(int(m.front)):
            con.send_message(push(number))
        con.send_message(m.reply(m.front))

    async with pool(send_later if later else send) as (made, con):
        pushes = con.messages(PUSH)
        for _ in range(3):
            assert (await ask(con, HOLD, 9)).front == b"9"
            assert await take(pushes, 9) == list(range(9))
        with pytest.raises(RemoteError, match=r"HandlerError: a push .*streaming=True"):
            await ask(con, HOLD, 20)
        assert (await ask(con, HOLD, 9)).front == b"9", "what was dropped is not counted"
        assert await take(pushes, 9) == list(range(9))
        assert no_pushes_dropped(made)


# pushes of other workers


@on_uvloop
async def test_a_worker_without_the_session_drops_what_finds_it_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pool(nothing, nothing) as (made, con):
        pushes = con.messages(PUSH)
        await ask(con, ECHO)
        other = next(w.runtime for w in made.pool.workers.values() if not w.cons)
        stop_reading(con)
        for number in range(30):
            assert other.connection(made.session.id).send_message(push(number))
        await eventually_async(lambda: made.counters.pushes_dropped)
        dropped = made.counters.pushes_dropped
        assert made.session.outbox.nbytes <= LIMIT
        assert "pushes dropped" in caplog.text
        read_again(con)
        assert await take(pushes, 30 - dropped) == list(range(30 - dropped))


@on_uvloop
async def test_a_connection_that_went_elsewhere_wakes_its_senders() -> None:
    sender = Sender()
    async with pool(sender) as (made, con):
        pushes = con.messages(PUSH)
        await ask(con, ECHO)
        stop_reading(con)
        (remote,) = made.pool.workers[0].cons.values()
        background = asyncio.ensure_future(sender(remote, Message(DO, b"30", tid=1)))
        await eventually_async(lambda: made.session.full)
        assert not background.done()
        made.runtime()._forget(remote.id)
        with pytest.raises(OutboxFull):  # of the next one: there, nobody waits for room
            await background
        read_again(con)
        await take(pushes, 10)
        made.session.connection.known_to = None


# requests of a full session


@on_uvloop
async def test_its_requests_wait_and_those_of_others_do_not() -> None:
    async with pool(dispatch_bytes=50_000) as (made, con), client() as messenger:
        other = await connected(messenger, place(made.pool.messenger))
        await fill(made, con)
        waiting = [ask(con, ECHO, i, data=bytes(1000)) for i in range(150)]
        await eventually_async(lambda: made.session.in_seq == 154)
        assert made.session.connection.held_bytes > 150_000
        for i in range(20):
            await ask(other, ECHO, f"other {i}", data=bytes(5000))
        assert not any(front in made.handled for front in map(b"%d".__mod__, range(10, 150)))
        read_again(con)
        assert [int(m.front) for m in await asyncio.gather(*waiting)] == list(range(150))


@on_uvloop
async def test_a_session_that_is_paused_and_then_full_is_read_again() -> None:
    """Its acks are behind the requests that paused it."""
    async with pool(dispatch_bytes=20_000) as (made, con):
        asked = [ask(con, GROW, i, data=bytes(3000)) for i in range(60)]
        assert [int(m.front) for m in await asyncio.gather(*asked)] == list(range(60))
        assert [int(front) for front in made.handled] == list(range(60))
        assert made.counters.faults == 0


@on_uvloop
async def test_a_flood_is_refused_and_loses_nothing() -> None:
    async with pool() as (made, con):
        await fill(made, con)
        asked = [ask(con, ECHO, i, data=bytes(10_000)) for i in range(100)]
        await eventually_async(lambda: made.counters.overruns)
        assert made.session.connection.held_bytes <= 2 * made.session.held_limit
        read_again(con)
        assert [int(m.front) for m in await asyncio.gather(*asked)] == list(range(100))
        assert len(made.handled) == 104


# accounts


@on_uvloop
async def test_a_worker_dies_while_a_session_is_held() -> None:
    async with pool(nothing, nothing) as (made, con):
        await fill(made, con)
        asked = [ask(con, ECHO, i) for i in range(10)]
        await eventually_async(lambda: made.session.in_seq == 14)
        dead = made.session.connection.known_to
        made.pool.kill(dead.slot)
        read_again(con)
        assert [int(m.front) for m in await asyncio.gather(*asked)] == list(range(10))
        assert len(made.workers[1 - dead.slot].handled) == 10


@on_uvloop
async def test_a_session_ends_while_it_is_held() -> None:
    async with pool() as (made, con):
        await fill(made, con)
        asked = [ask(con, ECHO, i) for i in range(10)]
        await eventually_async(lambda: made.session.in_seq == 14)
        made.end_sessions()
        await made.pool.settled()
        assert (made.pool.lanes, made.pool.workers[0].cons) == ({}, {})
        assert len(made.handled) == 14, "what came is handled, for a lossless session"
        for request in asked:
            request.cancel()


@on_uvloop
async def test_a_session_starts_over_while_it_is_held() -> None:
    async with pool() as (made, con):
        await fill(made, con)
        for i in range(10):
            con.send_message(Message(ECHO, b"%d" % i))
        await eventually_async(lambda: made.session.in_seq == 14)
        con.mark_down()
        again = await connected(con.messenger, place(made.pool.messenger))
        assert (await ask(again, ECHO, "again")).front == b"again"
        assert len(made.handled) == 5, "what was held is forgotten with the old session"


@on_uvloop
async def test_a_handler_ends_a_session_that_is_held() -> None:
    async with pool() as (made, con):
        await ask(con, ECHO)
        (remote,) = made.pool.workers[0].cons.values()
        await fill(made, con)
        for i in range(10):
            con.send_message(Message(SILENT, b"%d" % i))
        await eventually_async(lambda: made.session.in_seq == 15)
        remote.mark_down()
        await made.pool.settled()
        await eventually_async(lambda: not made.pool.workers[0].cons)
        assert made.pool.lanes == {}
        con.mark_down()


@pytest.mark.parametrize("seed", range(2))
@on_uvloop
async def test_anything_in_any_order(seed: int) -> None:
    rng = Random(seed)

    async def task(con: Connection, m: Message) -> None:
        for number in range(rng.randrange(20)):
            await con.send(push(number, rng.randrange(4000)))

    async with pool(task, task, dispatch_bytes=30_000) as (made, con), client() as messenger:
        cons = [con, await connected(messenger, place(made.pool.messenger))]
        for number in range(150):
            con = rng.choice(cons)
            step = rng.random()
            if step < 0.05 and con.session.pipe is not None and con.is_connected:
                handle(con).abort()
            elif step < 0.1 and con.is_connected:
                stop_reading(con)
                asyncio.get_running_loop().call_later(0.02, read_again_if_there, con)
            elif step < 0.12:
                server = made.pool.messenger
                if known := list(server.endpoint.registry):
                    server.endpoint.mark_down(rng.choice(known))
                server.driver.run()
            else:
                type_ = rng.choice([ECHO, GROW, DO])
                con.send_message(Message(type_, b"%d" % number, data=bytes(rng.randrange(3000))))
            await asyncio.sleep(rng.random() * 0.004)
        await made.pool.settled()


def read_again_if_there(con: MessengerConnection) -> None:
    if con.session.pipe is not None and isinstance(con.session.pipe.handle, PipeTransport):
        con.session.pipe.handle.resume_reading()


def test_an_unknown_connection_has_no_limit() -> None:
    async def main() -> None:
        with TemporaryDirectory() as directory:
            runtime = Runtime(Chain(), client().name, 0, 1, *[lambda: None] * 2, on_broken=print)
            runtime.connect(f"ipc://{directory}/link", 1, lambda: None)
            con = runtime.connection(7)
            assert isinstance(con, RemoteConnection)
            for number in range(100):
                assert con.send_message(push(number))
            runtime.disconnect()

    asyncio.run(main())
