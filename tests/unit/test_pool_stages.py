"""How long messages take in each stage: what is timed, and what every stage is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from tempfile import TemporaryDirectory
from time import monotonic, monotonic_ns
from typing import Any
from unittest.mock import patch

import msgpack
import pytest

from mpmsgr import Connection, Message
from mpmsgr.dispatch.attempts import charged
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.dispatch.verdicts import Retry
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.pool import stages as module
from mpmsgr.pool.ingress import Placed
from mpmsgr.pool.items import Addressed, SessionLane, Timed, as_wire, owner_of, placed_of, raw_of
from mpmsgr.pool.stages import STAGES, Stages
from mpmsgr.session.session import Session
from tests.support import eventually_async
from tests.unit.pool_harness import (
    ask,
    on_uvloop,
    pool,
    refused,
    session,
    sessions,
    text,
)
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import INCARNATION, SIZES, Pool, Sizes

WORK, LATER, KEYED, RAISES, DIES, AGAIN = range(0x9001, 0x9007)
RAW = b"raw message"
LARGE = 400_000


def addressed(item: Any) -> Addressed:
    return Addressed(SessionLane(Session.over(1)), item)


# which messages are timed


def test_one_of_what_comes_is_timed_when_it_is_due() -> None:
    stages = Stages()
    items: list[Any] = [b"1", b"2", b"3"]
    assert stages.pick([]) == []
    picked = stages.pick(items)
    timed = [item for item in picked if isinstance(item, Timed)]
    assert [raw_of(item) for item in picked] == items
    assert (len(timed), stages.due) == (1, False)
    assert items == [b"1", b"2", b"3"], "the caller's own"


def test_not_always_the_first_after_a_frame() -> None:
    stages = Stages()
    passed: list[int] = []
    at: list[int] = []
    for turn in range(16):
        stages.replied(float(turn))
        assert stages.due
        reads = 0
        while stages.due:
            picked = stages.pick([b"1", b"2", b"3"])
            reads += 1
        passed.append(reads - 1)
        at += [i for i, item in enumerate(picked) if isinstance(item, Timed)]
    assert set(passed) == set(range(8))
    assert set(at) == {0, 1, 2}


def test_due_a_hundred_times_a_second_at_most() -> None:
    stages, due = Stages(), 0
    for turn in range(1000):  # a frame per millisecond
        stages.due = False
        stages.replied(turn / 1000)
        due += stages.due
    assert due == pytest.approx(100, abs=1)


# what they are made of


def test_each_stage_lies_between_two_times() -> None:
    stages = Stages()
    timed = Timed(RAW, 1_000)
    timed.left = 3_000
    stages.completed([b"other", addressed(timed)], [[1, 8_000, 20_000]])
    assert {sum(h.counts) for h in stages.histograms.values()} == {0}, "not all is known"
    with patch.object(module, "monotonic_ns", lambda: 50_000):
        stages.replied(0.0)
        stages.replied(0.0)
    told = {
        stage: (sum(h["counts"]), round(h["sum"] * 1e9)) for stage, h in stages.as_dict().items()
    }
    assert told == {
        "queue": (1, 2_000),
        "ipc": (1, 5_000),
        "handler": (1, 12_000),
        "reply": (1, 30_000),
    }


def test_what_began_anew_counts_in_no_stage() -> None:
    stages = Stages()
    stages.completed([charged(Timed(RAW, 1)), RAW], [[0, 2, 3], [1, 2, 3]])
    stages.replied(0.0)
    assert {sum(h.counts) for h in stages.histograms.values()} == {0}


@pytest.mark.parametrize(
    ("wrap", "wire"),
    [
        (lambda timed: timed, [1, RAW, 1]),
        (addressed, [1, RAW, 1]),
        (charged, [2, RAW, 0]),
        (lambda timed: charged(addressed(timed)), [2, RAW, 0]),
    ],
    ids=["alone", "addressed", "again", "again addressed"],
)
def test_the_envelope_asks_for_times_the_first_time_only(wrap: Any, wire: list[Any]) -> None:
    timed = Timed(RAW, 1)
    item = wrap(timed)
    assert msgpack.unpackb(msgpack.packb(item, default=as_wire)) == wire
    assert (timed.left > 0) == bool(wire[2]), "it has left"
    assert (raw_of(item), len(item)) == (RAW, len(RAW))


def test_a_timed_message_in_the_arena_is_still_there() -> None:
    placed = Placed.__new__(Placed)
    item = addressed(Timed(placed, 1))
    assert placed_of(item) is placed_of(charged(item)) is placed
    assert owner_of(SessionLane(Session.over(2)), item) is item.lane


# in a pool


class Plugin:
    """Handlers that note when they ran: `since`, `until`, CLOCK_MONOTONIC in ns."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.ran: list[tuple[int, int]] = []
        self.sites: list[str] = []
        self.again = 1

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(WORK)
        def work(con: Connection, m: Message) -> str:
            self.sites.append(site.name)
            since = monotonic_ns()
            end = monotonic() + 0.002
            while monotonic() < end:
                pass
            self.ran.append((since, monotonic_ns()))
            return text(m)

        @handles(LATER)
        async def later(con: Connection, m: Message) -> int:
            since = monotonic_ns()
            await self.gate.wait()
            self.ran.append((since, monotonic_ns()))
            return m.attempt

        @handles(KEYED, key=slice(0, 1))
        def keyed(con: Connection, m: Message, state: dict[str, int]) -> str:
            state["n"] = state.get("n", 0) + 1
            return work(con, m)

        @handles(RAISES)
        def raises(con: Connection, m: Message) -> None:
            work(con, m)
            raise RuntimeError("as it should")

        @handles(DIES)
        def dies(con: Connection, m: Message) -> int:
            if m.attempt == 1:
                site.die()
            return m.attempt

        @handles(AGAIN)
        def again(con: Connection, m: Message) -> int:
            if m.attempt == 1:
                raise Retry(0.001)
            return m.attempt

        return [work, later, keyed, raises, dies, again]


