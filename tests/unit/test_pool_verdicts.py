"""Verdicts of handlers: again later, not this one, never again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from mpmsgr import Connection, ErrorCode, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.dispatch.verdicts import Poison, Reject, Retry
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
    service,
    service_and_session,
    session,
    sessions,
    text,
    with_and_without_workers,
)
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import WAIT_S

WORK, LATER, KEYED, FREE, PUSH = range(0x9001, 0x9006)
LARGE = 600_000


class Judge:
    """A plugin whose handlers want messages again as often as *again* says, *after* seconds.

    runs: message and attempt of everything, in order; ends: when they completed.
    """

    def __init__(self, after: float = 0.005, **again: int) -> None:
        self.after = after
        self.again = {front.removeprefix("_"): count for front, count in again.items()}
        self.runs: list[tuple[str, int]] = []
        self.gate = asyncio.Event()

    def judge(self, con: Connection, m: Message) -> Any:
        front = text(m) if m.type != KEYED else unpack(m)["n"]
        self.runs.append((front, m.attempt))
        con.send_message(Message(PUSH, b"%d" % m.attempt))
        if m.type != FREE:
            con.state["n"] = con.state.get("n", 0) + 1
        if self.again.get(front):
            self.again[front] -= 1
            return Retry(self.after)
        return [m.attempt, con.state["n"] if m.type != FREE else 0]

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(WORK)
        def work(con: Connection, m: Message) -> Any:
            return self.judge(con, m)

        @handles(LATER)
        async def later(con: Connection, m: Message) -> Any:
            if not self.gate.is_set():
                self.runs.append((text(m), m.attempt))
                await self.gate.wait()
            return self.judge(con, m)

        @handles(KEYED, key="room")
        def keyed(con: Connection, m: Message) -> Any:
            return self.judge(con, m)

        @handles(FREE, ordering="none")
        def free(con: Connection, m: Message) -> Any:
            return self.judge(con, m)

        return [work, later, keyed, free]


# again


@with_and_without_workers
@pytest.mark.parametrize("type_", [WORK, LATER])
@pytest.mark.parametrize("after", [0, 0.005])
@on_uvloop
async def test_a_message_that_is_tried_again(workers: int, type_: int, after: float) -> None:
    plugin = Judge(after, _1=3)
    plugin.gate.set()
    async with service_and_session(plugin, workers) as (_, con):
        pushes = con.messages(PUSH)
        asked = [ask(con, type_, n) for n in range(4)]
        replies = [unpack(one) for one in await asyncio.gather(*asked)]
        assert replies == [[1, 1], [4, 2], [1, 3], [1, 4]], "nothing of the earlier ones is kept"
        runs = [("0", 1), ("1", 1), ("1", 2), ("1", 3), ("1", 4), ("2", 1), ("3", 1)]
        assert plugin.runs == runs, "its lane waits"
        assert [text(await anext(pushes)) for _ in range(4)] == ["1", "4", "1", "1"]


@with_and_without_workers
@on_uvloop
async def test_other_lanes_do_not_wait(workers: int) -> None:
    plugin = Judge(after=1.5, slow=1)
    async with service(plugin, workers) as (server, _), sessions(server, 5) as cons:
        pushes = [con.messages(PUSH) for con in cons]
        waiting = ask(cons[0], WORK, "slow")
        await eventually_async(lambda: plugin.runs)
        others = [ask(con, WORK, n) for con in cons[1:] for n in range(20)]
        await asyncio.wait_for(asyncio.gather(*others), 1.4)
        assert not waiting.done()
        assert len(pushes) == 5
        waiting.cancel()
        cons[0].mark_down()


@with_and_without_workers
@on_uvloop
async def test_the_lane_of_a_key_waits(workers: int) -> None:
    plugin = Judge(after=0.05, x=2)
    async with service(plugin, workers) as (server, _), sessions(server, 2) as (con, other):
        con.messages(PUSH)
        other.messages(PUSH)
        fronts = {n: msgpack.packb({"room": "a", "n": n}) for n in ("1", "x", "2", "3")}
        assert await answer(con, KEYED, fronts["1"]) == [1, 1]
        waits = ask(other, KEYED, fronts["x"])
        await eventually_async(lambda: ("x", 1) in plugin.runs)
        asked = [ask(con, KEYED, fronts["2"]), ask(other, KEYED, fronts["3"])]
        assert unpack(await waits) == [3, 2]
        assert sorted([unpack(await one) for one in asked]) == [[1, 3], [1, 4]]
        assert [front for front, _ in plugin.runs[:4]] == ["1", "x", "x", "x"]


@with_and_without_workers
@on_uvloop
async def test_a_message_without_an_order_waits_alone(workers: int) -> None:
    plugin = Judge(after=0.05, x=1)
    async with service_and_session(plugin, workers) as (_, con):
        con.messages(PUSH)
        first = ask(con, FREE, "x")
        rest = [ask(con, FREE, n) for n in range(10)]
        await asyncio.gather(*rest)
        assert unpack(await first) == [2, 0]


@on_uvloop
async def test_large_messages_behind_one_that_is_tried_again() -> None:
    plugin = Judge(_0=2, _2=1)
    async with pool_and_session(plugin, workers=2) as (_, con):
        con.messages(PUSH)
        asked = [ask(con, WORK, n, data=bytes(LARGE)) for n in range(4)]
        await asyncio.gather(*asked)
        assert [front for front, _ in plugin.runs] == ["0", "0", "0", "1", "2", "2", "3"]


@on_uvloop
async def test_a_worker_dies_while_a_message_waits_to_be_tried_again() -> None:
    plugin = Judge(after=0.1, _0=1)
    async with pool_and_session(plugin) as (p, con):
        con.messages(PUSH)
        asked = [ask(con, WORK, n) for n in range(3)]
        await eventually_async(lambda: p.lane().redo)
        p.kill(0)
        await p.worker(1)
        assert plugin.runs == [("0", 1)], "not before its time"
        await asyncio.gather(*asked)
        assert plugin.runs == [("0", 1), ("0", 2), ("1", 1), ("2", 1)]


@on_uvloop
async def test_it_is_no_death() -> None:
    plugin = Judge(after=0, _0=10)
    async with pool_and_session(plugin, max_attempts=2) as (p, con):
        con.messages(PUSH)
        assert await answer(con, WORK, 0) == [11, 1]
        assert p.quarantined == 0


@with_and_without_workers
@on_uvloop
async def test_the_session_ends_while_a_message_waits_to_be_tried_again(workers: int) -> None:
    plugin = Judge(after=0.1, _0=1)
    async with service_and_session(plugin, workers) as (_, con):
        con.send_message(Message(WORK, b"0"))
        con.send_message(Message(WORK, b"1"))
        await eventually_async(lambda: plugin.runs)
        con.mark_down()
        await eventually_async(lambda: len(plugin.runs) == 3)
        assert plugin.runs == [("0", 1), ("0", 2), ("1", 1)], "what came is handled"


@with_and_without_workers
@on_uvloop
async def test_a_new_session_does_not_wait_for_what_the_old_one_is_to_try_again(
    workers: int,
) -> None:
    plugin = Judge(after=WAIT_S, _0=1)
    async with service(plugin, workers) as (server, messenger):
        con = await session(server, messenger)
        con.send_message(Message(WORK, b"0"))
        await eventually_async(lambda: plugin.runs)
        con.mark_down()
        again = await session(server, messenger)
        again.messages(PUSH)
        assert await asyncio.wait_for(answer(again, WORK, 1), WAIT_S / 2) == [1, 1]
        assert plugin.runs == [("0", 1), ("1", 1)]


@on_uvloop
async def test_a_suspect_that_is_to_be_tried_again_keeps_no_worker_from_others() -> None:
    plugin = Judge(after=1.5, a=1, b=1)
    async with pool(plugin) as (p, _), sessions(p, 3) as cons:
        for con in cons:
            con.messages(PUSH)
        for con, front in zip(cons, ("a", "b"), strict=False):
            con.send_message(Message(LATER, front.encode()))
        await eventually_async(lambda: len(plugin.runs) == 2)
        assert len(p.kill(0)) == 2
        plugin.gate.set()
        await p.worker(0)
        await eventually_async(lambda: ("a", 2) in plugin.runs and ("b", 2) in plugin.runs)
        assert await asyncio.wait_for(answer(cons[2], WORK, "c"), 1.4) == [1, 1]


# not this one, never again


@with_and_without_workers
@on_uvloop
async def test_refusals(workers: int) -> None:
    def plugin(site: Site) -> list[Any]:
        @handles(WORK)
        def work(con: Connection, m: Message) -> Any:
            con.send_message(Message(PUSH, b"dropped"))
            match text(m):
                case "reject":
                    return Reject("not today")
                case "coded":
                    raise Reject("not you", code=1001)
                case "poison":
                    raise Poison("it is bad")
            return "ok"

        return [work]

    async with service_and_session(plugin, workers) as (_, con):
        pushes = con.messages(PUSH)
        assert await refused(ask(con, WORK, "reject")) == (ErrorCode.REJECTED, "not today")
        assert await refused(ask(con, WORK, "coded")) == (1001, "not you")
        poisoned = await refused(ask(con, WORK, "poison"))
        assert poisoned == (ErrorCode.QUARANTINED, "poison: it is bad")
        assert await answer(con, WORK) == "ok"
        assert text(await anext(pushes)) == "dropped"
        assert con.session.in_seq == 5, "three errors, a push and a reply"


@on_uvloop
async def test_poison_goes_to_quarantine_and_nothing_else_does(tmp_path: Path) -> None:
    def plugin(site: Site) -> list[Any]:
        @handles(WORK)
        def work(con: Connection, m: Message) -> Any:
            return Poison(f"{text(m)} is bad") if int(m.front) % 4 == 1 else text(m)

        @handles(KEYED, key=slice(1))
        async def keyed(con: Connection, m: Message) -> Any:
            await asyncio.sleep(0)
            return work(con, m)

        return [work, keyed]

    spool = Spool(tmp_path)
    async with pool_and_session(plugin, workers=2, quarantine=Quarantine(spool)) as (p, con):
        asked = [ask(con, type_, n) for n in range(10, 30) for type_ in (WORK, KEYED)]
        await asyncio.gather(*asked, return_exceptions=True)
        assert p.quarantined == 10
    items = [spool.get(id_) for id_ in spool.ids()]
    found = sorted((bytes(item.message().front), item.type, item.cause) for item in items)
    assert found == [
        (b"%d" % n, type_, f"poison: {n} is bad")
        for n in (13, 17, 21, 25, 29)
        for type_ in (WORK, KEYED)
    ]
    assert {(item.attempts, item.signal) for item in items} == {(1, 0)}


@on_uvloop
async def test_without_workers_poison_is_only_answered(caplog: pytest.LogCaptureFixture) -> None:
    def plugin(site: Site) -> list[Any]:
        @handles(WORK)
        def work(con: Connection, m: Message) -> Any:
            return Poison("it is bad")

        return [work]

    async with service_and_session(plugin, 0) as (_, con):
        assert (await refused(ask(con, WORK)))[0] == ErrorCode.QUARANTINED
        assert "without workers there is no quarantine" in caplog.text
