"""Deadlines of handlers: what is logged, who is killed, and who is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mpmsgr import ErrorCode, Message, RemoteError
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_clients import WAIT_S, sessions
from tests.processes.pool_serving import WORKER, Serve
from tests.support import eventually_async

HANGS_ONCE, HANGS, LONG, BUSY = 0x9001, 0x9002, 0x9003, 0x9004

MODULES = {
    "late": """
        import os
        import time
        from mpmsgr import handles

        def wait_for(name):
            with open("waits", "a") as file:
                print(name, file=file)
            while not os.path.exists(name):
                time.sleep(0.01)

        def answer(m, state):
            state["n"] = state.get("n", 0) + 1
            return [state["n"], m.attempt, os.getpid()]

        @handles(0x9001, deadline=(0.3, 1.5))
        def hangs_once(con, m, state):
            if m.attempt == 1:
                wait_for("never")
            return answer(m, state)

        @handles(0x9002, deadline=1.0, max_attempts=2)
        def hangs(con, m, state):
            wait_for("never")

        @handles(0x9003, deadline=(0.2, 600))
        def takes_long(con, m, state):
            wait_for(m.front.decode())
            return answer(m, state)

        @handles(0x9004)
        def busy(con, m, state):
            wait_for(m.front.decode())
            return answer(m, state)
    """
}


@pytest.fixture
def server() -> Iterator[Serve]:
    with Serve(MODULES, workers=2) as server:
        yield server


async def ask(con: MessengerConnection, type_: int, front: bytes = b"") -> list[int]:
    """What was counted, the attempt, the worker."""
    value: list[int] = unpack(await con.request(Message(type_, front), timeout=WAIT_S))
    return value


def open_gate(server: Serve, name: str) -> None:
    (server.directory / name).touch()


def dumps(server: Serve, type_: int) -> list[str]:
    return server.lines("WARNING supervisor", f"message of type {type_:#x}; its stacks follow")


def kills(server: Serve, type_: int, seconds: float) -> list[str]:
    cause = f"(handler of message type {type_:#x} exceeded its deadline of {seconds:g} s)"
    return server.lines("WARNING supervisor", "ended: signal 9", cause)


def test_a_handler_that_hangs_is_dumped_and_killed_and_its_message_runs_again(
    server: Serve,
) -> None:
    async def main() -> None:
        async with sessions(server, 1) as (con,):
            asked = [ask(con, HANGS_ONCE), ask(con, BUSY, b"late.py"), ask(con, BUSY, b"late.py")]
            replies = await asyncio.gather(*asked)
            assert [reply[:2] for reply in replies] == [[1, 2], [2, 1], [3, 1]]

    asyncio.run(main())
    assert len(dumps(server, HANGS_ONCE)) == len(kills(server, HANGS_ONCE, 1.5)) == 1
    log = server.log
    stacks = log[log.index("its stacks follow") : log.index("ended: signal 9")]
    assert "in wait_for" in stacks
    assert "in hangs_once" in stacks


def test_what_always_hangs_is_given_up_and_the_lane_goes_on(server: Serve) -> None:
    async def main() -> None:
        async with sessions(server, 1) as (con,):
            given_up, after = asyncio.gather(ask(con, HANGS)), ask(con, BUSY, b"late.py")
            assert (await after)[:2] == [1, 1]
            with pytest.raises(RemoteError) as raised:
                await given_up
            assert raised.value.code == ErrorCode.QUARANTINED
            assert "2 times" in raised.value.text
            assert f"{HANGS:#x} exceeded its deadline of 1 s" in raised.value.text

    asyncio.run(main())
    assert len(kills(server, HANGS, 1)) == 2
    assert server.lines("ERROR io", f"type {HANGS:#x}", "attempt 2", "there is no quarantine_dir")


def test_a_handler_past_its_soft_deadline_alone_goes_on(server: Serve) -> None:
    async def main() -> None:
        async with sessions(server, 1) as (con,):
            asked = asyncio.create_task(ask(con, LONG, b"open"))
            await eventually_async(lambda: "in takes_long" in server.log, WAIT_S)
            open_gate(server, "open")
            assert (await asked)[:2] == [1, 1]

    asyncio.run(main())
    assert len(dumps(server, LONG)) == 1, "once per message"


def test_a_handler_without_a_deadline_is_never_killed(server: Serve) -> None:
    """It takes longer than another one is allowed to."""

    async def main() -> None:
        workers = server.pids(WORKER)
        async with sessions(server, 2) as (con, other):
            asked = asyncio.create_task(ask(con, BUSY, b"open"))
            await eventually_async(lambda: "open" in server.written("waits"), WAIT_S)
            assert (await ask(other, HANGS_ONCE))[:2] == [1, 2]
            assert (await ask(other, HANGS_ONCE))[:2] == [2, 2]
            open_gate(server, "open")
            count, attempt, pid = await asked
            assert (count, attempt) == (1, 1)
            assert pid in workers

    asyncio.run(main())
    assert dumps(server, BUSY) == []
