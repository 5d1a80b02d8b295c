"""workers.chat with three workers, which are killed: who hears what, and in which order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.stream import MessageStream
from tests.processes.pool_clients import WAIT_S, session, sessions
from tests.processes.pool_serving import WORKER, Serve, kill
from tests.support import eventually_async
from workers.chat import Here, Join, Leave, Line, RollCall, Say, Summary, Who

REPOSITORY = Path(__file__).parents[2]
WORKERS, EACH, ROLL_CALL_S = 3, 4, 0.25

MODULES = {
    # The chat, with roll calls that one can wait for.
    "hasty": f"""
        import sys
        sys.path.insert(0, {str(REPOSITORY)!r})

        from mpmsgr import every
        from workers import chat
        from workers.chat import here, join, leave, say, who

        chat.ROLL_CALL_S = {ROLL_CALL_S}
        call_the_roll = every({ROLL_CALL_S})(chat.call_the_roll)
    """
}


class Guest:
    """One who joins a room, talks until he is told to stop, and listens all the time.

    numbers: of the lines that he said, as he was told.
    """

    def __init__(self, con: MessengerConnection, room: str, name: str) -> None:
        self.con, self.room, self.name = con, room, name
        self.lines: MessageStream = con.messages(Line)
        self.numbers: list[int] = []

    async def join(self) -> None:
        await self.con.request(Join(self.room, self.name), timeout=WAIT_S)

    async def talk(self, over: asyncio.Event) -> None:
        """Three lines at a time."""
        while not over.is_set():
            said = len(self.numbers)
            texts = [f"{self.name} {i}" for i in range(said, said + 3)]
            asked = [self.con.request(Say(self.room, text), timeout=WAIT_S) for text in texts]
            self.numbers += await asyncio.gather(*asked)

    async def heard(self, count: int) -> list[Line]:
        return [await anext(self.lines) for _ in range(count)]


@pytest.fixture
def server() -> Iterator[Serve]:
    with Serve(MODULES, workers=WORKERS) as server:
        yield server


async def kill_each(server: Serve, guests: list[Guest]) -> None:
    """One worker after the other, each in the midst of a talk that then goes on."""
    for pid in server.pids(WORKER):
        kill(pid)
        before = [len(guest.numbers) for guest in guests]
        await eventually_async(
            lambda before=before: all(  # type: ignore[misc]
                len(guest.numbers) > n + 6 for guest, n in zip(guests, before, strict=True)
            ),
            WAIT_S,
            "everybody goes on talking",
        )


def test_all_in_a_room_hear_every_line_once_and_in_order(server: Serve) -> None:
    async def main() -> None:
        async with sessions(server, 2 * EACH) as cons:
            guests = [Guest(con, "tea" if i % 2 else "bar", f"n{i}") for i, con in enumerate(cons)]
            for guest in guests:
                await guest.join()
            over = asyncio.Event()
            talks = [asyncio.create_task(guest.talk(over)) for guest in guests]
            await kill_each(server, guests)
            over.set()
            await asyncio.gather(*talks)
            for room in ("tea", "bar"):
                await check_room([guest for guest in guests if guest.room == room])

    asyncio.run(main())
    assert len(server.lines("WARNING supervisor", "ended: signal 9")) == WORKERS


async def check_room(members: list[Guest]) -> None:
    """All have heard the same lines: each that was said, once, by its number."""
    count = sum(len(guest.numbers) for guest in members)
    first, *others = [await guest.heard(count) for guest in members]
    assert all(heard == first for heard in others)
    assert [line.number for line in first] == list(range(1, count + 1))
    for guest in members:
        own = [line for line in first if line.name == guest.name]
        assert [line.text for line in own] == [f"{guest.name} {i}" for i in range(len(own))]
        assert [line.number for line in own] == guest.numbers
        assert not guest.lines._queue, "a line came twice"


async def answer_roll_calls(con: MessengerConnection, room: str) -> None:
    async for call in con.messages(RollCall):
        con.send_message(Here(room, call.number))


def test_who_is_gone_is_missed_at_a_roll_call_which_one_worker_holds(server: Serve) -> None:
    async def main() -> None:
        async with session(server) as ann, session(server) as eve:
            began = time.monotonic()
            calls, summaries = eve.messages(RollCall), ann.messages(Summary)
            answering = asyncio.create_task(answer_roll_calls(ann, "tea"))
            await ann.request(Join("tea", "Ann"), timeout=WAIT_S)
            await eve.request(Join("bar", "Eve"), timeout=WAIT_S)
            await eve.request(Leave("bar"), timeout=WAIT_S)
            async with session(server) as bob:
                everybody = await bob.request(Join("tea", "Bob"), timeout=WAIT_S)
                assert everybody == ["Ann", "Bob"]
            for pid in server.pids(WORKER)[:2]:
                kill(pid)
            async with asyncio.timeout(WAIT_S):
                while (await anext(summaries)).names != ["Ann"]:
                    pass
            assert await eve.request(Who("tea"), timeout=WAIT_S) == ["Ann"]
            most = (time.monotonic() - began) / ROLL_CALL_S + 3
            assert 3 <= len(calls._queue) <= most, "one call at a time, not one per worker"
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    asyncio.run(main())
