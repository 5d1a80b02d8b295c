"""A worker in the midst of a slow handler: others do what it has not begun."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mpmsgr import Message
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_arenas import DEBUG, bytes_in_use, slots_in_use
from tests.processes.pool_clients import WAIT_S, sessions, settle
from tests.processes.pool_serving import Serve, kill
from tests.support import eventually_async

STUCK, COUNT, WHO = 0x9001, 0x9002, 0x9003

MODULES = {
    "slow": """
        import os
        import time
        from mpmsgr import handles

        @handles(0x9001)
        def stuck(con, m, state):
            with open("stuck", "a") as file:
                print(os.getpid(), file=file)
            while not os.path.exists("open"):
                time.sleep(0.01)
            return count(con, m, state)

        @handles(0x9002)
        def count(con, m, state):
            state["n"] = state.get("n", 0) + 1
            return [state["n"], m.attempt, os.getpid(), len(m.data)]

        @handles(0x9003)
        def who(con, m):
            return os.getpid()
    """
}

Reply = tuple[int, int, int, int]


async def ask(con: MessengerConnection, type_: int, nbytes: int = 0) -> Reply:
    """What the state counted, the attempt, the worker, the bytes that it got."""
    reply = await con.request(Message(type_, data=bytes(nbytes)), timeout=WAIT_S)
    count, attempt, pid, got = unpack(reply)
    return count, attempt, pid, got


@asynccontextmanager
async def neighbours(
    server: Serve, count: int = 3
) -> AsyncIterator[tuple[int, list[MessengerConnection]]]:
    """A worker and sessions that it has, each of which has counted to 50.

    So much that the worker is known to be fast: none will be taken for overloaded.
    """
    async with sessions(server, 6) as cons:
        at: dict[int, list[MessengerConnection]] = defaultdict(list)
        for con in cons:
            for _ in range(50):
                _, _, pid, _ = await ask(con, COUNT)
            at[pid].append(con)
        pid, here = max(at.items(), key=lambda item: len(item[1]))
        yield pid, here[:count]


def open_gate(server: Serve) -> None:
    (server.directory / "open").touch()


@pytest.mark.parametrize("each", [1, 10], ids=["one", "many"])
@pytest.mark.parametrize("nbytes", [0, 100_000], ids=["small", "large"])
@pytest.mark.parametrize("when", ["behind it", "later"])
def test_others_do_what_a_stuck_worker_has_not_begun(when: str, nbytes: int, each: int) -> None:
    async def main() -> None:
        async with neighbours(server, 2 if each == 1 else 3) as (pid, (stuck, *others)):
            asked = asyncio.create_task(ask(stuck, STUCK))
            if when == "later":
                await eventually_async(lambda: server.written("stuck"), WAIT_S)
            behind = asyncio.gather(*(ask(stuck, COUNT, nbytes) for _ in range(each - 1)))
            counts = [[ask(con, COUNT, nbytes) for _ in range(each)] for con in others]
            for replies in await asyncio.gather(*(asyncio.gather(*own) for own in counts)):
                assert [count for count, *_ in replies] == list(range(51, 51 + each))
                assert {attempt for _, attempt, *_ in replies} == {1}, "none had begun"
                assert {got for *_, got in replies} == {nbytes}
                assert replies[-1][2] != pid
            assert server.written("stuck") == [str(pid)], "it did not begin elsewhere"
            assert not asked.done()
            open_gate(server)
            assert await asked == (51, 1, pid, 0)
            assert [count for count, *_ in await behind] == list(range(52, 51 + each)), "in order"
            await settle(server, WHO, 2)

    with Serve(MODULES, workers=2, flags=DEBUG) as server:
        asyncio.run(main())
        assert server.stop() == 0
        assert not any(slots_in_use(server).values()), slots_in_use(server)
        assert not any(bytes_in_use(server))


def test_a_stuck_worker_that_gave_back_is_killed() -> None:
    async def main() -> None:
        async with neighbours(server) as (_, (stuck, *others)):
            asked = asyncio.create_task(ask(stuck, STUCK))
            behind = asyncio.gather(*(ask(stuck, COUNT, 100_000) for _ in range(10)))
            counts = [ask(con, COUNT, 100_000) for con in others for _ in range(10)]
            await asyncio.gather(*counts)
            await eventually_async(lambda: server.written("stuck"), WAIT_S)
            (pid,) = server.written("stuck")  # on a slow machine it may have moved before
            kill(int(pid))
            open_gate(server)
            assert (await asked)[:2] == (51, 2)
            assert [reply[:2] for reply in await behind] == [(n, 1) for n in range(52, 62)]

    with Serve(MODULES, workers=2) as server:
        asyncio.run(main())
