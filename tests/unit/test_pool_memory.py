"""Large payloads in shared memory: where they lie, who keeps them, what is left of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import numpy as np
import pytest

from mpmsgr import Connection, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.pool.mapping import address_of
from mpmsgr.session.policy import STATEFUL_SERVER, Policies
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    pool_and_session,
    sessions,
    text,
)
from tests.unit.pool_payloads import LARGE, MIB, Deaf, large_parts, payload, unacknowledged
from tests.unit.pool_site import Plugin, Site
from tests.unit.pool_under_test import Sizes

DO, SMALL, PUSH = 0x9001, 0x9002, 0x9003
Task = Callable[[Connection, Message], Any]


def doing(task: Task) -> Plugin:
    """A plugin: DO does *task*, SMALL says where it is."""

    def plugin(site: Site) -> Iterable[Any]:
        @handles(DO)
        def do(con: Connection, m: Message) -> Any:
            return task(con, m)

        @handles(SMALL)
        def small(con: Connection, m: Message) -> str:
            return site.name

        return [do, small]

    return plugin


def echo(con: Connection, m: Message) -> Message:
    return m.reply(m.front, data=m.data)


def reversed_(con: Connection, m: Message) -> Message:
    """A reply of bytes that are the handler's own."""
    return m.reply(m.front, data=bytes(m.data)[::-1])


# in


@on_uvloop
async def test_a_large_payload_lies_in_the_arena() -> None:
    seen: list[tuple[Any, ...]] = []

    def task(con: Connection, m: Message) -> list[int]:
        place = p.workers[0].place_of(m.data)
        seen.append((place and place[0], type(m.data), memoryview(m.data).readonly))
        return [address_of(m.data) % 64, sum(m.data[::1000])]

    data = payload(LARGE)
    async with pool_and_session(doing(task)) as (p, con):
        for _ in range(3):
            assert await answer(con, DO, "some front", data=data) == [0, sum(data[::1000])]
        assert seen == [("ingress", memoryview, True)] * 3


@on_uvloop
async def test_what_cannot_be_in_the_arena_is_not() -> None:
    seen: list[Any] = []

    def task(con: Connection, m: Message) -> int:
        seen.append(p.workers[0].place_of(m.data))
        return len(m.data)

    async with pool_and_session(doing(task), sizes=Sizes(arena=MIB)) as (p, con):
        for size in (60_000, 2 * MIB):
            assert await answer(con, DO, data=payload(size)) == size
        assert seen == [None, None], "too short for it, too long for it"


@on_uvloop
async def test_a_front_and_a_middle_of_any_length() -> None:
    def task(con: Connection, m: Message) -> Message:
        assert isinstance(m.front, bytes)
        return m.reply(m.front, m.middle, m.data)

    async with pool_and_session(doing(task)) as (_, con):
        for front, middle, size in (
            (1, 0, LARGE),
            (300_000, 0, 0),
            (70_000, 5, LARGE),
            (0, LARGE, 9),
        ):
            parts = [payload(front, 1), payload(middle, 2), payload(size, 3)]
            reply = await ask(con, DO, parts[0], middle=parts[1], data=parts[2])
            assert [reply.front, reply.middle, bytes(reply.data)] == parts


# out


@on_uvloop
async def test_an_echo_is_sent_from_where_it_landed() -> None:
    where: list[Any] = []

    def task(con: Connection, m: Message) -> Message:
        where.append(p.workers[0].place_of(m.data))
        return echo(con, m)

    data = payload(LARGE)
    async with pool_and_session(doing(task)) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = ask(con, DO, data=data)
            await eventually_async(lambda: large_parts(unacknowledged(p)))
            (part,) = large_parts(unacknowledged(p))
            place = p.place_of(part)
            assert place is not None
            assert place[0] == "ingress"
            assert 0 <= where[0][1] - place[1] < 100, "the payload, with what came before it"
            assert p.slots == 1
            del part
        assert (await asked).data == data


