"""kill -9 of each process during load: who is told what, what goes on, what is left."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from mpmsgr import ConnectError, ErrorCode, Message, RemoteError, SessionReset
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_clients import sessions
from tests.processes.pool_serving import IO, WORKER, Serve, kill
from tests.support import eventually_async

WHO, HANG, DIE, SLOW, TICK, PUSH, SPIN = 0x9001, 0x9002, 0x9003, 0x9004, 0x9005, 0x9006, 0x9007
RAISE = 0x9008

MODULES = {
    "mortal": """
        import asyncio
        import os
        import re
        import time
        from mpmsgr import Message, handles

        @handles(0x9001)
        def who(con, m):
            return [os.getpid(), con.id, m.attempt]

        @handles(0x9002)
        def hang(con, m):
            if not os.path.exists("hanging"):
                with open("hanging", "w") as file:
                    print(os.getpid(), file=file)
                time.sleep(600)
            return [os.getpid(), con.id, m.attempt]

        @handles(0x9003)
        def die(con, m):
            os._exit(7)

        @handles(0x9004)
        def slow(con, m):
            time.sleep(0.005)
            return [os.getpid(), con.id]

        @handles(0x9005)
        def tick(con, m):
            loop, id_, text = asyncio.get_running_loop(), con.id, bytes(m.front)

            def again():
                con.send_message(Message(0x9006, text))
                con.connection(id_).send_message(Message(0x9006, text))
                with open("ticks", "a") as file:
                    print(os.getpid(), file=file)
                loop.call_later(0.005, again)

            again()

        @handles(0x9007)
        def spin(con, m):
            re.match(r"(a+)+$", "a" * 60 + "b")

        class Unheard(BaseException):
            pass

        @handles(0x9008)
        def raises(con, m):
            raise Unheard
    """
}


@dataclass
class Outcome:
    """What became of one session's requests."""

    answered: int = 0
    again: int = 0
    resets: int = 0
    pids: Counter[int] = field(default_factory=Counter)
    last_at: float = 0.0


async def load(con: MessengerConnection, stop: asyncio.Event, out: Outcome, width: int) -> None:
    """Requests of *con*, *width* at a time, until *stop*; every one ends, in one way or another."""

    async def ask() -> None:
        while not stop.is_set():
            try:
                pid, _, attempt = unpack(await con.request(Message(WHO), timeout=15))
            except SessionReset:
                out.resets += 1
                if not con.is_connected:
                    await con.wait_connected(15)
            else:
                out.answered += 1
                out.again += attempt - 1
                out.pids[pid] += 1
                out.last_at = time.monotonic()

    await asyncio.gather(*(ask() for _ in range(width)))


async def pid_of(con: MessengerConnection) -> int:
    """The worker that has the session; asked again when the session was lost meanwhile."""
    while True:
        try:
            pid: int = unpack(await con.request(Message(WHO), timeout=15))[0]
        except SessionReset:
            continue
        return pid


async def under_load(
    cons: list[MessengerConnection], outcomes: list[Outcome], width: int = 8
) -> tuple[asyncio.Event, list[asyncio.Task[None]]]:
    """Load on every session, going well."""
    stop = asyncio.Event()
    tasks = [
        asyncio.ensure_future(load(con, stop, out, width))
        for con, out in zip(cons, outcomes, strict=True)
    ]
    await eventually_async(lambda: all(out.answered > 50 for out in outcomes), 20)
    return stop, tasks


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    """With two workers; what dies in a test is replaced in it."""
    with Serve(MODULES) as server:
        yield server


@pytest.fixture(scope="module")
def single() -> Iterator[Serve]:
    """With one worker."""
    with Serve(MODULES, workers=1) as server:
        yield server


# a worker