def seconds(p: Pool, stage: str) -> float:
    return p.stages[stage][1]


async def a_while() -> float:
    """Seconds that have passed."""
    since = monotonic()
    await asyncio.sleep(0.02)
    return monotonic() - since


async def one_timed(p: Pool, con: MessengerConnection) -> None:
    """The first message: timed, and no other one unless it is asked for."""
    p.time_next()
    await ask(con, WORK)
    assert counts(p) == {1}


def counts(p: Pool) -> set[int]:
    """How many were timed, by all stages."""
    return {count for count, _ in p.stages.values()}


@pytest.mark.parametrize("sizes", [SIZES, None], ids=["memory", "no memory"])
@pytest.mark.parametrize("type_", [WORK, KEYED, LATER, RAISES])
@pytest.mark.parametrize("size", [0, LARGE])
@on_uvloop
async def test_the_stages_of_a_message(type_: int, sizes: Sizes | None, size: int) -> None:
    """All of its way is in them, and in the handler's what that took."""
    plugin = Plugin()
    plugin.gate.set()
    async with pool(plugin, sizes=sizes) as (p, messenger):
        con = await session(p, messenger)
        await one_timed(p, con)
        before = {stage: told[1] for stage, told in p.stages.items()}
        plugin.ran.clear()
        p.time_next()
        sent = monotonic_ns()
        request = ask(con, type_, data=bytes(size))
        if type_ == RAISES:
            await refused(request)
        else:
            await request
        took = monotonic_ns() - sent
        assert counts(p) == {2}
        spent = {stage: round((seconds(p, stage) - before[stage]) * 1e9) for stage in STAGES}
        ((since, until),) = plugin.ran
        assert until - since <= spent["handler"] + 1
        assert sum(spent.values()) <= took + len(STAGES)
        assert min(spent.values()) > 0
        assert p.workers[0].timed == set()


@on_uvloop
async def test_the_wait_for_a_worker_is_of_the_queue() -> None:
    plugin = Plugin()
    async with pool(plugin, workers=0) as (p, messenger):
        con = await session(p, messenger)
        p.time_next()
        request = ask(con, WORK)
        await eventually_async(lambda: p.items > 1)  # the event before it, and the message
        waited = await a_while()
        await p.worker(0)
        await request
        assert counts(p) == {1}
        assert seconds(p, "queue") >= waited


