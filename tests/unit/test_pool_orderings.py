"""Who waits for whom: messages of a session, of a key, of nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random
from typing import Any

import msgpack
import pytest

from mpmsgr import Connection, Dispatcher, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger import local
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.pool import switchboard
from mpmsgr.session.policy import STATEFUL_SERVER, Policies
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    pool_and_session,
    service,
    service_and_session,
    session,
    sessions,
    with_and_without_workers,
)
from tests.unit.pool_site import Site

PLAIN, ROOM, BYTES, FREE, HOLD = range(0x9001, 0x9006)


def in_room(room: object, n: object = 0) -> bytes:
    return bytes(msgpack.packb({"room": room, "n": n}))


class Rooms:
    """A plugin whose handlers note when they begin and end; those in *closed* wait in between.

    log: ("begin" or "end", what), running: what is between the two.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []
        self.running: list[Any] = []
        self.sites: dict[Any, set[str]] = {}
        self.closed: list[Any] = []
        self.changed = asyncio.Condition()

    async def open(self, *what: Any) -> None:
        async with self.changed:
            self.closed = [one for one in self.closed if one not in what]
            self.changed.notify_all()

    async def _run(self, site: Site, what: Any) -> Any:
        self.log.append(("begin", what))
        self.running.append(what)
        self.sites.setdefault(what[0], set()).add(site.name)
        await asyncio.sleep(0)
        async with self.changed:
            await self.changed.wait_for(lambda: what not in self.closed)
        self.running.remove(what)
        self.log.append(("end", what))
        return what

    def begun(self, room: object) -> list[Any]:
        """What began in *room*, in order."""
        return [what[1] for event, what in self.log if event == "begin" and what[0] == room]

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(PLAIN)
        async def plain(con: Connection, m: Message) -> Any:
            return await self._run(site, ("plain", unpack(m)["n"]))

        @handles(ROOM, key="room")
        async def room(con: Connection, m: Message) -> Any:
            fields = unpack(m)
            return await self._run(site, (fields.get("room", "nowhere"), fields["n"]))

        @handles(BYTES, key=slice(2, 4))
        async def bytes_(con: Connection, m: Message) -> Any:
            return await self._run(site, (bytes(m.front[2:4]), bytes(m.front[4:])))

        @handles(FREE, ordering="none")
        async def free(con: Connection, m: Message) -> Any:
            return await self._run(site, ("free", unpack(m)["n"]))

        return [plain, room, bytes_, free]


