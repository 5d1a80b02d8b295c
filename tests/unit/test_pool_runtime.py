"""A worker's runtime: frames and rings, its page, lanes that move, several I/O processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from time import monotonic_ns
from typing import Any
from unittest.mock import patch

import msgpack
import pytest

from mpmsgr import Connection, Dispatcher, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import reply_to, unpack
from mpmsgr.pool import page
from mpmsgr.pool.link import Link
from mpmsgr.pool.outbound import Outbound
from mpmsgr.pool.runtime import _FLUSH_EVERY_S
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    pool_and_session,
    session,
    sessions,
    text,
)
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import INCARNATION, Pool, Sizes

WORK, LATER, KEYED, TIMED, PUSH = range(0x9001, 0x9006)


def echo(site: Site) -> Iterable[Any]:
    @handles(WORK)
    def work(con: Connection, m: Message) -> Message:
        return m.reply(m.front, data=bytes(m.data))

    return [work]


@contextmanager
def frames() -> Iterator[tuple[list[int], list[int]]]:
    """Lengths of the frames that go to workers, and of those that come from them."""
    to_workers: list[int] = []
    from_workers: list[int] = []
    send, send_to = Link.send, Link.send_to

    def note_send(self: Link, frame: bytes) -> None:
        from_workers.append(len(frame))
        send(self, frame)

    def note_send_to(self: Link, name: bytes, frame: bytes) -> bool:
        to_workers.append(len(frame))
        return send_to(self, name, frame)

    with patch.object(Link, "send", note_send), patch.object(Link, "send_to", note_send_to):
        yield to_workers, from_workers


# errors of our own


@on_uvloop
@pytest.mark.parametrize("type_", [WORK, LATER])
async def test_a_worker_that_is_in_disorder_says_so(type_: int) -> None:
    def plugin(site: Site) -> Iterable[Any]:
        @handles(LATER)
        async def later(con: Connection, m: Message) -> int:
            await asyncio.sleep(0)
            return m.attempt

        return [*echo(site), later]

    async with pool(plugin) as (p, messenger):
        con = await session(p, messenger)
        await ask(con, WORK)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with patch.object(Outbound, "has_output", side_effect=KeyError("ours")):
            reply = ask(con, type_)
            await eventually_async(lambda: p.workers[0].site.errors)
        assert [repr(error) for error in p.workers[0].site.errors] == ["KeyError('ours')"]
        p.kill(0)
        await p.worker(0)
        await reply


# the ring


@on_uvloop
async def test_long_batches_travel_in_the_ring() -> None:
    data = bytes(range(250)) * 160
    with frames() as (to_workers, from_workers):
        async with pool_and_session(echo) as (_, con):
            for size in (10, 3_000, 5_000, 20_000, 40_000):
                to_workers.clear()
                from_workers.clear()
                assert (await ask(con, WORK, data=data[:size])).data == data[:size]
                for lengths in (to_workers, from_workers):
                    assert max(lengths) < 4096
                    assert (max(lengths) > size) == (size < 4096), "in the frame, or in the ring"


@on_uvloop
async def test_what_finds_the_ring_full_travels_in_frames() -> None:
    sizes = Sizes(ring=12 << 10)
    data = bytes(range(250)) * 200
    with frames() as (to_workers, from_workers):
        async with pool_and_session(echo, sizes=sizes) as (_, con):
            replies = [ask(con, WORK, n, data=data[: 5_000 + n]) for n in range(40)]
            for n, reply in enumerate(await asyncio.gather(*replies)):
                assert (text(reply), reply.data) == (str(n), data[: 5_000 + n])
            for lengths in (to_workers, from_workers):
                assert max(lengths) > 12 << 10, "one did not fit"
            to_workers.clear()
            await ask(con, WORK, data=data[:6_000])
            assert max(to_workers) < 100, "and then there is room again"


@on_uvloop
async def test_batches_that_do_not_fit_between_others() -> None:
    """The worker reads nothing for a while: some of its batches are in the ring, some are not."""
    data = bytes(range(250)) * 60
    async with pool(echo, sizes=Sizes(ring=16 << 10)) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        await ask(con, WORK)
        with p.frozen(0), frames() as (to_worker, _):
            replies = []
            for n in range(6):
                replies.append(ask(con, WORK, n, data=data[: 6_000 + n]))
                await eventually_async(lambda: len(to_worker) > n)  # noqa: B023
            assert sorted(length > 6_000 for length in to_worker) == [False] * 2 + [True] * 4
        for n, reply in enumerate(await asyncio.gather(*replies)):
            assert (text(reply), reply.data) == (str(n), data[: 6_000 + n])


@on_uvloop
async def test_a_new_worker_starts_with_an_empty_ring() -> None:
    """The dead one left batches behind that nobody read."""
    data = bytes(range(250)) * 60
    async with pool(echo, sizes=Sizes(ring=16 << 10)) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        await ask(con, WORK)
        for _ in range(3):
            with p.frozen(0):
                replies = [ask(con, WORK, n, data=data[:6_000]) for n in range(3)]
                await eventually_async(lambda: len(p.lane().inflight) == 3)
                await asyncio.sleep(0)
                p.kill(0)
            await p.worker(0)
            assert [text(reply) for reply in await asyncio.gather(*replies)] == ["0", "1", "2"]


# the page


@on_uvloop
async def test_the_page_says_what_runs() -> None:
    seen: list[tuple[int, list[int]]] = []
    gate = asyncio.Event()

    def plugin(site: Site) -> list[Any]:
        def look() -> None:
            seen.append((p.workers[0].page.running, p.workers[0].page.started()))

        @handles(WORK)
        def work(con: Connection, m: Message) -> int:
            look()
            return 0

        @handles(LATER)
        async def later(con: Connection, m: Message) -> int:
            look()
            await gate.wait()
            look()
            return 0

        return [work, later]

    async with pool(plugin) as (p, _), sessions(p, 3) as cons:
        p.trust()
        started = p.workers[0].page.started
        for n in range(2):
            await answer(cons[0], WORK, n)
        await eventually_async(lambda: p.items == 0)
        first = p.seat(0).number
        assert seen == [(first - 1, [first - 1]), (first, [first])]
        assert started() == []
        seen.clear()
        asked = [ask(con, LATER) for con in cons[:2]]
        await eventually_async(lambda: len(seen) == 2)
        assert started() == [first + 1, first + 2]
        await answer(cons[2], WORK)
        assert seen[2:] == [(first + 3, [first + 1, first + 2, first + 3])]
        gate.set()
        await asyncio.gather(*asked)
        await eventually_async(lambda: p.items == 0)
        assert (started(), p.workers[0].page.running) == ([], 0)
        assert p.workers[0].page.cells[page.HANDLED] == first + 3


@pytest.mark.parametrize("later", [False, True])
@on_uvloop
async def test_deadlines_are_on_the_page_while_a_plain_handler_runs(later: bool) -> None:
    cells = (page.TYPE, page.CON, page.STARTED_NS, page.SOFT_NS, page.HARD_NS)
    seen: list[list[int]] = []

    def plugin(site: Site) -> list[Any]:
        def look() -> None:
            seen.append([p.workers[0].page.cells[cell] for cell in cells])

        @handles(TIMED, deadline=(2, 5))
        def timed(con: Connection, m: Message) -> Any:
            look()
            if text(m) == "fail":
                raise ValueError("no")

        @handles(LATER, deadline=(2, 5))
        async def timed_later(con: Connection, m: Message) -> Any:
            look()

        @handles(WORK)
        def work(con: Connection, m: Message) -> int:
            look()
            return con.id

        return [timed, timed_later, work]

    async with pool_and_session(plugin) as (p, con):
        began = monotonic_ns()
        con.send_message(Message(LATER if later else TIMED))
        con.send_message(Message(LATER if later else TIMED, b"fail"))
        id_ = await answer(con, WORK)
        first, second, none = seen
        assert none[2:] == [0, 0, 0]
        if later:
            assert first[2:] == second[2:] == [0, 0, 0], "it is not alone: nobody is killed for it"
            return
        for type_, con_id, started, soft, hard in (first, second):
            assert (type_, con_id) == (TIMED, id_)
            assert began < started < monotonic_ns()
            assert (soft - started, hard - started) == (2_000_000_000, 5_000_000_000)


@on_uvloop
async def test_the_shortest_deadline_of_a_plugin() -> None:
    def plugin(site: Site) -> list[Any]:
        @handles(TIMED, deadline=(2, 5))
        def timed(con: Connection, m: Message) -> None: ...

        @handles(LATER, deadline=1)
        def other(con: Connection, m: Message) -> None: ...

        return [timed, other] if site.name == "0.1" else list(echo(site))

    async with pool(plugin, workers=2) as (p, _):
        shortest = [worker.runtime.shortest_deadline_s for worker in p.workers.values()]
        assert shortest == [0.5, 0.0]


# lanes that move


class Moving(Dispatcher):
    """Notes events and messages, each with where it happened, and what is left of before."""

    def __init__(self, site: Site, log: list[tuple[Any, ...]]) -> None:
        self.site, self.log = site, log

    def handle_accept(self, con: Connection) -> None:
        self.log.append((self.site.name, "accept"))

    async def handle_lane_moved(self, con: Connection) -> None:
        await asyncio.sleep(0.005)
        self.log.append((self.site.name, "moved", con.priv, con.state.get("n")))

    def dispatch(self, con: Connection, m: Message) -> None:
        con.priv = con.state["n"] = con.state.get("n", 0) + 1
        self.log.append((self.site.name, con.priv))
        con.send_message(reply_to(m, self.site.name))


@on_uvloop
async def test_a_lane_that_moves_says_so_before_its_first_message_there() -> None:
    log: list[tuple[Any, ...]] = []
    async with pool_and_session(lambda site: [Moving(site, log)], workers=2) as (p, con):
        # Not beside a message: a slow machine would take that back for the other worker.
        await eventually_async(lambda: log and not p.seat(0).held)
        assert [await answer(con, WORK) for _ in range(2)] == ["0.1", "0.1"]
        assert log == [("0.1", "accept"), ("0.1", 1), ("0.1", 2)], "not where it began"
        log.clear()
        p.front.retire(0, 1)
        assert [await answer(con, WORK) for _ in range(2)] == ["1.1", "1.1"]
        assert log == [("1.1", "moved", None, 2), ("1.1", 3), ("1.1", 4)]
        log.clear()
        p.kill(0)
        p.kill(1)
        asked = [ask(con, WORK) for _ in range(3)]
        await p.worker(0)
        assert [unpack(one) for one in await asyncio.gather(*asked)] == ["0.2"] * 3
        assert log == [("0.2", "moved", None, 4), ("0.2", 5), ("0.2", 6), ("0.2", 7)]


@on_uvloop
async def test_the_lane_of_a_key_says_so_too() -> None:
    log: list[tuple[Any, ...]] = []

    def plugin(site: Site) -> list[Any]:
        @handles(KEYED, key="room")
        def room(con: Connection, m: Message, state: dict[str, int]) -> str:
            state["n"] = state.get("n", 0) + 1
            log.append((site.name, con.id, state["n"]))
            return site.name

        class Moved(Dispatcher):
            message_types = frozenset({PUSH})

            def handle_lane_moved(self, con: Connection) -> None:
                log.append((site.name, con.id, "moved"))

        return [room, Moved()]

    front = bytes(msgpack.packb({"room": 1}))
    async with pool(plugin) as (p, _), sessions(p, 2) as cons:
        ids = [p.lane(con).id for con in cons]
        for con in cons:
            await answer(con, KEYED, front)
        p.kill(0)
        await p.worker(1)
        for con in reversed(cons):
            await answer(con, KEYED, front)
        assert [entry for entry in log if entry[0] == "0.1"] == [
            ("0.1", ids[0], 1),
            ("0.1", ids[1], 2),
        ]
        moved = [entry for entry in log if entry[0] == "1.1" and entry[2] == "moved"]
        assert log.index(("1.1", ids[1], "moved")) < log.index(("1.1", ids[1], 3))
        assert len(moved) <= 3, "that of the key, and those of the sessions"
        assert log[-1] == ("1.1", ids[0], 4)


@on_uvloop
async def test_an_idle_lane_leaves_a_worker_that_is_busy() -> None:
    gate = asyncio.Event()

    def plugin(site: Site) -> list[Any]:
        @handles(LATER)
        async def later(con: Connection, m: Message) -> None:
            await gate.wait()

        @handles(WORK)
        def work(con: Connection, m: Message) -> str:
            return site.name

        return [later, work]

    async with pool(plugin, workers=2) as (p, _), sessions(p, 3) as cons:
        homes = {}
        for con in cons:
            homes[con] = await answer(con, WORK)
        idle, busy = next((a, b) for a in cons for b in cons if a is not b and homes[a] == homes[b])
        with p.frozen(int(homes[busy][0])):
            for n in range(20):
                busy.send_message(Message(LATER, b"%d" % n))
            await eventually_async(lambda: p.items >= 20)
            assert await answer(idle, WORK) != homes[idle]
        gate.set()


# one I/O process after another


@on_uvloop
async def test_what_runs_for_an_earlier_io_process_is_not_told_to_the_next() -> None:
    """Its completions name lanes that are others there."""
    gates = {name: asyncio.Event() for name in ("old", "new")}
    begun: list[str] = []

    def plugin(site: Site) -> list[Any]:
        async def run(con: Connection, m: Message) -> str:
            what = text(m)
            begun.append(what)
            await gates[what.partition(" ")[0]].wait()
            return what

        @handles(LATER)
        async def later(con: Connection, m: Message) -> str:
            return await run(con, m)

        @handles(KEYED, key=slice(1))
        async def keyed(con: Connection, m: Message, state: dict[str, str]) -> str:
            state["last"] = text(m)
            return await run(con, m)

        return [later, keyed]

    async with pool(plugin, sizes=None) as (p, messenger):
        with TemporaryDirectory(dir="/tmp") as directory:
            following = Pool(directory, plugin, sizes=None, incarnation=INCARNATION + 1)
            try:
                await following.start(workers=0)
                con = await session(p, messenger)
                for type_ in (LATER, KEYED):
                    con.send_message(Message(type_, b"old"))
                await eventually_async(lambda: len(begun) == 2)

                worker = p.workers[0]
                linked = asyncio.Event()
                worker.runtime.connect(following.endpoint, INCARNATION + 1, linked.set)
                await asyncio.wait_for(linked.wait(), 5)
                async with sessions(following, 1) as (other,):
                    asked = [ask(other, type_, f"new {type_}") for type_ in (LATER, KEYED)]
                    await eventually_async(lambda: len(begun) == 4)
                    gates["old"].set()
                    await asyncio.sleep(0.02)
                    assert [len(lane.inflight) for lane in following.lanes.values()] == [1, 1]
                    assert not any(lane.state for lane in following.lanes.values())
                    gates["new"].set()
                    replies = [unpack(one) for one in await asyncio.gather(*asked)]
                    assert replies == [f"new {type_}" for type_ in (LATER, KEYED)]
                p.kill(0)
                await p.worker(0)
            finally:
                await following.stop()


@on_uvloop
async def test_a_batch_that_is_cut_short_by_another_i_o_process_holds_back_nothing() -> None:
    """What is sent outside of handlers then, before any message came, leaves at once."""

    def plugin(site: Site) -> Iterable[Any]:
        @handles(WORK)
        def work(con: Connection, m: Message) -> str:
            time.sleep(_FLUSH_EVERY_S)
            return text(m)

        @handles(PUSH)
        def join(con: Connection, m: Message) -> str:
            con.group("all").join()
            return site.name

        return [work, join]

    async with pool(plugin, sizes=None) as (p, messenger):
        with TemporaryDirectory(dir="/tmp") as directory:
            following = Pool(directory, plugin, sizes=None, incarnation=INCARNATION + 1)
            try:
                await following.start(workers=0)
                await following.worker(1)
                con, worker = await session(p, messenger), p.workers[0]
                linked = asyncio.Event()

                def on_busy() -> None:
                    worker.site.on_busy = lambda: None
                    worker.runtime.connect(following.endpoint, INCARNATION + 1, linked.set)

                async with sessions(following, 1) as (member,):
                    assert await answer(member, PUSH) == "1.1"
                    pushes = member.messages(PUSH)
                    worker.site.on_busy = on_busy
                    con.send_message(Message(WORK))
                    await asyncio.wait_for(linked.wait(), 5)
                    worker.runtime.group("all").send(Message(PUSH, b"news"))
                    assert text(await asyncio.wait_for(anext(pushes), 5)) == "news"
                p.kill(0)
                await p.worker(0)
            finally:
                await following.stop()


@on_uvloop
async def test_the_first_item_is_told_once() -> None:
    told: list[int] = []
    async with pool_and_session(echo, worker={"on_first": lambda: told.append(1)}) as (_, con):
        for n in range(3):
            await ask(con, WORK, n)
        assert told == [1]
