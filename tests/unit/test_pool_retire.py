"""A worker that is to go: the front says when it holds nothing any more, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.pool.envelope import BATCH, READY, identity, pack, unpack
from mpmsgr.pool.front import PoolFront
from mpmsgr.pool.link import Link
from tests.loopback import ANY_PORT, HOST
from tests.support import eventually_async

INCARNATION = 3


class Worker:
    """A worker that says only what the test has it say. records: what it was given."""

    def __init__(self, endpoint: str, slot: int) -> None:
        self.records: list[Any] = []
        self.welcome = asyncio.Event()
        self._link = Link.dealer(endpoint, identity(slot, 1), self._received)
        self._say(READY, {})

    def _received(self, parts: list[bytes]) -> None:
        self.records += unpack(parts[0])[1]
        self.welcome.set()

    def _say(self, kind: int, payload: object) -> None:
        self._link.send(pack((INCARNATION, 1, kind, payload)))

    def complete(self, count: int) -> None:
        """The first *count* items of its only lane are done."""
        self._say(BATCH, [[[self.records[0][0], count, []]], 0])

    def close(self) -> None:
        """End it."""
        self._link.close()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[PoolFront, Worker, MessengerConnection, list[object]]]:
    """A front with worker 0, a client's connection, and who was said to be retired."""
    retired: list[object] = []
    with TemporaryDirectory(dir="/tmp") as directory:
        endpoint = f"ipc://{Path(directory) / 'io.ipc'}"
        front = PoolFront(
            endpoint,
            INCARNATION,
            credit=100,
            dispatch_bytes=1 << 20,
            retired=lambda *which: retired.append(which),
        )
        server = Messenger("svc.0", sink=front, first_id=1, drain_s=0.1)
        server.start()
        front.attach(server.driver)
        await server.bind(ANY_PORT)
        worker = Worker(endpoint, 0)
        try:
            await asyncio.wait_for(worker.welcome.wait(), 10.0)
            async with Messenger("client.?", drain_s=0.1) as client:
                con = client.get_connection(f"{HOST}:{server.addr.port}")
                assert isinstance(con, MessengerConnection)
                yield front, worker, con, retired
        finally:
            await server.shutdown(0.1)
            worker.close()
            front.close()


async def given(worker: Worker, con: MessengerConnection, count: int) -> int:
    """The worker has so many messages, and the event of the session before them."""
    for tid in range(count):
        con.send_message(Message(0x8001, b"front", tid=tid + 1))

    def items() -> int:
        return sum(len(record[2]) for record in worker.records)

    await eventually_async(lambda: items() >= count + 1, 10.0)
    return items()


def test_it_is_said_when_the_last_message_is_done() -> None:
    async def test() -> None:
        async with served() as (front, worker, con, retired):
            held = await given(worker, con, 3)
            front.retire(0, 1)
            assert retired == []
            worker.complete(held - 1)
            await eventually_async(lambda: front._work.count == 1, 10.0)
            assert retired == []
            worker.complete(1)
            await eventually_async(lambda: retired == [(0, 1)], 10.0)
            con.send_message(Message(0x8001, b"front"))
            await eventually_async(lambda: front._work.count, 10.0)
            assert front._lanes.workers[0].held == 0, "nothing new"
            assert retired == [(0, 1)], "once"

    asyncio.run(test())


@pytest.mark.parametrize(("slot", "generation"), [(0, 2), (7, 1)])
def test_who_is_not_known_holds_nothing(slot: int, generation: int) -> None:
    async def test() -> None:
        async with served() as (front, worker, con, retired):
            await given(worker, con, 1)
            front.retire(slot, generation)
            assert retired == [(slot, generation)]

    asyncio.run(test())


def test_who_dies_holds_nothing() -> None:
    async def test() -> None:
        async with served() as (front, worker, con, retired):
            await given(worker, con, 1)
            front.retire(0, 1)
            front.worker_lost(0, 1, "signal 9")
            assert retired == [(0, 1)]

    asyncio.run(test())