def never_overlapped(log: list[tuple[str, Any]], room: object) -> bool:
    """Did all that began in *room* end before the next began?"""
    events = [event for event, what in log if what[0] == room]
    return events == ["begin", "end"] * (len(events) // 2)


# a key


@with_and_without_workers
@on_uvloop
async def test_messages_of_a_key_do_not_overlap_whoever_sent_them(workers: int) -> None:
    rooms = Rooms()
    async with service(rooms, workers) as (server, _), sessions(server, 4) as cons:
        asked = [
            ask(con, ROOM, in_room(f"room {n % 3}", [who, n]))
            for n in range(60)
            for who, con in enumerate(cons)
        ]
        await asyncio.gather(*asked)
        for room in ("room 0", "room 1", "room 2"):
            assert never_overlapped(rooms.log, room)
            begun = rooms.begun(room)
            assert len(begun) == 80
            for who in range(4):
                mine = [n for sender, n in begun if sender == who]
                assert mine == sorted(mine), "in the order of their session"


@on_uvloop
async def test_a_key_stays_where_it_is() -> None:
    rooms = Rooms()
    async with pool(rooms, workers=3) as (p, _), sessions(p, 4) as cons:
        for n in range(5):
            for con in cons:
                await answer(con, ROOM, in_room("a", n))
                await answer(con, ROOM, in_room("b", n))
        assert len(rooms.sites["a"]) == len(rooms.sites["b"]) == 1


@with_and_without_workers
@on_uvloop
async def test_keys_do_not_wait_for_each_other_nor_for_the_session(workers: int) -> None:
    rooms = Rooms()
    rooms.closed = [("a", 1), ("plain", 1)]
    async with service_and_session(rooms, workers) as (_, con):
        waiting = [ask(con, ROOM, in_room("a", 1)), ask(con, PLAIN, in_room(None, 1))]
        await eventually_async(lambda: len(rooms.running) == 2)
        assert await answer(con, ROOM, in_room("b", 1)) == ["b", 1]
        behind = [ask(con, ROOM, in_room("a", 2)), ask(con, PLAIN, in_room(None, 2))]
        assert await answer(con, ROOM, in_room("b", 2)) == ["b", 2]
        assert not any(one.done() for one in waiting + behind)
        await rooms.open(*rooms.closed)
        await asyncio.gather(*waiting, *behind)
        assert rooms.begun("a") == rooms.begun("plain") == [1, 2]


@with_and_without_workers
@on_uvloop
async def test_a_key_of_bytes(workers: int) -> None:
    rooms = Rooms()
    rooms.closed = [(b"aa", b"1")]
    async with service_and_session(rooms, workers) as (_, con):
        waiting = [ask(con, BYTES, front) for front in (b"..aa1", b"::aa2")]
        assert (await ask(con, BYTES, b"..bb1")).tid
        assert rooms.begun(b"aa") == [b"1"]
        await rooms.open((b"aa", b"1"))
        await asyncio.gather(*waiting)
        assert rooms.begun(b"aa") == [b"1", b"2"]


@with_and_without_workers
@on_uvloop
async def test_a_message_without_its_key_takes_its_turn_in_the_session(workers: int) -> None:
    rooms = Rooms()
    rooms.closed = [("plain", 1)]
    async with service_and_session(rooms, workers) as (_, con):
        asked = [ask(con, PLAIN, in_room(None, 1)), ask(con, ROOM, msgpack.packb({"n": 2}))]
        asked.append(ask(con, PLAIN, in_room(None, 3)))
        assert await answer(con, ROOM, in_room("a", 1)) == ["a", 1]
        assert rooms.begun("nowhere") == []
        await rooms.open(("plain", 1))
        await asyncio.gather(*asked)
        order = [what for event, what in rooms.log if event == "begin" and what[0] != "a"]
        assert order == [("plain", 1), ("nowhere", 2), ("plain", 3)]


@with_and_without_workers
@on_uvloop
async def test_keys_of_any_kind(workers: int) -> None:
    rooms = Rooms()
    async with service_and_session(rooms, workers) as (_, con):
        for room in (None, True, 7, 1.5, "text", b"bytes"):
            assert await answer(con, ROOM, in_room(room, 1)) == [room, 1]


@on_uvloop
async def test_a_dead_worker_s_messages_of_a_key_are_done_again_in_order() -> None:
    runs: list[tuple[str, Any, int]] = []

    def plugin(site: Site) -> list[Any]:
        @handles(ROOM, key="room")
        def room(con: Connection, m: Message) -> Any:
            runs.append((site.name, unpack(m)["n"], m.attempt))
            if unpack(m)["n"] == "killer" and m.attempt == 1:
                site.die()
            return [unpack(m)["n"], con.peer_addr.nonce]

        return [room]

    async with pool(plugin, respawn=True) as (p, _), sessions(p, 2) as (con, other):
        assert await answer(con, ROOM, in_room("a")) == [0, con.messenger.addr.nonce]
        asked = [ask(con, ROOM, in_room("a", "killer"))]
        asked += [ask(c, ROOM, in_room("a", n)) for n in range(5) for c in (con, other)]
        replies = [unpack(one) for one in await asyncio.gather(*asked)]
        nonces = [c.messenger.addr.nonce for c in (con, other)]
        assert replies[1:] == [[n, nonce] for n in range(5) for nonce in nonces]
        again = [(n, attempt) for name, n, attempt in runs if name == "0.2"]
        assert again[0] == ("killer", 2) or again[-11:][0] == ("killer", 2)
        assert all(attempt == 1 for n, attempt in again if n != "killer")


def counting(site: Site) -> list[Any]:
    """A plugin that counts in the state of a key, where *n* says so."""

    @handles(ROOM, key="room")
    def room(con: Connection, m: Message, state: dict[str, Any]) -> Any:
        if unpack(m)["n"]:
            state["n"] = state.get("n", 0) + 1
        return state.get("n", 0)

    return [room]


@on_uvloop
async def test_lanes_of_keys_are_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "_IDLE_KEYS", 20)
    async with pool_and_session(counting, workers=2) as (p, con):
        assert await answer(con, ROOM, in_room("kept", 1)) == 1
        for n in range(200):
            assert await answer(con, ROOM, in_room(n)) == 0
        assert len(p.lanes) <= 22
        assert await answer(con, ROOM, in_room("kept", 1)) == 2, "what has a state stays"
        assert all(len(worker.runtime._lanes) <= 22 for worker in p.workers.values())


