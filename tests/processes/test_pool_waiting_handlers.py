"""Async handlers that wait for long take no turn from others."""

from __future__ import annotations

import asyncio

from mpmsgr import Message
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_clients import WAIT_S, sessions
from tests.processes.pool_serving import WORKER, Serve, kill
from tests.support import eventually_async

BUSY, WAIT = 0x9001, 0x9002
WAITING = 20

MODULES = {
    "waits": """
        import asyncio
        import os
        import time
        from mpmsgr import handles

        @handles(0x9001)
        def busy(con, m):
            time.sleep(0.002)
            con.send_message(m.reply(m.front))

        @handles(0x9002)
        async def wait(con, m):
            with open("waiting", "a") as file:
                print(con.id, file=file)
            while not os.path.exists("open"):
                await asyncio.sleep(0.01)
            return m.attempt
    """
}


async def work(con: MessengerConnection) -> None:
    """Requests one after the other and all at once: each takes its time."""
    for number in range(20):
        await con.request(Message(BUSY, b"%d" % number), timeout=10)
    asked = [con.request(Message(BUSY, b"%d" % number), timeout=10) for number in range(20)]
    replies = await asyncio.gather(*asked)
    assert [bytes(m.front) for m in replies] == [b"%d" % number for number in range(20)]


async def wait(con: MessengerConnection) -> int:
    attempt: int = unpack(await con.request(Message(WAIT), timeout=WAIT_S))
    return attempt


def test_handlers_that_waited_in_a_worker_that_died_leave_room_for_others() -> None:
    """All of them are under suspicion then, and run anew one after the other."""

    async def main() -> None:
        async with sessions(server, WAITING + 1) as (busy, *cons):
            polls = asyncio.gather(*map(wait, cons))
            await eventually_async(lambda: len(server.written("waiting")) == WAITING, WAIT_S)
            (worker,) = server.pids(WORKER)
            kill(worker)
            await work(busy)
            await eventually_async(lambda: len(server.written("waiting")) == 2 * WAITING, WAIT_S)
            await work(busy)
            (server.directory / "open").touch()
            assert await polls == [2] * WAITING

    with Serve(MODULES, workers=1) as server:
        asyncio.run(main())


def test_handlers_that_wait_leave_room_for_others() -> None:
    """Each worker holds many of them, and has work that takes its time besides."""

    async def main() -> None:
        async with sessions(server, WAITING + 1) as (busy, *cons):
            await work(busy)
            polls = asyncio.gather(*map(wait, cons))
            await work(busy)
            await eventually_async(lambda: len(server.written("waiting")) == WAITING, WAIT_S)
            (server.directory / "open").touch()
            await polls

    with Serve(MODULES, workers=2) as server:
        asyncio.run(main())