def test_kill_9_of_a_worker_under_load(server: Serve) -> None:
    async def main(server: Serve) -> None:
        async with sessions(server, 8) as cons:
            homes = [await pid_of(con) for con in cons]
            assert sorted(Counter(homes).values()) == [4, 4]
            outcomes = [Outcome() for _ in cons]
            # So little that no worker is overloaded: sessions stay where they are.
            stop, tasks = await under_load(cons, outcomes, width=2)
            held = [asyncio.ensure_future(cons[0].request(Message(HANG))) for _ in range(3)]
            await eventually_async(lambda: server.written("hanging"), 10)
            victim = int(server.written("hanging")[0])
            assert victim == homes[0]
            survivors = set(server.pids(WORKER)) - {victim}
            began = kill(victim)
            replies = [unpack(reply) for reply in await asyncio.gather(*held)]
            assert [attempt for _, _, attempt in replies] == [2, 1, 1], "only the first had begun"
            told_s = time.monotonic() - began
            await eventually_async(
                lambda: any(set(out.pids) - survivors - {victim} for out in outcomes),
                15,
                "replies of a new worker",
            )
            served_s = time.monotonic() - began
            stop.set()
            await asyncio.gather(*tasks)
            assert [(out.resets, out.again) for out in outcomes] == [(0, 0)] * 8
            print(
                f"handed out again after {told_s:.3f} s, a new worker serves after {served_s:.3f}"
            )

    asyncio.run(main(server))
    assert len(server.pids(WORKER)) == 2


def test_with_the_only_worker_dead_requests_wait_for_the_next_one(single: Serve) -> None:
    async def main(server: Serve) -> None:
        async with sessions(server, 2) as (con, other):
            old = await pid_of(con)
            with pytest.raises(RemoteError) as raised:
                await con.request(Message(DIE), timeout=15)
            assert raised.value.code == ErrorCode.QUARANTINED
            assert "3 times; worker 0 was lost: exit 7" in raised.value.text
            with pytest.raises(RemoteError, match="3 times; worker 0 was lost: exit 1"):
                await con.request(Message(RAISE), timeout=15)
            new = [await pid_of(con), await pid_of(other)]
            assert new[0] == new[1] != old
            assert con.last_reset is other.last_reset is None

    asyncio.run(main(single))


# the I/O process


def test_kill_9_of_the_io_process_under_load(server: Serve) -> None:
    async def main(server: Serve) -> None:
        async with sessions(server, 8) as cons:
            workers = server.pids(WORKER)
            (io,) = server.pids(IO)
            incarnation = unpack(await cons[0].request(Message(WHO), timeout=15))[1] >> 32
            pushes = cons[0].messages(PUSH)
            cons[0].send_message(Message(TICK, b"of the old one"))
            assert bytes((await anext(pushes)).front) == b"of the old one"
            outcomes = [Outcome() for _ in cons]
            stop, tasks = await under_load(cons, outcomes)
            began = kill(io)
            await eventually_async(lambda: all(out.resets for out in outcomes), 15)
            told_s = time.monotonic() - began
            answered = [out.answered for out in outcomes]
            await eventually_async(
                lambda: all(o.answered > n for o, n in zip(outcomes, answered, strict=True)), 15
            )
            served_s = time.monotonic() - began
            stop.set()
            await asyncio.gather(*tasks)
            assert server.pids(WORKER) == workers, "the workers live on"
            for con in cons:
                assert isinstance(con.last_reset, SessionReset)
                new_id = unpack(await con.request(Message(WHO), timeout=15))[1]
                assert new_id >> 32 == incarnation + 1
            await no_old_pushes(server, cons[0])
            print(f"all told after {told_s:.3f} s, all served after {served_s:.3f}")

    asyncio.run(main(server))


async def no_old_pushes(server: Serve, con: MessengerConnection) -> None:
    """The old ticker goes on, and reaches nobody."""
    pushes = con.messages(PUSH)
    while pushes._queue:  # those of the old session
        await anext(pushes)
    before = len(server.written("ticks"))
    await eventually_async(lambda: len(server.written("ticks")) > before + 10, 15)
    await pid_of(con)
    assert not pushes._queue