@on_uvloop
async def test_and_so_they_are_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_KEYS", 20)
    async with service_and_session(counting, 0) as (server, con):
        assert await answer(con, ROOM, in_room("kept", 1)) == 1
        for n in range(200):
            assert await answer(con, ROOM, in_room(n)) == 0
        assert server._local is not None
        assert len(server._local._keys) <= 22
        assert await answer(con, ROOM, in_room("kept", 1)) == 2, "what has a state stays"


# no order


@with_and_without_workers
@on_uvloop
async def test_messages_without_an_order_wait_for_nobody(workers: int) -> None:
    rooms = Rooms()
    rooms.closed = [("free", n) for n in range(10)]
    async with service_and_session(rooms, workers) as (_, con):
        waiting = [ask(con, FREE, in_room(None, n)) for n in range(10)]
        await eventually_async(lambda: len(rooms.running) == 10)
        assert await answer(con, PLAIN, in_room(None, 1)) == ["plain", 1]
        assert await answer(con, FREE, in_room(None, 11)) == ["free", 11]
        await rooms.open(*rooms.closed)
        await asyncio.gather(*waiting)


@on_uvloop
async def test_messages_without_an_order_go_to_who_has_least_to_do() -> None:
    rooms = Rooms()
    rooms.closed = [("plain", n) for n in range(12)] + [("free", n) for n in range(8)]
    async with pool(rooms, workers=2) as (p, messenger):
        p.trust()
        con = await session(p, messenger)
        waiting = [ask(con, PLAIN, in_room(None, 0))]
        await eventually_async(lambda: "plain" in rooms.sites)
        (busy,) = rooms.sites["plain"]
        with p.frozen(int(busy[0])):
            waiting += [ask(con, PLAIN, in_room(None, n)) for n in range(1, 12)]
            await eventually_async(lambda: len(p.lane().inflight) == 12)
            waiting += [ask(con, FREE, in_room(None, n)) for n in range(8)]
            await eventually_async(lambda: len(rooms.running) == 9)
        assert busy not in rooms.sites["free"]
        await rooms.open(*rooms.closed)
        await asyncio.gather(*waiting)
        assert list(p.lanes) == [p.session.id], "their lanes go with them"


# a session


@with_and_without_workers
@on_uvloop
async def test_events_are_in_the_session_s_order(workers: int) -> None:
    log: list[str] = []

    class Listens(Dispatcher):
        async def handle_accept(self, con: Connection) -> None:
            await asyncio.sleep(0.01)
            log.append("accept")

        def handle_reset(self, con: Connection) -> None:
            log.append("reset")

    def plugin(site: Site) -> list[Any]:
        @handles(PLAIN)
        async def plain(con: Connection, m: Message) -> None:
            await asyncio.sleep(0)
            log.append(str(unpack(m)["n"]))

        @handles(ROOM, key="room")
        def room(con: Connection, m: Message) -> None:
            log.append("room")

        return [Listens(), plain, room]

    async with service(plugin, workers) as (server, messenger):
        con = await session(server, messenger)
        con.send_message(Message(ROOM, in_room("a")))
        for n in range(3):
            con.send_message(Message(PLAIN, in_room(None, n)))
        await eventually_async(lambda: "2" in log)
        await messenger.shutdown()
        await eventually_async(lambda: "reset" in log)
        log.remove("room")
        assert log == ["accept", "0", "1", "2", "reset"]


@on_uvloop
async def test_what_came_before_a_worker_was_there_finds_its_lane() -> None:
    rooms = Rooms()
    rooms.closed = [("a", 1)]
    async with pool_and_session(rooms, workers=0) as (p, con):
        waiting = [ask(con, ROOM, in_room("a", n)) for n in (1, 2)]
        others = [ask(con, ROOM, in_room("b", 1)), ask(con, PLAIN, in_room(None, 1))]
        await eventually_async(lambda: p.items == 5)
        await p.worker(0)
        await asyncio.gather(*others)
        await rooms.open(("a", 1))
        await asyncio.gather(*waiting)
        assert rooms.begun("a") == [1, 2]


