"""What waits behind an asynchronous handler of its lane, and what that leaves to others."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from mpmsgr import Connection, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.dispatch.serial import RUNNING, STOPPED
from mpmsgr.dispatch.verdicts import Retry
from mpmsgr.pool.items import PARKED
from mpmsgr.pool.outlet import LaneOutlet
from mpmsgr.pool.waiting import Waiting
from tests.support import eventually_async
from tests.unit.pool_harness import answer, ask, on_uvloop, pool, sessions, text
from tests.unit.pool_site import Site

NOTE, POLL, KEYED = 0x9001, 0x9002, 0x9003
#: More than a lane has at a worker.
MANY = 300

# counting


def lane_with(*waiting: tuple[int, int], blocked: int = RUNNING) -> LaneOutlet:
    """A lane in which messages wait: number, bytes."""
    lane = LaneOutlet(1, 1)
    lane.blocked = blocked
    nobody: Any = None
    lane.waiting = deque((nobody, message(nbytes), number) for number, nbytes in waiting)
    return lane


def message(nbytes: int) -> Message:
    """One that came as so many bytes."""
    m = Message(NOTE)
    m.raw = bytes(nbytes)
    return m


def test_what_goes_on_counts_until_it_ends() -> None:
    waiting = Waiting(1024)
    waiting.add(1, message(10))
    waiting.add(2, "connect")
    assert (waiting.count, waiting.nbytes) == (2, 10)
    waiting.end(1)
    waiting.end(1)
    assert (waiting.count, waiting.nbytes) == (1, 0)


def test_what_comes_behind_counts_once() -> None:
    waiting, lane = Waiting(1024), lane_with((2, 20), (3, 30))
    assert not waiting.park(lane, lane)
    lane.waiting.append((lane.waiting[0][0], message(40), 4))
    assert not waiting.park(lane, lane)
    assert (waiting.count, waiting.nbytes) == (3, 90)


@pytest.mark.parametrize(("credit", "above"), [(1024, 32), (128, 32), (64, 16), (8, 2), (1, 1)])
def test_a_lane_with_much_behind_is_parked_until_it_has_less(credit: int, above: int) -> None:
    waiting = Waiting(credit)
    lane = lane_with(*((number, 1) for number in range(2, above + 2)))
    assert not waiting.park(lane, lane)
    lane.waiting.append((lane.waiting[0][0], message(1), above + 2))
    assert waiting.park(lane, lane)
    assert not waiting.park(lane, lane), "that is known"
    for left in range(above, above // 2, -1):
        lane.waiting.popleft()
        assert len(lane.waiting) == left
        assert waiting.unpark(lane) is None
    lane.waiting.popleft()
    assert waiting.unpark(lane) is lane
    assert waiting.unpark(lane) is None


def test_what_the_io_process_did_not_send_does_not_count() -> None:
    waiting, lane = Waiting(1024), lane_with((0, 0), (2, 20))
    waiting.park(lane, lane)
    assert (waiting.count, waiting.nbytes) == (1, 20)


@pytest.mark.parametrize("blocked", [STOPPED, RUNNING | STOPPED])
def test_what_will_come_again_does_not_count(blocked: int) -> None:
    waiting, lane = Waiting(1024), lane_with((2, 20), blocked=blocked)
    assert not waiting.park(lane, lane)
    assert waiting.count == 0


def test_what_is_void_counts_no_more() -> None:
    waiting, lane = Waiting(1024), lane_with((2, 20), (3, 30))
    waiting.park(lane, lane)
    waiting.add(1, message(10))
    waiting.drop(lane)
    assert (waiting.count, waiting.nbytes) == (1, 10)
    waiting.clear()
    assert (waiting.count, waiting.nbytes, waiting.unpark(lane)) == (0, 0, None)


# in a pool


class Polls:
    """POLL waits for *gate*, then answers the attempt; again: how often it is retried before.

    NOTE and KEYED answer at once. done: what was handled, in order; begun: polls.
    """

    def __init__(self, again: int = 0) -> None:
        self.again = again
        self.gate = asyncio.Event()
        self.done: list[str] = []
        self.begun = 0

    def __call__(self, site: Site) -> list[Any]:
        async def poll(con: Connection, m: Message) -> int:
            self.begun += 1
            await self.gate.wait()
            if self.again:
                self.again -= 1
                raise Retry(after=0)
            self.done.append(text(m))
            return m.attempt

        async def note(con: Connection, m: Message) -> str:
            self.done.append(text(m))
            return site.name

        @handles(KEYED, key=slice(0, 1))
        async def keyed(con: Connection, m: Message) -> int:
            return await (poll(con, m) if text(m) == "poll" else note(con, m))  # type: ignore[return-value]

        return [handles(POLL)(poll), handles(NOTE)(note), keyed]


def parked(lane: Any) -> bool:
    """Is nothing more of *lane* handed out?"""
    return bool(lane.holds & PARKED)


@on_uvloop
async def test_who_sends_on_and_on_behind_a_poll_takes_no_turn_from_others() -> None:
    plugin = Polls()
    async with pool(plugin, credit=8) as (p, _), sessions(p, 2) as (con, other):
        poll = ask(con, POLL, "poll")
        behind = [ask(con, NOTE, n) for n in range(MANY)]
        await eventually_async(lambda: p.items == 1 + MANY)
        assert await answer(other, NOTE, "other") == "0.1"
        await eventually_async(lambda: parked(p.lane(con)))
        assert len(p.lane(con).inflight) < MANY // 2, "and the rest is not copied to the worker"
        for _ in range(20):
            await answer(other, NOTE, "other")
        plugin.gate.set()
        assert unpack(await poll) == 1
        await asyncio.gather(*behind)
        assert [what for what in plugin.done if what != "other"] == [
            "poll",
            *map(str, range(MANY)),
        ]
        await eventually_async(lambda: not parked(p.lane(con)))
        assert p.lane(con).is_empty
        await answer(con, NOTE, "goes on")


@on_uvloop
async def test_what_a_worker_may_hold_can_shrink_meanwhile() -> None:
    plugin = Polls()
    async with pool(plugin) as (p, _), sessions(p, 2) as (con, other):
        p.trust()
        asked = [ask(con, POLL, "poll"), *(ask(con, NOTE, n) for n in range(20))]
        await eventually_async(lambda: p.seat(0).waiting == 21)
        p.seat(0).credit.messages = 2
        assert await answer(other, NOTE, "other") == "0.1"
        plugin.gate.set()
        await asyncio.gather(*asked)


@on_uvloop
async def test_the_lane_of_a_key_as_well() -> None:
    plugin = Polls()
    async with pool(plugin, credit=8) as (p, _), sessions(p, 2) as (con, other):
        asked = [ask(con, KEYED, "poll"), *(ask(con, KEYED, f"p{n}") for n in range(MANY))]
        await eventually_async(lambda: p.items == 1 + MANY)
        assert await answer(other, KEYED, "other key") == "0.1"
        plugin.gate.set()
        await asyncio.gather(*asked)
        assert plugin.done == ["other key", "poll", *(f"p{n}" for n in range(MANY))]


@on_uvloop
async def test_what_is_tried_again_goes_on_behind_itself() -> None:
    plugin = Polls(again=3)
    async with pool(plugin, credit=8) as (p, _), sessions(p, 1) as (con,):
        asked = [ask(con, POLL, "poll"), *(ask(con, NOTE, n) for n in range(MANY))]
        await eventually_async(lambda: parked(p.lane(con)))
        plugin.gate.set()
        assert unpack(await asked[0]) == 4
        await asyncio.gather(*asked[1:])
        assert plugin.done == ["poll", *map(str, range(MANY))]
        await eventually_async(lambda: not p.seat(0).waiting)


@on_uvloop
async def test_a_lane_whose_worker_died_goes_on_elsewhere() -> None:
    plugin = Polls()
    async with pool(plugin, workers=2, credit=8) as (p, _), sessions(p, 1) as (con,):
        asked = [ask(con, POLL, "poll"), *(ask(con, NOTE, n) for n in range(MANY))]
        await eventually_async(lambda: parked(p.lane(con)))
        home = p.lane(con).worker
        assert home is not None
        p.kill(home.slot)
        await eventually_async(lambda: plugin.begun == 2)
        plugin.gate.set()
        assert unpack(await asked[0]) == 2
        await asyncio.gather(*asked[1:])
        assert plugin.done[-MANY:] == [*map(str, range(MANY))]


@on_uvloop
async def test_a_session_that_ends_meanwhile_leaves_nothing() -> None:
    plugin = Polls()
    async with pool(plugin, credit=8) as (p, _), sessions(p, 2) as (con, other):
        asked = [ask(con, POLL, "poll"), *(ask(con, NOTE, n) for n in range(MANY))]
        lane = p.lane(con)
        await eventually_async(lambda: parked(lane))
        con.mark_down()
        await asyncio.gather(*asked, return_exceptions=True)
        p.front.mark_down(lane.id)
        plugin.gate.set()
        await eventually_async(lambda: lane.id not in p.lanes and p.items == 0)
        assert await answer(other, NOTE, "other") == "0.1"
