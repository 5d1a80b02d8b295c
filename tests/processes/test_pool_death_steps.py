"""A worker dies at each step from receiving a message to answering it: no client notices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mpmsgr import Message
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_clients import WAIT_S, session, sessions
from tests.processes.pool_serving import WORKER, Serve

SYNC, ASYNC, PUSH = 0x9001, 0x9002, 0x9003
COUNT, DOOMED = 40, 15

MODULES = {
    "fragile": """
        import asyncio
        import os
        import signal
        from mpmsgr import Message, handles, on_start
        from mpmsgr.pool.runtime import Runtime

        def step(name):
            '''Die here, if that was asked for: it happens to one worker.'''
            try:
                os.unlink("die when " + name)
            except FileNotFoundError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

        def before(method, name):
            original = getattr(Runtime, method)
            def wrapped(*args):
                step(name)
                return original(*args)
            setattr(Runtime, method, wrapped)

        before("_received", "received")
        before("_send_batch", "completed")
        flush = Runtime._send_batch

        def flushed(self, records):
            flush(self, records)
            step("told")

        Runtime._send_batch = flushed

        @on_start
        def start():
            step("starting")

        def work(con, m, state):
            doomed = m.front == b"doomed"
            if doomed:
                step("begun")
            state["n"] = state.get("n", 0) + 1
            con.send_message(Message(0x9003, b"%d" % state["n"]))
            con.send_message(m.reply(b"%d %d" % (state["n"], m.attempt)))
            if doomed:
                step("sent")

        @handles(0x9001)
        def now(con, m, state):
            work(con, m, state)

        @handles(0x9002)
        async def later(con, m, state):
            await asyncio.sleep(0.001)
            work(con, m, state)
            await asyncio.sleep(0.001)
    """
}


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    with Serve(MODULES) as server:
        yield server


async def exchange(con: MessengerConnection, type_: int) -> list[int]:
    """Many requests at once, all answered and counted in order, as are the pushes that come with
    them; returns their attempts.
    """
    pushes = con.messages(PUSH)
    order: list[int] = []

    async def ask(number: int) -> tuple[int, int]:
        m = Message(type_, b"doomed" if number == DOOMED else b"")
        reply = await con.request(m, timeout=WAIT_S)
        order.append(number)
        count, attempt = map(int, bytes(reply.front).split())
        return count, attempt

    replies = await asyncio.gather(*map(ask, range(COUNT)))
    assert order == list(range(COUNT))
    assert [count for count, _ in replies] == list(range(1, COUNT + 1))
    numbers = [int((await anext(pushes)).front) for _ in range(COUNT)]
    assert numbers == list(range(1, COUNT + 1))
    assert not pushes._queue, "a push came twice"
    return [attempt for _, attempt in replies]


def die_when(server: Serve, step: str) -> None:
    """The next worker that comes to *step* dies there."""
    (server.directory / f"die when {step}").touch()


def has_died(server: Serve, step: str) -> bool:
    return not (server.directory / f"die when {step}").exists()


async def die_at(server: Serve, step: str, type_: int) -> list[list[int]]:
    """Three sessions at work while a worker dies at *step*; attempts of their messages."""
    async with sessions(server, 3) as cons:
        die_when(server, step)
        attempts = await asyncio.gather(*(exchange(con, type_) for con in cons))
    assert has_died(server, step)
    return attempts


@pytest.mark.parametrize("step", ["received", "begun", "sent", "completed", "told"])
def test_a_worker_dies_at_a_step_of_a_handler(server: Serve, step: str) -> None:
    attempts = asyncio.run(die_at(server, step, SYNC))
    again = sorted(attempt for of_one in attempts for attempt in of_one if attempt > 1)
    if step in ("begun", "sent"):
        assert again == [2], "one had begun, and not completed"
        assert any(of_one[DOOMED] == 2 for of_one in attempts)
    elif step == "received":
        assert again == [], "none had begun"
    else:
        assert again in ([], [2]), "one at the most had begun, as far as anybody knows"


@pytest.mark.parametrize("step", ["received", "begun", "sent", "completed", "told"])
def test_a_worker_dies_at_a_step_of_an_async_handler(server: Serve, step: str) -> None:
    attempts = asyncio.run(die_at(server, step, ASYNC))
    again = [attempt for of_one in attempts for attempt in of_one if attempt > 1]
    assert len(again) <= len(attempts), "one of each session had begun"
    assert set(again) <= {2}
    if step in ("begun", "sent"):
        assert any(of_one[DOOMED] == 2 for of_one in attempts)


def test_a_worker_dies_while_it_starts() -> None:
    server = Serve(MODULES, workers=1)
    die_when(server, "starting")
    with server:
        assert has_died(server, "starting")
        assert len(server.lines("worker 0 (generation 1)", "ended: signal 9")) == 1

        async def main() -> None:
            async with session(server) as con:
                die_when(server, "starting")
                die_when(server, "begun")
                attempts = await exchange(con, SYNC)
                assert attempts[DOOMED] == 2
                assert sum(attempts) == COUNT + 1
            assert has_died(server, "starting")

        asyncio.run(main())
        assert len(server.lines("ended: signal 9")) == 3
        assert len(server.pids(WORKER)) == 1
