"""Messages of a dead worker: done again, in order, and only what killed it is charged with that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, ErrorCode, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.pool.envelope import READY, pack
from mpmsgr.pool.quarantine import Quarantine
from mpmsgr.pool.spool import Spool
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    pool_and_session,
    refused,
    session,
    sessions,
    text,
)
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import INCARNATION

WORK, LATER, MORTAL = 0x9001, 0x9002, 0x9003


class Log(list[tuple[str, str, int]]):
    """What was begun, in order: where, which message, the how manieth attempt."""

    def note(self, site: Site, m: Message) -> None:
        self.append((site.name, text(m), m.attempt))

    def of(self, site: str) -> list[tuple[str, int]]:
        """What was begun at *site*: message, attempt."""
        return [(front, attempt) for name, front, attempt in self if name == site]

    def attempts(self, front: str) -> list[int]:
        """Of one message, everywhere."""
        return [attempt for _, which, attempt in self if which == front]


class Mortal:
    """A plugin: handlers, plain and async, that kill their worker for a message in *kills*.

    kills: deaths that are left, by message; gate: what the async one waits for, and trigger, what
    it waits for when it is going to die.
    """

    def __init__(self, **kills: int) -> None:
        self.kills = {front.removeprefix("_"): count for front, count in kills.items()}
        self.log = Log()
        self.gate, self.trigger = asyncio.Event(), asyncio.Event()

    def _perhaps_die(self, site: Site, m: Message) -> None:
        if self.kills.get(text(m)):
            self.kills[text(m)] -= 1
            site.die()

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(WORK)
        def work(con: Connection, m: Message) -> str:
            self.log.note(site, m)
            self._perhaps_die(site, m)
            return site.name

        @handles(MORTAL, max_attempts=1)
        def mortal(con: Connection, m: Message) -> str:
            return work(con, m)

        @handles(LATER)
        async def later(con: Connection, m: Message) -> str:
            self.log.note(site, m)
            await (self.trigger if self.kills.get(text(m)) else self.gate).wait()
            self._perhaps_die(site, m)
            return site.name

        return [work, mortal, later]


# one is running


@on_uvloop
async def test_only_the_message_that_was_running_is_charged() -> None:
    plugin = Mortal(_2=1)
    async with pool_and_session(plugin, workers=2) as (p, con):
        asked = [ask(con, WORK, i) for i in range(5)]
        replies = [unpack(await one) for one in asked]
        away = replies[2]
        begun = plugin.log.of(away)
        assert begun[-3:] == [("2", 2), ("3", 1), ("4", 1)], "in order, and nobody else is charged"
        assert set(begun[:-3]) <= {("0", 1), ("1", 1)}, "done, but that was not told any more"
        assert replies[2:] == [away] * 3
        assert p.quarantined == 0


@on_uvloop
async def test_messages_of_a_dead_worker_come_before_later_ones() -> None:
    plugin = Mortal()
    async with pool(plugin) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        asked = [ask(con, LATER, i) for i in range(3)]
        await eventually_async(lambda: plugin.log)
        p.kill(0)
        asked += [ask(con, LATER, i) for i in (3, 4)]
        await eventually_async(lambda: p.lane().queued == 2)
        plugin.gate.set()
        await p.worker(0)
        await asyncio.gather(*asked)
        assert plugin.log.of("0.2") == [("0", 2), ("1", 1), ("2", 1), ("3", 1), ("4", 1)]


@on_uvloop
async def test_what_comes_while_messages_are_done_again_waits_for_them() -> None:
    plugin = Mortal(_0=2)
    async with pool_and_session(plugin, respawn=True) as (p, con):
        asked = [ask(con, WORK, i) for i in range(200)]
        await asyncio.gather(*asked)
        begun = plugin.log.of("0.3")
        assert begun == [("0", 3)] + [(str(i), 1) for i in range(1, 200)]
        assert p.deaths == 2


@on_uvloop
async def test_other_sessions_do_not_notice() -> None:
    plugin = Mortal(bad=1)
    async with pool(plugin, workers=2) as (p, _), sessions(p, 8) as cons:
        p.trust()
        waiting = [ask(con, LATER, i) for i, con in enumerate(cons)]
        await eventually_async(lambda: len(plugin.log) == 8)
        plugin.gate.set()
        await asyncio.gather(*waiting)
        plugin.log.clear()
        asked = [ask(con, WORK, f"{i} {n}") for n in range(20) for i, con in enumerate(cons)]
        asked.append(ask(cons[0], WORK, "bad"))
        await asyncio.gather(*asked)
        assert plugin.log.attempts("bad") == [1, 2]
        for i in range(8):
            for n in range(20):
                assert set(plugin.log.attempts(f"{i} {n}")) == {1}
            # Each ran once, or again in order from some point on.
            fronts = [front for name, front, _ in plugin.log if front.startswith(f"{i} ")]
            again = next((at for at in range(1, len(fronts)) if fronts[at] in fronts[:at]), None)
            whole = [f"{i} {n}" for n in range(20)]
            assert fronts[:again] == whole[: again or 20]
            assert again is None or fronts[again:] == whole[20 - len(fronts[again:]) :]


@on_uvloop
async def test_a_handler_that_runs_behind_an_async_one_is_charged_as_well() -> None:
    plugin = Mortal(killer=1)
    async with pool(plugin, respawn=True) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        asked = [ask(con, LATER, "waits"), ask(con, WORK, "killer"), ask(con, WORK, "behind")]
        await eventually_async(lambda: len(p.lane().inflight) == 3)
        plugin.gate.set()
        await asyncio.gather(*asked)
        assert plugin.log.attempts("killer") == [1, 2]
        assert plugin.log.attempts("behind") == [1]


@on_uvloop
async def test_a_death_with_nothing_running_charges_nobody() -> None:
    plugin = Mortal()
    async with pool(plugin, workers=0) as (p, messenger):
        p.stray(0, 1).send(pack((INCARNATION, 1, READY, None)))  # and never begins anything
        await eventually_async(lambda: p.ready == {0: 1})
        con = await session(p, messenger)
        asked = [ask(con, WORK, i) for i in range(3)]
        await eventually_async(lambda: len(p.lane().inflight) == 4)  # and accept
        p.front.worker_lost(0, 1, "signal 9", [], 9)
        await p.worker(1)
        await asyncio.gather(*asked)
        assert plugin.log == [("1.1", str(i), 1) for i in range(3)]


@on_uvloop
async def test_what_a_worker_says_after_it_was_declared_dead_does_not_count() -> None:
    """Its completion is on its way when it dies: the message is done again, answered once."""
    replies: list[str] = []

    def plugin(site: Site) -> list[Any]:
        def die_unheard() -> None:
            if site.name == "0.1":
                site.die()

        @handles(WORK)
        def work(con: Connection, m: Message) -> list[object]:
            if text(m) == "slow":
                site.on_busy = die_unheard  # right after the reply to this was sent
                end = time.monotonic() + 0.003
                while time.monotonic() < end:
                    pass
            replies.append(site.name)
            return [site.name, m.attempt]

        return [work]

    async with pool_and_session(plugin) as (p, con):
        assert await answer(con, WORK, "quick") == ["0.1", 1]
        asked = ask(con, WORK, "slow")
        await eventually_async(lambda: p.deaths)
        await p.worker(0)
        assert unpack(await asked) == ["0.2", 2]
        assert replies == ["0.1", "0.1", "0.2"]
        assert con.session.in_seq == 2


# several are running


@on_uvloop
async def test_all_that_had_begun_are_under_suspicion_and_rerun_one_at_a_time() -> None:
    running: list[str] = []
    together: list[int] = []
    log = Log()
    gate = asyncio.Event()

    def plugin(site: Site) -> list[Any]:
        @handles(LATER)
        async def later(con: Connection, m: Message) -> str:
            log.note(site, m)
            running.append(text(m))
            together.append(len(running))
            await (site.hang() if site.name == "0.1" else gate.wait())
            running.remove(text(m))
            return site.name

        return [later]

    async with pool(plugin) as (p, _), sessions(p, 4) as cons:
        p.trust()
        asked = [ask(con, LATER, i) for i, con in enumerate(cons)]
        await eventually_async(lambda: len(running) == 4)
        assert len(p.kill(0)) == 4
        running.clear()
        together.clear()
        gate.set()
        await p.worker(1)
        await asyncio.gather(*asked)
        assert sorted(log.of("1.1")) == [(str(i), 2) for i in range(4)]
        assert together == [1] * 4
        assert p.quarantined == 0


@on_uvloop
async def test_a_suspect_that_does_it_again_is_charged_and_the_others_are_not() -> None:
    plugin = Mortal(killer=99)
    async with pool(plugin, respawn=True, max_attempts=2) as (p, _), sessions(p, 3) as cons:
        p.trust()
        fronts = ["a", "killer", "b"]
        asked = [ask(con, LATER, front) for con, front in zip(cons, fronts, strict=True)]
        await eventually_async(lambda: len(plugin.log) == 3)
        plugin.trigger.set()
        await eventually_async(lambda: p.deaths)
        plugin.gate.set()
        code, why = await refused(asked[1])
        assert code == ErrorCode.QUARANTINED
        assert why == "its worker died of it, 2 times; worker 0 was lost: signal 9"
        await asyncio.gather(asked[0], asked[2])
        assert plugin.log.attempts("killer") == [1, 2, 3], "under suspicion, then charged twice"
        for front in ("a", "b"):
            assert plugin.log.attempts(front)[:2] == [1, 2]
            assert len(plugin.log.attempts(front)) <= 4, "beside each run of the killer, and after"
        assert (p.deaths, p.quarantined) == (3, 1)


@on_uvloop
async def test_who_waits_behind_a_suspect_is_none() -> None:
    plugin = Mortal()
    async with pool(plugin) as (p, _), sessions(p, 2) as (con, other):
        p.trust()
        asked = [ask(con, LATER, 0), ask(con, LATER, 1), ask(other, LATER, 2)]
        await eventually_async(lambda: len(plugin.log) == 2)
        await eventually_async(lambda: p.seat(0).held >= 3)
        p.kill(0)
        plugin.gate.set()
        await p.worker(0)
        await asyncio.gather(*asked)
        assert sorted(plugin.log.of("0.2")) == [("0", 2), ("1", 1), ("2", 2)]


# the last attempt


@pytest.mark.parametrize(
    ("type_", "setting", "deaths"), [(WORK, 3, 3), (WORK, 1, 1), (MORTAL, 3, 1), (MORTAL, 0, 1)]
)
@on_uvloop
async def test_a_message_that_kills_too_often_goes_to_quarantine(
    type_: int, setting: int, deaths: int
) -> None:
    plugin = Mortal(bad=99)
    async with pool_and_session(plugin, respawn=True, max_attempts=setting) as (p, con):
        asked = [ask(con, type_, front) for front in ("before", "bad", "behind")]
        code, why = await refused(asked[1])
        times = "once" if deaths == 1 else f"{deaths} times"
        assert code == ErrorCode.QUARANTINED
        assert why == f"its worker died of it, {times}; worker 0 was lost: signal 9"
        assert (p.deaths, p.quarantined) == (deaths, 1)
        assert plugin.log.attempts("bad") == list(range(1, deaths + 1))
        await asyncio.gather(asked[0], asked[2])
        assert plugin.log.attempts("behind") == [1], "the lane goes on"


@on_uvloop
async def test_a_message_may_kill_without_end() -> None:
    plugin = Mortal(bad=10)
    async with pool_and_session(plugin, respawn=True, max_attempts=0) as (p, con):
        assert await answer(con, WORK, "bad") == "0.11"
        assert plugin.log.attempts("bad") == list(range(1, 12))
        assert p.quarantined == 0


@on_uvloop
async def test_what_is_in_quarantine(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    quarantine = Quarantine(spool)
    plugin = Mortal(bad=99)
    async with pool_and_session(plugin, respawn=True, max_attempts=2, quarantine=quarantine) as (
        p,
        con,
    ):
        code, _ = await refused(ask(con, WORK, "bad", data=b"x" * 1000))
        assert code == ErrorCode.QUARANTINED
        peer = str(p.session.peer_addr)
    (id_,) = spool.ids()
    item = spool.get(id_)
    assert (item.attempts, item.signal, item.peer) == (2, 9, peer)
    assert item.cause == "worker 0 was lost: signal 9"
    m = item.message()
    assert (m.type, bytes(m.front), bytes(m.data)) == (WORK, b"bad", b"x" * 1000)


# events


@on_uvloop
async def test_events_of_a_dead_worker_happen_again_in_their_place() -> None:
    log: list[tuple[str, str]] = []

    class Listens(Dispatcher):
        def __init__(self, site: Site) -> None:
            self.site = site

        def handle_accept(self, con: Connection) -> None:
            log.append((self.site.name, "accept"))
            if self.site.name == "0.1":
                self.site.die()

        def handle_lane_moved(self, con: Connection) -> None:
            log.append((self.site.name, "moved"))

        def dispatch(self, con: Connection, m: Message) -> None:
            log.append((self.site.name, text(m)))
            con.send_message(m.reply(m.front))

    async with pool_and_session(lambda site: [Listens(site)]) as (p, con):
        asked = [ask(con, WORK, i) for i in range(2)]
        await eventually_async(lambda: p.deaths)
        await p.worker(0)
        await asyncio.gather(*asked)
        moved = [("0.2", what) for what in ("moved", "accept", "0", "1")]
        assert log == [("0.1", "accept"), *moved]


@on_uvloop
async def test_a_session_that_ends_while_its_worker_is_dead() -> None:
    plugin = Mortal(_1=1)
    async with pool(plugin) as (p, messenger):
        con = await session(p, messenger)
        await answer(con, WORK, "0")
        con.send_message(Message(WORK, b"1"))
        con.send_message(Message(WORK, b"2"))
        await eventually_async(lambda: p.deaths)
        await messenger.shutdown()
        await eventually_async(lambda: p.lane().over)
        await p.worker(0)
        await p.settled()
        assert plugin.log.of("0.2") == [("1", 2), ("2", 1)], "lossless: what came is handled"
        assert not p.lanes