@on_uvloop
async def test_the_wait_in_the_worker_is_of_the_link() -> None:
    """Until it reads; and behind what goes on in its lane."""
    plugin = Plugin()
    async with pool(plugin) as (p, messenger):
        con = await session(p, messenger)
        await one_timed(p, con)
        before = seconds(p, "ipc")
        with p.frozen(0):
            first = ask(con, LATER)
            await eventually_async(lambda: p.seat(0).held == 1)
            p.time_next()
            second = ask(con, WORK)
            await eventually_async(lambda: p.seat(0).held == 2)
            waited = await a_while()
        await eventually_async(lambda: len(p.workers[0].timed) == 1)
        waited += await a_while()
        assert counts(p) == {1}, "nothing was told"
        plugin.gate.set()
        await asyncio.gather(first, second)
        assert counts(p) == {2}
        assert seconds(p, "ipc") - before >= waited
        (_, (since_ns, until_ns)) = plugin.ran[-2:]
        assert seconds(p, "handler") >= (until_ns - since_ns) / 1e9


@on_uvloop
async def test_what_kills_its_worker_is_not_counted_and_what_waited_there_is() -> None:
    plugin = Plugin()
    async with pool(plugin, respawn=True) as (p, _), sessions(p, 2) as (con, other):
        p.trust()
        await one_timed(p, con)
        first = ask(other, LATER)
        await eventually_async(lambda: p.seat(0).waiting == 1)
        p.time_next()
        second = ask(other, WORK)
        await eventually_async(lambda: len(p.workers[0].timed) == 1)
        p.time_next()
        deadly = ask(con, DIES)
        await eventually_async(lambda: p.deaths == 1)
        plugin.gate.set()
        assert [unpack(one) for one in await asyncio.gather(first, second, deadly)] == [2, "", 2]
        assert counts(p) == {2}, "the second, which had not begun"
        assert p.workers[0].timed == set()


@on_uvloop
async def test_what_is_taken_back_is_timed_where_it_runs() -> None:
    plugin = Plugin()
    async with pool(plugin) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        await one_timed(p, con)
        before = seconds(p, "queue")
        with p.frozen(0):
            p.time_next()
            requests = [ask(con, WORK, n) for n in range(2)]
            await eventually_async(lambda: p.seat(0).held == 2)
            waited = await a_while()
            await p.worker(1)
            await asyncio.gather(*requests)
        assert plugin.sites[1:] == ["1.1"] * 2
        assert counts(p) == {2}
        assert p.workers[1].timed == set()
        assert seconds(p, "queue") - before >= waited, "until it left for the one that ran it"
        await eventually_async(lambda: not p.seat(0).recalled)
        assert p.workers[0].timed == set(), "it has dropped it"


@on_uvloop
async def test_what_is_run_again_is_not_counted() -> None:
    plugin = Plugin()
    async with pool(plugin) as (p, messenger):
        con = await session(p, messenger)
        await one_timed(p, con)
        p.time_next()
        await ask(con, AGAIN)
        assert counts(p) == {1}
        assert p.workers[0].timed == set()


@on_uvloop
async def test_what_waits_behind_it_is_timed_later() -> None:
    """The worker drops it, and gets it again."""
    plugin = Plugin()
    async with pool(plugin) as (p, messenger):
        con = await session(p, messenger)
        await one_timed(p, con)
        with p.frozen(0):
            again = ask(con, AGAIN)
            await eventually_async(lambda: p.seat(0).held == 1)
            p.time_next()
            behind = ask(con, WORK)
            await eventually_async(lambda: p.seat(0).held == 2)
        await asyncio.gather(again, behind)
        assert counts(p) == {2}
        assert p.workers[0].timed == set()


@on_uvloop
async def test_an_io_process_that_is_gone_is_told_nothing() -> None:
    plugin = Plugin()
    async with pool(plugin, sizes=None) as (p, messenger):
        with TemporaryDirectory(dir="/tmp") as directory:
            following = Pool(directory, plugin, sizes=None, incarnation=INCARNATION + 1)
            try:
                await following.start(workers=0)
                con = await session(p, messenger)
                p.time_next()
                first = ask(con, LATER)
                worker = p.workers[0]
                await eventually_async(lambda: worker.timed)
                linked = asyncio.Event()
                worker.runtime.connect(following.endpoint, INCARNATION + 1, linked.set)
                assert worker.timed == set()
                await asyncio.wait_for(linked.wait(), 5)
                async with sessions(following, 1) as (other,):
                    plugin.gate.set()
                    following.time_next()
                    await ask(other, WORK)
                    await eventually_async(lambda: len(plugin.ran) == 2)
                assert (counts(p), counts(following)) == ({0}, {1})
                p.kill(0, p.lane().numbers)
                await p.worker(0)
                await first
                assert counts(p) == {0}, "it had begun before"
            finally:
                await following.stop()
