"""The state of a session or key: committed with the completion, undone without it, never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgpack
import pytest

from mpmsgr import Connection, Dispatcher, ErrorCode, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import reply_to, unpack
from mpmsgr.dispatch.state import State, StateError
from mpmsgr.dispatch.verdicts import Poison, Reject
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
    sessions,
    text,
    with_and_without_workers,
)
from tests.unit.pool_site import Site

ADD, READ, LATER, KEYED, SPOIL, FREE, PUSH = range(0x9001, 0x9008)


def keyed(room: object, add: int = 1) -> bytes:
    return bytes(msgpack.packb({"room": room, "add": add}))


class Counting:
    """A plugin that counts in the state; ADD dies for a front in *kills*.

    runs: site, message and attempt of everything; gate: what LATER waits for in the midst.
    """

    def __init__(self, *kills: str) -> None:
        self.kills = list(kills)
        self.runs: list[tuple[str, str, int]] = []
        self.gate = asyncio.Event()

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(ADD)
        def add(con: Connection, m: Message, state: dict[str, Any]) -> int:
            self.runs.append((site.name, text(m), m.attempt))
            state["n"] = state.get("n", 0) + 1
            if text(m) in self.kills:
                self.kills.remove(text(m))
                site.die()
            return int(state["n"])

        @handles(READ)
        def read(con: Connection, m: Message) -> list[Any]:
            return [site.name, con.state]

        @handles(LATER)
        async def later(con: Connection, m: Message, state: dict[str, Any]) -> int:
            state["n"] = state.get("n", 0) + 1
            self.runs.append((site.name, text(m), m.attempt))
            await self.gate.wait()
            return int(state["n"])

        @handles(KEYED, key="room")
        async def in_room(con: Connection, m: Message, state: dict[str, Any]) -> int:
            n = state.get("n", 0)
            await asyncio.sleep(0)
            state["n"] = n + unpack(m)["add"]
            return int(state["n"])

        @handles(SPOIL)
        def spoil(con: Connection, m: Message, state: dict[Any, Any]) -> str:
            state["n"] = 100
            state.setdefault("list", []).append(1)
            con.send_message(Message(PUSH))
            match text(m):
                case "raise":
                    raise ValueError("no")
                case "reject":
                    raise Reject("no")
                case "poison":
                    raise Poison("no")
                case "object":
                    state["list"] = [1, {"deep": object()}]
                case "key":
                    state[(object(),)] = 1
                case "long":
                    state["small"], state["blob"] = 1, bytes(70_000)
                case "huge number":
                    state["n"] = 1 << 64
            return "kept"

        @handles(FREE, ordering="none")
        def free(con: Connection, m: Message) -> Any:
            return con.state

        return [add, read, later, in_room, spoil, free]


# kept


@with_and_without_workers
@on_uvloop
async def test_a_state_lasts_from_one_message_to_the_next(workers: int) -> None:
    async with service(Counting(), workers) as (server, _), sessions(server, 3) as cons:
        asked = [ask(con, ADD) for _ in range(20) for con in cons]
        counts = [unpack(one) for one in await asyncio.gather(*asked)]
        assert counts == [n for n in range(1, 21) for _ in cons], "each session has its own"


@with_and_without_workers
@on_uvloop
async def test_a_key_has_one_state_whoever_asks(workers: int) -> None:
    async with service(Counting(), workers) as (server, _), sessions(server, 4) as cons:
        asked = [ask(con, KEYED, keyed(n % 3)) for n in range(60) for con in cons]
        counts: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for i, one in enumerate(await asyncio.gather(*asked)):
            counts[i // len(cons) % 3].append(unpack(one))
        assert {room: sorted(seen) for room, seen in counts.items()} == {
            room: list(range(1, 81)) for room in counts
        }
        assert (await answer(cons[0], READ))[1] == {}, "that of the session is another one"


@with_and_without_workers
@on_uvloop
async def test_a_class_of_callbacks_has_a_state_too(workers: int) -> None:
    class Counts(Dispatcher):
        def handle_accept(self, con: Connection) -> None:
            con.state["accepted"] = con.state.get("accepted", 0) + 1

        async def dispatch(self, con: Connection, m: Message) -> None:
            await asyncio.sleep(0)
            con.state["n"] = con.state.get("n", 0) + 1
            con.send_message(reply_to(m, con.state))

    async with service_and_session(lambda site: [Counts()], workers) as (_, con):
        for n in range(1, 4):
            assert await answer(con, ADD) == {"accepted": 1, "n": n}


@on_uvloop
async def test_a_state_follows_its_lane_to_other_workers() -> None:
    plugin = Counting()
    async with pool_and_session(plugin, workers=2) as (p, con):
        homes = []
        for n in range(1, 7):
            assert await answer(con, ADD) == n
            assert await answer(con, KEYED, keyed("a")) == n
            homes.append((await answer(con, READ))[0])
            await eventually_async(lambda: not any(lane.inflight for lane in p.lanes.values()))
            for slot, worker in list(p.workers.items()):
                p.front.retire(slot, worker.generation)
                await eventually_async(
                    lambda: p.front.holds_nothing(slot, worker.generation)  # noqa: B023
                )
                worker.runtime.goodbye()
                await p.worker(slot)
        assert len(set(homes)) == 6, "a new worker each time"


@on_uvloop
async def test_only_what_changed_travels() -> None:
    plugin = Counting()
    async with pool_and_session(plugin) as (p, con):
        await answer(con, ADD)
        kept = p.lane().state
        for _ in range(5):
            assert await answer(con, READ) == ["0.1", {"n": 1}]
        assert p.lane().state is kept, "nobody sent it again"
        await answer(con, ADD)
        assert msgpack.unpackb(p.lane().state) == {"n": 2}


# undone


@with_and_without_workers
@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("raise", ErrorCode.HANDLER_FAILED),
        ("reject", ErrorCode.REJECTED),
        ("poison", ErrorCode.QUARANTINED),
        ("object", ErrorCode.HANDLER_FAILED),
        ("key", ErrorCode.HANDLER_FAILED),
        ("long", ErrorCode.HANDLER_FAILED),
        ("huge number", ErrorCode.HANDLER_FAILED),
    ],
)
@on_uvloop
async def test_what_a_failed_handler_did_to_it_is_undone(
    workers: int, how: str, code: ErrorCode
) -> None:
    async with service_and_session(Counting(), workers) as (_, con):
        con.messages(PUSH)
        assert await answer(con, ADD) == 1
        assert (await refused(ask(con, SPOIL, how)))[0] == code
        assert (await answer(con, READ))[1] == {"n": 1}
        assert await answer(con, ADD) == 2
        assert con.session.in_seq == 4, "what it sent is dropped as well"


@pytest.mark.parametrize("front", ["2", "3"])
@on_uvloop
async def test_a_dead_worker_s_changes_are_undone(front: str) -> None:
    plugin = Counting(front, front)
    async with pool_and_session(plugin, respawn=True) as (p, con):
        asked = [ask(con, ADD, n) for n in range(1, 8)]
        assert [unpack(one) for one in await asyncio.gather(*asked)] == list(range(1, 8))
        assert p.deaths == 2
        assert ("0.3", front, 3) in plugin.runs


@on_uvloop
async def test_an_async_handler_that_dies_midway_has_changed_nothing() -> None:
    plugin = Counting()
    async with pool_and_session(plugin) as (p, con):
        await answer(con, ADD)
        asked = ask(con, LATER)
        await eventually_async(lambda: len(plugin.runs) == 2)
        p.kill(0)
        plugin.gate.set()
        await p.worker(1)
        assert unpack(await asked) == 2


@on_uvloop
async def test_every_state_is_there_after_many_deaths() -> None:
    """A counter is the number of messages, whoever died when."""
    plugin = Counting(*[str(n) for n in range(0, 200, 9)])
    async with pool(plugin, workers=2, respawn=True) as (p, _), sessions(p, 3) as cons:
        asked = [ask(con, ADD, n) for n in range(200) for con in cons]
        counts = [unpack(one) for one in await asyncio.gather(*asked)]
        assert counts == [n for n in range(1, 201) for _ in cons]
        assert p.deaths == 23


# what it may hold


@with_and_without_workers
@on_uvloop
async def test_the_error_names_the_value(workers: int) -> None:
    async with service_and_session(Counting(), workers) as (_, con):
        con.messages(PUSH)
        texts = {how: (await refused(ask(con, SPOIL, how)))[1] for how in ("object", "long")}
        assert texts["object"].startswith(
            "handler failed: StateError: state['list'][1]['deep'] is object: msgpack cannot hold it"
        )
        assert texts["long"] == (
            "handler failed: StateError: state['blob'] takes 70005 of 70028 bytes,"
            " at most 65536 may be kept (state_bytes)"
        )


@on_uvloop
async def test_its_bound_can_be_set() -> None:
    async with pool_and_session(Counting(), worker={"state_limit": 100_000}) as (_, con):
        con.messages(PUSH)
        assert await answer(con, SPOIL, "long") == "kept"
        assert len((await answer(con, READ))[1]["blob"]) == 70_000


@with_and_without_workers
@on_uvloop
async def test_messages_without_an_order_have_none(workers: int) -> None:
    async with service_and_session(Counting(), workers) as (_, con):
        _, why = await refused(ask(con, FREE))
        assert "StateError: state is not there for messages without an order" in why


@with_and_without_workers
@on_uvloop
async def test_nobody_has_it_but_the_handler_that_runs(workers: int) -> None:
    stored: list[Connection] = []

    def plugin(site: Site) -> list[Any]:
        @handles(ADD)
        def keep(con: Connection, m: Message) -> str:
            assert con.state == {}
            stored.append(con)
            return "kept"

        @handles(READ)
        def of_another(con: Connection, m: Message) -> Any:
            return stored[0].state

        return [keep, of_another]

    async with service(plugin, workers) as (server, _), sessions(server, 2) as (con, other):
        assert await answer(con, ADD) == "kept"
        (earlier,) = stored
        with pytest.raises(StateError, match="only for the handler of a message, while it runs"):
            _ = earlier.state
        assert "StateError" in (await refused(ask(other, READ)))[1]


def test_an_empty_state_is_none_at_all() -> None:
    state = State()
    state.value["n"] = 1
    packed = state.encode() or b""
    assert packed == bytes(msgpack.packb({"n": 1}))
    state.commit(packed)
    assert state.encode() is None, "unchanged"
    state.value.clear()
    assert state.encode() == b""
    state.commit(b"")
    assert (state.value, state.encode()) == ({}, None)