@on_uvloop
async def test_all_messages_of_a_full_session_wait() -> None:
    """Then each goes to the lane it belongs to, in order."""
    rooms = Rooms()
    policies = Policies(STATEFUL_SERVER).having(outbox_bytes=10_000)

    def plugin(site: Site) -> list[Any]:
        @handles(HOLD)
        def grow(con: Connection, m: Message) -> Message:
            return m.reply(data=bytes(12_000))

        return [*rooms(site), grow]

    async with pool_and_session(plugin, workers=2, policies=policies) as (p, con):
        await answer(con, PLAIN, in_room(None, 0))
        assert con.session.pipe is not None
        handle = con.session.pipe.handle
        assert isinstance(handle, PipeTransport)
        handle.pause_reading()
        large = ask(con, HOLD)
        await eventually_async(lambda: p.session.full)
        asked = [
            ask(con, type_, in_room("a", n)) for n in range(1, 5) for type_ in (ROOM, PLAIN, FREE)
        ]
        await eventually_async(lambda: p.lane().queued == 12)
        assert len(rooms.log) == 2
        handle.resume_reading()
        await asyncio.gather(large, *asked)
        assert rooms.begun("a") == [1, 2, 3, 4]
        assert rooms.begun("plain") == [0, 1, 2, 3, 4]


@on_uvloop
async def test_a_connection_is_the_same_one_in_all_lanes_of_a_worker() -> None:
    seen: list[Connection] = []

    def plugin(site: Site) -> list[Any]:
        @handles(PLAIN)
        def plain(con: Connection, m: Message) -> Any:
            seen.append(con)
            return [con.id, con.peer_type, con.peer_addr.nonce]

        @handles(ROOM, key="room")
        def room(con: Connection, m: Message) -> Any:
            return plain(con, m)

        @handles(FREE, ordering="none")
        def free(con: Connection, m: Message) -> Any:
            return plain(con, m)

        return [plain, room, free]

    async with pool(plugin) as (p, _), sessions(p, 2) as cons:
        for con in cons:
            seen.clear()
            nonce = con.messenger.addr.nonce
            facts = [
                await answer(con, type_, in_room("a")) for type_ in (ROOM, FREE, PLAIN, ROOM, FREE)
            ]
            assert facts == [[p.lane(con).id, 8, nonce]] * 5
            assert len(set(map(id, seen))) == 1


@on_uvloop
async def test_a_worker_forgets_who_ended_before_its_message_of_a_key_was_handled() -> None:
    rooms = Rooms()
    async with pool_and_session(rooms) as (p, con):
        await answer(con, ROOM, in_room("a", 1))
        p.kill(0)
        async with sessions(p, 1) as (other,):
            other.send_message(Message(ROOM, in_room("a", 2)))
            await eventually_async(lambda: p.items == 2)
        await eventually_async(lambda: len(list(p.session_lanes())) == 1)
        worker = await p.worker(0)
        await answer(con, ROOM, in_room("a", 3))
        assert rooms.begun("a") == [1, 2, 3]
        assert list(worker.cons) == [p.lane(con).id]


@on_uvloop
async def test_it_is_not_noted_which_dead_workers_knew_a_session() -> None:
    async with pool_and_session(Rooms()) as (p, con):
        for n in range(4):
            await answer(con, ROOM, in_room("a", n))
            p.kill(0)
            await p.worker(0)
        await answer(con, ROOM, in_room("a"))
        assert p.lane().also_known_to == {p.seat(0)}


@pytest.mark.parametrize("seed", range(3))
@on_uvloop
async def test_any_mix(seed: int) -> None:
    rng = Random(seed)
    rooms = Rooms()

    class Moved(Dispatcher):
        def handle_lane_moved(self, con: Connection) -> None:
            assert con.id

    async with (
        pool(lambda site: [Moved(), *rooms(site)], workers=3, respawn=True) as (p, _),
        sessions(p, 3) as cons,
    ):
        asked: list[asyncio.Task[Message]] = []
        for n in range(150):
            con: MessengerConnection = rng.choice(cons)
            type_ = rng.choice([PLAIN, ROOM, FREE])
            asked.append(ask(con, type_, in_room(rng.randrange(3), [con.session.id, n])))
            if n % 40 == 20:
                slot = rng.choice(list(p.workers))
                await eventually_async(lambda: any(one.done() for one in asked))
                p.kill(slot)
            if rng.random() < 0.2:
                await asyncio.sleep(0.001)
        await asyncio.gather(*asked)
        assert p.deaths == 4
