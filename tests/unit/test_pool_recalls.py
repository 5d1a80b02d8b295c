"""Taking back what a slow worker has not begun, while another one has nothing to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest

from mpmsgr import Connection, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.pool import page
from tests.support import eventually_async
from tests.unit.pool_harness import answer, ask, on_uvloop, pool, session, sessions, text
from tests.unit.pool_site import Site

WORK, LATER, SLOW = 0x9001, 0x9002, 0x9003
LARGE = 400_000


class Doing:
    """A plugin that notes what was done where, and which attempt it was.

    SLOW takes so long that the worker looks up from its batch afterwards: `looks_up` is called.
    """

    def __init__(self) -> None:
        self.runs: list[tuple[str, str, int]] = []
        self.gate = asyncio.Event()
        self.looks_up: list[Any] = []

    def __call__(self, site: Site) -> Iterable[Any]:
        def look_up() -> None:
            if self.looks_up:
                self.looks_up.pop(0)()

        site.on_busy = look_up

        @handles(WORK)
        def work(con: Connection, m: Message) -> list[Any]:
            self.runs.append((site.name, text(m), m.attempt))
            return [site.name, len(m.data)]

        @handles(SLOW)
        def slow(con: Connection, m: Message) -> list[Any]:
            end = time.monotonic() + 0.003
            while time.monotonic() < end:
                pass
            return work(con, m)

        @handles(LATER)
        async def later(con: Connection, m: Message) -> list[Any]:
            await self.gate.wait()
            return work(con, m)

        return [work, slow, later]

    def fronts(self, site: str) -> list[str]:
        """What was done at *site*, in order."""
        return [front for name, front, _ in self.runs if name == site]


@pytest.mark.parametrize("size", [0, LARGE])
@on_uvloop
async def test_a_worker_that_reads_nothing_keeps_nobody_waiting(size: int) -> None:
    plugin = Doing()
    async with pool(plugin) as (p, _), sessions(p, 3) as cons:
        p.trust()
        for con in cons:
            await ask(con, WORK, data=bytes(size))
        plugin.runs.clear()
        with p.frozen(0):
            asked = [
                ask(con, WORK, f"{who} {n}", data=bytes(size))
                for n in range(2)
                for who, con in enumerate(cons)
            ]
            await eventually_async(lambda: p.seat(0).held == 6)
            await p.worker(1)
            replies = [unpack(one) for one in await asyncio.gather(*asked)]
            assert replies == [["1.1", size]] * 6
            assert p.recalls == 1
        assert plugin.fronts("0.1") == [], "it dropped what it read too late"
        assert {attempt for _, _, attempt in plugin.runs} == {1}
        for who in range(3):
            mine = [front for front in plugin.fronts("1.1") if front[0] == str(who)]
            assert mine == [f"{who} 0", f"{who} 1"]
        await eventually_async(lambda: not p.seat(0).recalled)
        p.front.retire(1, 1)
        assert await answer(cons[0], WORK) == ["0.1", 0], "it goes on"


@on_uvloop
async def test_what_has_begun_stays() -> None:
    plugin = Doing()
    async with pool(plugin) as (p, _), sessions(p, 3) as cons:
        p.trust()
        begun = [ask(con, LATER, f"begun {who}") for who, con in enumerate(cons)]
        await eventually_async(lambda: len(p.workers[0].page.started()) == 3)
        with p.frozen(0):
            asked = [ask(con, WORK, f"behind {who}") for who, con in enumerate(cons)]
            await eventually_async(lambda: p.seat(0).held == 6)
            await p.worker(1)
            await eventually_async(lambda: p.seat(0).recalled and p.seat(0).held == 3)
        plugin.gate.set()
        await asyncio.gather(*begun, *asked)
        assert sorted(plugin.fronts("0.1"))[:3] == [f"begun {who}" for who in range(3)]
        for who in range(3):
            mine = [front for _, front, _ in plugin.runs if front.endswith(str(who))]
            assert mine == [f"begun {who}", f"behind {who}"], "in order, wherever"
        assert {attempt for _, _, attempt in plugin.runs} == {1}


@on_uvloop
async def test_a_worker_stops_in_the_midst_of_a_batch() -> None:
    """It is asked while it runs one, and sees it before the next."""
    plugin = Doing()
    async with pool(plugin) as (p, _), sessions(p, 2) as cons:
        p.trust()
        for con in cons:
            await answer(con, WORK)
        plugin.runs.clear()
        with p.frozen(0):
            asked = [ask(con, SLOW, f"{who} {n}") for n in range(3) for who, con in enumerate(cons)]
            await eventually_async(lambda: p.seat(0).held == 6)
            seat = p.seat(0)
            plugin.looks_up = [lambda: p.recall(seat)]
        assert len(plugin.runs) == 1, "the one that ran when it was asked"
        await p.worker(1)
        await asyncio.gather(*asked)
        assert len(plugin.runs) == 6, "each ran once"
        for who in range(2):
            mine = [front for _, front, _ in plugin.runs if front[0] == str(who)]
            assert mine == [f"{who} {n}" for n in range(3)]
        await eventually_async(lambda: not seat.recalled)


@on_uvloop
async def test_a_worker_dies_while_it_is_asked() -> None:
    plugin = Doing()
    async with pool(plugin) as (p, _), sessions(p, 2) as cons:
        p.trust()
        for con in cons:
            await answer(con, WORK)
        plugin.runs.clear()
        with p.frozen(0):
            asked = [ask(con, WORK, f"{who} {n}") for n in range(3) for who, con in enumerate(cons)]
            await eventually_async(lambda: p.seat(0).held == 6)
            await p.worker(1)
            await eventually_async(lambda: p.recalls == 1)
            p.kill(0)
        await asyncio.gather(*asked)
        assert len(plugin.runs) == 6
        assert {attempt for _, _, attempt in plugin.runs} == {1}
        await p.worker(0)
        p.front.retire(1, 1)
        assert await answer(cons[0], WORK) == ["0.2", 0]


@on_uvloop
async def test_a_request_to_a_predecessor_is_not_for_the_next_worker() -> None:
    """It may be stored on the page after that was cleared for the next one."""
    plugin = Doing()
    async with pool(plugin) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        p.kill(0)
        worker = await p.worker(0)
        worker.page.cells[page.RECALL] = 1 << 32 | 1
        for n in range(3):
            assert await answer(con, WORK, n) == ["0.2", 0]
        assert plugin.fronts("0.2") == ["0", "1", "2"]


@on_uvloop
async def test_without_a_page_nobody_is_asked() -> None:
    plugin = Doing()
    async with pool(plugin, workers=2, sizes=None) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        await answer(con, WORK)
        slot = p.lane().worker.slot  # type: ignore[union-attr]
        with p.frozen(slot):
            asked = [ask(con, WORK, n) for n in range(3)]
            await eventually_async(lambda: p.seat(slot).held == 3)
            await asyncio.sleep(0.02)
            assert (p.recalls, p.seat(slot).held) == (0, 3)
        await asyncio.gather(*asked)