@pytest.mark.alone
def test_a_new_io_process_does_not_wait_for_work_of_the_old_one(single: Serve) -> None:
    async def main(server: Serve) -> None:
        async with sessions(server, 2) as (con, other):
            doomed = [asyncio.ensure_future(con.request(Message(SLOW))) for _ in range(900)]
            await asyncio.wait(doomed, return_when=asyncio.FIRST_COMPLETED)
            (io,) = server.pids(IO)
            began = kill(io)
            await pid_of(other)
            served_s = time.monotonic() - began
            results = await asyncio.gather(*doomed, return_exceptions=True)
            left = sum(isinstance(result, SessionReset) for result in results)
            assert left > 500, "or this test shows nothing"
            assert served_s < left * 0.005, "what was left of the old work"
            print(f"{left} messages of the old session left, served after {served_s:.3f} s")

    asyncio.run(main(single))


# the supervisor


@pytest.mark.parametrize("busy", [WHO, SPIN], ids=["under load", "inside C"])
def test_kill_9_of_the_supervisor(busy: int) -> None:
    async def main(server: Serve) -> None:
        async with sessions(server, 4) as cons:
            outcomes = [Outcome() for _ in cons]
            _, tasks = await under_load(cons, outcomes)
            if busy == SPIN:
                cons[0].send_message(Message(SPIN))
                pid = await asyncio.to_thread(spinning, server)
                assert pid in server.pids(WORKER)
            server.signal(signal.SIGKILL)
            began = time.monotonic()
            await eventually_async(lambda: not server.children(), 2.0, "nobody is left")
            print(f"nobody left after {time.monotonic() - began:.3f} s")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for con in cons:
                con.mark_down()

    server = Serve(MODULES)
    try:
        server.start()
        asyncio.run(main(server))
    finally:
        server.close()


def spinning(server: Serve) -> int:
    """The worker that uses a CPU all the time, once it does."""
    before = {child.pid: child.cpu_times().user for child in server.children()}

    def find() -> int:
        for child in server.children():
            grown = child.cpu_times().user - before.get(child.pid, 0.0)
            if grown > 0.5 and child.pid in server.pids(WORKER):
                return int(child.pid)
        return 0

    pid: int = server.until(find, "a worker that spins")
    return pid


# the end


def test_term_under_load() -> None:
    async def main(server: Serve) -> None:
        async with sessions(server, 8) as cons:
            outcomes = [Outcome() for _ in cons]
            stop, tasks = await under_load(cons, outcomes)
            begun = [asyncio.ensure_future(cons[0].request(Message(SLOW))) for _ in range(50)]
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            server.signal(signal.SIGTERM)
            stop.set()
            await asyncio.gather(*begun)  # what was begun is answered
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, ConnectError), result
            await eventually_async(lambda: all(con.last_reset for con in cons), 15)
            assert await asyncio.to_thread(server.wait) == 0

    with Serve(MODULES, flags=("--log-level", "warning")) as server:
        asyncio.run(main(server))
        assert len(server.log.splitlines()) == 1, "the ready line alone"


def test_a_handler_that_does_not_end_is_not_waited_for_longer_than_told() -> None:
    async def main(server: Serve) -> None:
        async with sessions(server, 1) as (con,):
            hung = asyncio.ensure_future(con.request(Message(HANG)))
            await asyncio.wait([hung], timeout=0.1)
            server.signal(signal.SIGTERM)
            with pytest.raises(SessionReset):
                await asyncio.wait_for(hung, 15)

    server = Serve(MODULES, flags=("--graceful-timeout", "0.5"))
    try:
        server.start()
        asyncio.run(main(server))
        assert server.wait() == 4
        assert server.lines("mpmsgr: stopped unfinished: ", "worker"), server.log
        assert server.children() == []
        assert not server.run_dir.exists()
    finally:
        server.close()