@on_uvloop
async def test_part_of_an_echo() -> None:
    def task(con: Connection, m: Message) -> Message:
        return m.reply(data=m.data[1000:-1000])

    data = payload(LARGE)
    async with pool_and_session(doing(task)) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = ask(con, DO, data=data)
            await eventually_async(lambda: large_parts(unacknowledged(p)))
            assert {(p.place_of(part) or " ")[0] for part in large_parts(unacknowledged(p))} == {
                "ingress"
            }
        assert (await asked).data == data[1000:-1000]


@on_uvloop
async def test_bytes_are_copied_into_the_worker_s_arena_once() -> None:
    data = payload(LARGE)
    async with pool_and_session(doing(lambda con, m: m.reply(data=data))) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = ask(con, DO)
            await eventually_async(lambda: large_parts(unacknowledged(p)))
            (part,) = large_parts(unacknowledged(p))
            assert p.place_of(part) == ("egress", 0)
            assert part == data
            assert p.occupied(0) == [(0, -(-LARGE // 4096) * 4096)]
            del part
        assert (await asked).data == data


@on_uvloop
async def test_memory_that_was_allocated_is_sent_from_where_it_was_written() -> None:
    where: list[Any] = []
    data = payload(LARGE)

    def task(con: Connection, m: Message) -> Message:
        view = con.allocate(LARGE + 5000)
        where.append(p.workers[0].place_of(view))
        view[:LARGE] = data
        return m.reply(data=view[:LARGE])

    async with pool_and_session(doing(task)) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = ask(con, DO)
            await eventually_async(lambda: large_parts(unacknowledged(p)))
            (part,) = large_parts(unacknowledged(p))
            assert [p.place_of(part)] == where == [("egress", 0)]
            del part
        assert (await asked).data == data


@pytest.mark.parametrize("how", ["view", "part", "array", "part of array", "cast"])
@on_uvloop
async def test_what_was_sent_is_not_changed_by_what_is_written_later(how: str) -> None:
    refused: list[str] = []

    def task(con: Connection, m: Message) -> None:
        view = con.allocate(LARGE)
        part, array = view[8:], np.frombuffer(view, np.uint8) if "array" in how else None
        given: dict[str, Any] = {"view": view, "part": part, "array": view}
        if array is not None:
            given["part of array"] = array[16:].data
        if how == "cast":
            given["cast"] = view.cast("I").cast("B")
        view[:] = b"\1" * LARGE
        con.send_message(m.reply(data=given.pop(how)))
        given.clear()
        for name, target in (("view", view), ("part", part), ("array", array)):
            try:
                if target is not None:
                    target[:] = np.full(len(target), 2, np.uint8).data
            except ValueError:
                refused.append(name)

    async with pool_and_session(doing(task)) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = ask(con, DO)
            await eventually_async(lambda: large_parts(unacknowledged(p)))
        reply = await asked
        assert set(reply.data) == {1}
        assert "view" in refused, "what was allocated cannot be used again"


@on_uvloop
async def test_arrays_as_payloads() -> None:
    def task(con: Connection, m: Message) -> Message:
        array = np.frombuffer(m.data, np.float64)
        match text(m):
            case "same":
                return m.reply(data=array.data.cast("B"))
            case "new":
                return m.reply(data=(array * 2).data.cast("B"))
            case "in place":
                view = con.allocate(array.nbytes)
                np.multiply(array, 2, out=np.frombuffer(view, np.float64))
                return m.reply(data=view)
        raise AssertionError(text(m))

    numbers = np.arange(LARGE // 8, dtype=np.float64)
    async with pool_and_session(doing(task)) as (_, con):
        for how, factor in (("same", 1), ("new", 2), ("in place", 2)):
            reply = await ask(con, DO, how, data=numbers.tobytes())
            assert (np.frombuffer(reply.data, np.float64) == numbers * factor).all()


@pytest.mark.parametrize("how", ["echo", "bytes", "allocated"])
@pytest.mark.parametrize("messages", [1, 3])
@on_uvloop
async def test_one_payload_sent_to_many(how: str, messages: int) -> None:
    data = payload(LARGE)

    def task(con: Connection, m: Message) -> None:
        out: Any = data if how == "bytes" else m.data
        if how == "allocated":
            out = con.allocate(LARGE)
            out[:] = data
        told = Message(PUSH, data=out)
        for id_ in ids:
            if messages > 1:
                told = Message(PUSH, data=told.data)
            told.tid = 0
            con.connection(id_).send_message(told)

    async with pool(doing(task), workers=2) as (p, _), sessions(p, 3) as cons:
        streams = [con.messages(PUSH) for con in cons]
        await asyncio.gather(*[answer(con, SMALL) for con in cons])
        ids = [lane.id for lane in p.session_lanes()]
        for con in cons:
            con.send_message(Message(DO, data=data))
        for stream in streams:
            for _ in cons:
                assert (await anext(stream)).data == data


@on_uvloop
async def test_an_arena_that_is_full_is_no_reason_to_fail() -> None:
    """What finds no room in the worker's arena travels in frames."""
    data = payload(LARGE)
    sizes = Sizes(egress=1 * MIB)

    def task(con: Connection, m: Message) -> Message:
        if text(m) == "allocate":
            view = con.allocate(LARGE)
            view[:] = data
            return m.reply(data=view)
        return m.reply(data=data)

    async with pool_and_session(doing(task), sizes=sizes) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = [ask(con, DO, how) for how in ("allocate", "bytes", "allocate", "bytes")]
            await eventually_async(lambda: len(large_parts(unacknowledged(p))) == 4)
            places = [p.place_of(part) for part in large_parts(unacknowledged(p))]
            assert places == [("egress", 0), None, None, None]
        assert [reply.data for reply in await asyncio.gather(*asked)] == [data] * 4


# leases


@on_uvloop
async def test_a_handler_may_keep_a_payload() -> None:
    kept: list[Any] = []

    def task(con: Connection, m: Message) -> int:
        if text(m) == "array":
            kept.append(np.frombuffer(m.data, np.uint8)[1000:2000])
        elif text(m) == "slice":
            kept.append(m.data[1000:2000])
        else:
            kept.append(m)
        return len(m.data)

    data = payload(LARGE)
    async with pool_and_session(doing(task)) as (p, con):
        for n, how in enumerate(("array", "slice", "message"), 1):
            assert await answer(con, DO, how, data=data) == LARGE
            await eventually_async(lambda: p.items == 0)
            assert p.slots == n, "handled, and still there"
        await answer(con, DO, "message", data=payload(LARGE, 1))
        del kept[3]
        leases = list(p.ingress.leases())
        assert {lease.worker for lease in leases} == {0}
        assert all(lease.nbytes >= LARGE and lease.age_s >= 0 for lease in leases)
        assert bytes(kept[0]) == bytes(kept[1]) == data[1000:2000]
        assert kept[2].data == data
        for n in (2, 1, 0):
            del kept[0]
            await eventually_async(lambda: p.slots == n)  # noqa: B023


@on_uvloop
async def test_a_payload_in_a_cycle_of_garbage_is_given_back_when_that_is_collected() -> None:
    def task(con: Connection, m: Message) -> None:
        m.obj = [m]

    async with pool_and_session(doing(task)) as (p, con):
        gc.disable()
        try:
            con.send_message(Message(DO, data=payload(LARGE)))
            assert await answer(con, SMALL) == "0.1"
            assert p.slots == 1
        finally:
            gc.enable()
        gc.collect()
        await eventually_async(lambda: p.slots == 0)


@on_uvloop
async def test_a_worker_that_never_gives_back_is_recycled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mpmsgr.pool.upkeep._EVERY_S", 0.01)
    kept: list[Any] = []
    told: list[tuple[int, int, str]] = []

    def recycle(slot: int, generation: int, why: str) -> None:
        told.append((slot, generation, why))

    def keep(con: Connection, m: Message) -> int:
        kept.append(m.data)
        return len(m.data)

    async with pool_and_session(doing(keep), lease_max_age_s=0.05, recycle=recycle) as (p, con):
        assert await answer(con, DO, data=payload(LARGE)) == LARGE
        await eventually_async(lambda: told)
        slot, generation, why = told[0]
        assert (slot, generation) == (0, 1)
        assert why.startswith(f"it keeps {-(-LARGE // 4096) * 4096} bytes of shared memory for")
        p.kill(0)
        await eventually_async(lambda: p.slots == 0)
        await p.worker(0)
        assert bytes(kept[0]) == payload(LARGE), "no view is taken from anybody"
        kept.clear()


@on_uvloop
async def test_a_message_in_work_is_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpmsgr.pool.upkeep._EVERY_S", 0.01)
    gate = asyncio.Event()
    told: list[Any] = []

    async def wait(con: Connection, m: Message) -> int:
        await gate.wait()
        return len(m.data)

    def recycle(*args: Any) -> None:
        told.append(args)

    async with pool_and_session(doing(wait), lease_max_age_s=0.02, recycle=recycle) as (p, con):
        asked = ask(con, DO, data=payload(LARGE))
        await eventually_async(lambda: p.slots == 1)
        await asyncio.sleep(0.08)
        assert told == []
        gate.set()
        assert unpack(await asked) == LARGE


# deaths


@pytest.mark.parametrize("task", [echo, reversed_])
@on_uvloop
async def test_a_reply_that_is_not_acknowledged_survives_its_worker(task: Task) -> None:
    """It is sent again, byte by byte, while new workers use the same arenas."""
    async with pool(doing(task)) as (p, _), sessions(p, 2) as (con, other):
        for one in (con, other):
            await answer(one, SMALL)
        data = [payload(LARGE, seed) for seed in range(3)]
        with Deaf(con):
            asked = [ask(con, DO, seed, data=data[seed]) for seed in range(2)]
            await eventually_async(lambda: len(large_parts(unacknowledged(p, con))) == 2)
            for generation in (2, 3):
                p.kill(0)
                await p.worker(0)
                assert await answer(other, SMALL) == f"0.{generation}"
                reply = await ask(other, DO, data=data[2])
                assert bytes(reply.data) == bytes(task(other, Message(DO, data=data[2])).data)
            con.session.pipe.handle.abort()  # type: ignore[union-attr]
        for sent, reply in zip(data, await asyncio.gather(*asked), strict=False):
            assert bytes(reply.data) == bytes(task(con, Message(DO, data=sent)).data)


@on_uvloop
async def test_the_next_generation_starts_with_what_is_occupied() -> None:
    data = payload(LARGE)
    sizes = Sizes(egress=2 * MIB)

    def task(con: Connection, m: Message) -> Any:
        if text(m) == "first":
            return m.reply(data=data)
        views: list[memoryview] = []
        while (view := con.allocate(100_000)) and p.workers[0].place_of(view) is not None:
            view[:] = bytes([len(views)]) * 100_000
            views.append(view)
        return len(views)

    async with pool(doing(task), sizes=sizes) as (p, _), sessions(p, 2) as (con, other):
        for one in (con, other):
            await answer(one, SMALL)
        with Deaf(con):
            asked = ask(con, DO, "first")
            await eventually_async(lambda: p.occupied(0))
            (occupied,) = p.occupied(0)
            p.kill(0)
            worker = await p.worker(0)
            assert worker.egress_used == occupied[1]
            assert await answer(other, DO, "fill") == (2 * MIB - occupied[1]) // 102_400
        assert (await asked).data == data


#: Where a worker dies; those that are gone by then are done by the next one.
STEPS = ("before it reads", "as it begins", "having allocated", "having replied", "as it has told")


@pytest.mark.parametrize("step", STEPS)
@on_uvloop
async def test_a_worker_that_dies_at_any_step_leaves_nothing(step: str) -> None:
    data = payload(LARGE)

    def plugin(site: Site) -> Iterable[Any]:
        def die_at(now: str) -> None:
            if site.name == "0.1" and now == step:
                site.die()

        site.on_busy = lambda: die_at("as it has told")

        @handles(DO)
        def do(con: Connection, m: Message) -> Message | None:
            die_at("as it begins")
            view = con.allocate(LARGE)
            view[:] = m.data
            die_at("having allocated")
            con.send_message(m.reply(data=view))
            con.send_message(Message(PUSH, data=m.data))
            con.send_message(Message(PUSH, data=bytes(m.data)))
            die_at("having replied")
            end = asyncio.get_running_loop().time() + 0.003
            while asyncio.get_running_loop().time() < end:
                asyncio.get_running_loop().time()
            return None

        @handles(SMALL)
        def small(con: Connection, m: Message) -> str:
            return site.name

        return [do, small]

    async with pool_and_session(plugin) as (p, con):
        pushes = con.messages(PUSH)
        await answer(con, SMALL)
        if step == "before it reads":
            with p.frozen(0):
                asked = ask(con, DO, data=data)
                await eventually_async(lambda: p.lane().inflight)
                p.kill(0)
        else:
            asked = ask(con, DO, data=data)
            await eventually_async(lambda: p.deaths)
        await p.worker(0)
        assert (await asked).data == data
        for _ in range(2):
            assert (await anext(pushes)).data == data
        assert con.session.in_seq == 4, "and nothing twice"


# sessions


@on_uvloop
async def test_a_peer_that_goes_away_in_the_midst_of_a_payload() -> None:
    gate = asyncio.Event()

    async def task(con: Connection, m: Message) -> int:
        await gate.wait()
        return len(m.data)

    async with pool_and_session(doing(task)) as (p, con):
        asked = [ask(con, DO, n, data=payload(LARGE, n)) for n in range(6)]
        await eventually_async(lambda: p.slots)
        for _ in range(3):
            con.session.pipe.handle.abort()  # type: ignore[union-attr]
            await eventually_async(lambda: con.is_connected)
        gate.set()
        assert [unpack(one) for one in await asyncio.gather(*asked)] == [LARGE] * 6


@on_uvloop
async def test_a_session_that_ends_with_replies_unread() -> None:
    async with pool(doing(echo)) as (p, _), sessions(p, 2) as (con, other):
        for one in (con, other):
            await answer(one, SMALL)
        with Deaf(con):
            for n in range(3):
                con.send_message(Message(DO, b"%d" % n, data=payload(LARGE, n)))
            await eventually_async(lambda: len(large_parts(unacknowledged(p, con))) == 3)
            p.messenger.endpoint.mark_down(p.lane(con).session)
            p.messenger.driver.run()
        await eventually_async(lambda: p.slots == 0)
        assert bytes((await ask(other, DO, data=payload(LARGE))).data) == payload(LARGE)


@pytest.mark.parametrize("seed", range(3))
@on_uvloop
async def test_any_sizes_in_any_order(seed: int) -> None:
    rng = Random(seed)
    sizes = Sizes(
        arena=3 * MIB, egress=2 * MIB, ring=32 << 10, threshold=rng.choice([5_000, 64 << 10])
    )
    policies = Policies(STATEFUL_SERVER).having(outbox_bytes=4 * MIB)
    kept: list[Any] = []
    most_kept = 2

    async def task(con: Connection, m: Message) -> Any:
        how = rng.randrange(5)
        if how == 0:
            await asyncio.sleep(rng.random() * 0.005)
        if how == 1 and len(kept) < most_kept:
            kept.append(m.data[:10])
        elif how == 1 and kept:
            kept.pop()
        if how == 2:
            view = con.allocate(len(m.data))
            view[:] = m.data
            return m.reply(m.front, data=view)
        return m.reply(m.front, data=m.data if how % 2 else bytes(m.data))

    def size() -> int:
        return rng.choice([10, 3_000, 20_000, 70_000, 300_000, LARGE, 2 * MIB]) + rng.randrange(999)

    options: dict[str, Any] = {"sizes": sizes, "policies": policies, "max_attempts": 0}
    async with (
        pool(doing(task), workers=2, respawn=True, **options) as (p, _),
        sessions(p, 4) as cons,
    ):
        expected: list[tuple[str, bytes]] = []
        asked: list[asyncio.Task[Message]] = []
        for n in range(100):
            data = payload(size(), n)
            expected.append((str(n), data))
            con = rng.choice(cons)
            asked.append(ask(con, DO, n, data=data))
            await asyncio.sleep(rng.random() * 0.003)
            if n % 20 == 10 and p.workers:
                p.kill(rng.choice(list(p.workers)))
            if n % 33 == 20 and con.session.pipe is not None and con.is_connected:
                con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        most_kept = 0  # or some would wait for room, and rightly so
        kept.clear()
        for (front, data), reply in zip(expected, await asyncio.gather(*asked), strict=True):
            assert (text(reply), bytes(reply.data)) == (front, data)
