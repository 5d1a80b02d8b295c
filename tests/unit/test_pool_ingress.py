"""Room for large messages: who gets it, who waits for it, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest

from mpmsgr import Connection, Message, Messenger
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger import throttles
from mpmsgr.pool.ingress import Ingress
from mpmsgr.pool.mapping import Mapping
from mpmsgr.session.session import Pause
from mpmsgr.supervisor.memory import create
from tests.raw_peer import RawPeer
from tests.streams import message_frame
from tests.support import eventually_async
from tests.unit.messenger_peers import place
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
from tests.unit.pool_payloads import LARGE, MIB, Deaf, large_parts, payload, unacknowledged
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import Pool, Sizes

HOLD, ECHO, SMALL = 0x9001, 0x9002, 0x9003


class Gate:
    """A plugin: HOLD waits for the gate, ECHO sends back what came, SMALL says "here".

    begun: fronts of HOLD, in order.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = asyncio.Event()

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(HOLD)
        async def hold(con: Connection, m: Message) -> int:
            self.begun.append(text(m))
            await self.gate.wait()
            return len(m.data)

        @handles(ECHO)
        def echo(con: Connection, m: Message) -> Message:
            return m.reply(m.front, data=m.data)

        @handles(SMALL)
        def small(con: Connection, m: Message) -> str:
            return "here"

        return [hold, echo, small]


def paused(p: Pool) -> int:
    """Sessions that wait for room."""
    return sum(bool(lane.session.paused & Pause.ARENA) for lane in p.session_lanes())


# exhausted


@on_uvloop
async def test_who_finds_no_room_waits_and_the_others_go_on() -> None:
    plugin = Gate()
    async with pool(plugin, sizes=Sizes(arena=2 * MIB)) as (p, _), sessions(p, 8) as cons:
        p.trust()
        large, small = cons[:6], cons[6:]
        asked = [ask(con, HOLD, who, data=payload(LARGE, who)) for who, con in enumerate(large)]
        await eventually_async(lambda: p.ingress.waiting == 3)
        assert (p.slots, paused(p)) == (3, 3)
        for _ in range(20):
            for con in small:
                assert await answer(con, SMALL, data=bytes(10_000)) == "here"
        assert p.ingress.waiting == 3
        plugin.gate.set()
        assert [unpack(one) for one in await asyncio.gather(*asked)] == [LARGE] * 6
        assert (p.ingress.waiting, paused(p)) == (0, 0)
        assert sorted(plugin.begun) == [str(who) for who in range(6)]


@on_uvloop
async def test_many_sessions_share_an_arena_of_two_messages() -> None:
    plugin = Gate()
    async with (
        pool(plugin, workers=2, sizes=Sizes(arena=MIB + MIB // 4)) as (p, _),
        sessions(p, 20) as cons,
    ):
        asked = [
            ask(con, ECHO, n, data=payload(LARGE, who))
            for n in range(3)
            for who, con in enumerate(cons)
        ]
        replies = await asyncio.gather(*asked)
        for i, reply in enumerate(replies):
            assert reply.data == payload(LARGE, i % 20)


class Arena:
    """An `Ingress` of *size* bytes by itself. granted: places by session; time: of its clock."""

    def __init__(self, size: int) -> None:
        fd = create("test", size)
        mapping = Mapping(fd, size, writable=True)
        os.close(fd)
        self.granted: dict[int, memoryview] = {}
        self.time = 0.0
        self.ingress = Ingress(mapping, self._grant, lambda: self.time)

    def _grant(self, pipe: Any, place: memoryview) -> bool:
        self.granted[pipe.session.id] = place
        return True

    def ask_for(self, session_id: int, size: int) -> memoryview | None:
        pipe: Any = Mock(session=Mock(id=session_id), established=None)
        return self.ingress.place(pipe, size, 53)


@on_uvloop
async def test_the_end_of_a_view_is_enough_to_go_on() -> None:
    """Nothing else happens, and nobody looks: again and again."""
    arena = Arena(MIB)
    places = [arena.ask_for(1, 700_000)]
    assert places != [None]
    assert [arena.ask_for(who, 700_000) for who in (2, 3, 4)] == [None] * 3
    for who in (2, 3, 4):
        places.clear()
        await eventually_async(lambda: arena.granted)
        places.append(arena.granted.pop(who))
    assert arena.granted == {}


@on_uvloop
async def test_who_waited_too_long_goes_before_all_younger_ones() -> None:
    """One of the size of the arena would never find it empty while smaller ones come and go."""
    arena = Arena(MIB)
    ask_for, granted = arena.ask_for, arena.granted
    places = [ask_for(1, 400_000), ask_for(2, 400_000)]
    assert None not in places
    assert ask_for(3, 900_000) is None
    assert ask_for(4, 200_000) is not None, "others come first, for a while"
    assert ask_for(5, 300_000) is None
    arena.time = 3.0
    del places[0]
    arena.ingress.collect()
    assert granted == {}
    assert ask_for(6, 100_000) is None
    del places[0]
    arena.ingress.collect()
    assert list(granted) == [3]
    granted.clear()
    arena.ingress.collect()
    assert list(granted) == [5, 6]
    granted.clear()


@on_uvloop
async def test_a_worker_s_death_makes_room() -> None:
    plugin = Gate()
    kept: list[Any] = []

    def keeping(site: Site) -> Iterable[Any]:
        @handles(ECHO + 100)
        def keep(con: Connection, m: Message) -> str:
            kept.append(m.data)
            return "kept"

        return [*plugin(site), keep]

    async with pool(keeping, sizes=Sizes(arena=MIB)) as (p, _), sessions(p, 2) as (con, other):
        assert await answer(con, ECHO + 100, data=payload(LARGE)) == "kept"
        asked = ask(other, ECHO, data=payload(LARGE, 1))
        await eventually_async(lambda: p.ingress.waiting == 1)
        p.kill(0)
        await eventually_async(lambda: p.ingress.waiting == 0)
        await p.worker(0)
        assert (await asked).data == payload(LARGE, 1)
        kept.clear()


@on_uvloop
async def test_the_end_of_a_lease_makes_room() -> None:
    kept: list[Any] = []

    def plugin(site: Site) -> Iterable[Any]:
        @handles(ECHO)
        def keep(con: Connection, m: Message) -> int:
            kept.append(m.data[:10])
            return len(kept)

        return [keep]

    async with pool(plugin, sizes=Sizes(arena=MIB)) as (p, _), sessions(p, 2) as (con, other):
        assert await answer(con, ECHO, data=payload(LARGE)) == 1
        asked = ask(other, ECHO, data=payload(LARGE))
        await eventually_async(lambda: p.ingress.waiting == 1)
        kept[0] = None
        assert unpack(await asked) == 2
        kept.clear()


# quota


@on_uvloop
async def test_a_session_may_have_a_quarter_but_always_one() -> None:
    plugin = Gate()
    async with pool(plugin, sizes=Sizes(arena=8 * MIB)) as (p, _), sessions(p, 2) as (con, other):
        asked = [ask(con, HOLD, n, data=payload(LARGE, n)) for n in range(6)]
        await eventually_async(lambda: p.ingress.waiting == 1)
        assert p.slots == 3, "3 x 600 kB are below 2 MiB"
        large = ask(other, HOLD, "large", data=payload(5 * MIB))
        await eventually_async(lambda: p.slots == 4)
        assert p.ingress.waiting == 1
        plugin.gate.set()
        assert [unpack(one) for one in await asyncio.gather(*asked)] == [LARGE] * 6
        assert unpack(await large) == 5 * MIB


@on_uvloop
async def test_a_lease_does_not_count_for_the_quota() -> None:
    kept: list[Any] = []

    def plugin(site: Site) -> Iterable[Any]:
        @handles(ECHO)
        def keep(con: Connection, m: Message) -> int:
            kept.append(m.data)
            return len(kept)

        return [keep]

    async with pool_and_session(plugin, sizes=Sizes(arena=8 * MIB)) as (p, con):
        for n in range(1, 11):
            assert await answer(con, ECHO, data=payload(LARGE)) == n
        assert p.slots == 10
        kept.clear()


# acks are not waited for


@pytest.mark.parametrize("count", [2, 5])
@on_uvloop
async def test_an_arena_of_one_message_and_echoes_that_are_not_acknowledged(count: int) -> None:
    """Reading the next one must not wait for an ack that is behind it."""
    plugin = Gate()
    async with pool_and_session(plugin, sizes=Sizes(arena=MIB)) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = [ask(con, ECHO, n, data=payload(LARGE, n)) for n in range(count)]
            await eventually_async(lambda: len(large_parts(unacknowledged(p))) == count)
            assert p.ingress.waiting == 0
            assert p.ingress.used <= MIB
        for n, reply in enumerate(await asyncio.gather(*asked)):
            assert (text(reply), bytes(reply.data)) == (str(n), payload(LARGE, n))


@on_uvloop
async def test_replies_that_keep_little_give_way_to_what_needs_more() -> None:
    plugin = Gate()
    async with pool_and_session(plugin, sizes=Sizes(arena=2 * MIB)) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = [ask(con, ECHO, data=payload(LARGE))]
            await eventually_async(lambda: len(large_parts(unacknowledged(p))) == 1)
            assert p.slots == 1
            asked.append(ask(con, ECHO, data=payload(2 * MIB - 20_000)))
            await eventually_async(lambda: len(large_parts(unacknowledged(p))) == 2)
        replies = await asyncio.gather(*asked)
        assert [bytes(reply.data) for reply in replies] == [
            payload(LARGE),
            payload(2 * MIB - 20_000),
        ]


@on_uvloop
async def test_replies_keep_no_more_than_half_of_the_arena() -> None:
    plugin = Gate()
    async with pool_and_session(plugin, sizes=Sizes(arena=4 * MIB)) as (p, con):
        await answer(con, SMALL)
        with Deaf(con):
            asked = [ask(con, ECHO, n, data=payload(LARGE, n)) for n in range(6)]
            await eventually_async(lambda: len(large_parts(unacknowledged(p))) == 6)
            kept = [p.place_of(part) is not None for part in large_parts(unacknowledged(p))]
            assert kept == [False] * 3 + [True] * 3, "3 x 600 kB are below 2 MiB; the oldest go"
        for n, reply in enumerate(await asyncio.gather(*asked)):
            assert bytes(reply.data) == payload(LARGE, n)


@on_uvloop
async def test_replies_are_written_while_they_are_copied_out() -> None:
    """The socket's buffer still refers to the arena."""
    plugin = Gate()
    async with pool(plugin, sizes=Sizes(arena=2 * MIB)) as (p, _), sessions(p, 3) as cons:
        for con in cons:
            await answer(con, SMALL)
        asked = [ask(con, ECHO, n, data=payload(LARGE, n)) for n in range(10) for con in cons]
        for i, reply in enumerate(await asyncio.gather(*asked)):
            assert bytes(reply.data) == payload(LARGE, i // 3)


# peers that keep others waiting


@asynccontextmanager
async def raw_peer(server: Messenger) -> AsyncIterator[RawPeer]:
    """A peer with an open session that sends what it is told."""

    def connect() -> RawPeer:
        peer = RawPeer(place(server))
        peer.handshake()
        return peer

    peer = await asyncio.to_thread(connect)
    with peer:
        yield peer


def beginning(size: int) -> bytes:
    """Of a message: all but its last *size* bytes."""
    return message_frame(Message(ECHO, b"slow", data=payload(LARGE), tid=1))[:-size]


@on_uvloop
async def test_a_payload_that_comes_too_slowly_gives_way_to_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(throttles, "_GRACE_S", 0.05)
    monkeypatch.setattr("mpmsgr.pool.upkeep._EVERY_S", 0.02)
    caplog.set_level("INFO")
    async with pool(Gate(), sizes=Sizes(arena=MIB)) as (p, messenger):
        con = await session(p, messenger)
        async with raw_peer(p.messenger) as peer:
            await asyncio.to_thread(peer.send, beginning(LARGE - 1000))
            await eventually_async(lambda: p.slots == 1)
            await asyncio.sleep(0.15)
            assert p.slots == 1, "nobody minds while nobody waits"
            assert (await ask(con, ECHO, data=payload(LARGE))).data == payload(LARGE)
            assert "less than 65536 a second, while others wait for room" in caplog.text
            assert await asyncio.to_thread(peer.read_to_end) is not None, "it was cut"


@on_uvloop
async def test_a_claimed_length_alone_costs_nothing_before_the_session_is_there() -> None:
    async with pool_and_session(Gate(), sizes=Sizes(arena=MIB)) as (p, con):

        def claim() -> RawPeer:
            peer = RawPeer(place(p.messenger))
            peer.send(peer.hello() + beginning(LARGE))
            return peer

        peers = [await asyncio.to_thread(claim) for _ in range(5)]
        assert (await ask(con, ECHO, data=payload(LARGE))).data == payload(LARGE)
        for peer in peers:
            peer.sock.close()


@on_uvloop
async def test_a_peer_that_goes_away_while_it_waits() -> None:
    """That is noticed when it is read again: it leaves the room to the next one."""
    plugin = Gate()
    async with pool(plugin, sizes=Sizes(arena=MIB)) as (p, _), sessions(p, 2) as (con, other):
        asked = ask(con, HOLD, data=payload(LARGE))
        await eventually_async(lambda: plugin.begun)
        async with raw_peer(p.messenger) as peer:
            await asyncio.to_thread(peer.send, beginning(1))
            await eventually_async(lambda: p.ingress.waiting == 1)
        waits = ask(other, HOLD, "other", data=payload(LARGE))
        await eventually_async(lambda: p.ingress.waiting == 2)
        other.session.pipe.handle.abort()  # type: ignore[union-attr]
        await eventually_async(lambda: other.is_connected and p.ingress.waiting == 2)
        plugin.gate.set()
        assert [unpack(one) for one in (await asked, await waits)] == [LARGE] * 2


@pytest.mark.parametrize("landed", [100, LARGE // 2, LARGE - 1])
@on_uvloop
async def test_a_place_is_free_again_when_its_socket_breaks(landed: int) -> None:
    async with pool_and_session(Gate(), sizes=Sizes(arena=MIB)) as (p, con):
        async with raw_peer(p.messenger) as peer:
            await asyncio.to_thread(peer.send, beginning(LARGE - landed))
            await eventually_async(lambda: p.slots == 1)
        await eventually_async(lambda: p.slots == 0)
        assert (await ask(con, ECHO, data=payload(LARGE))).data == payload(LARGE)


@on_uvloop
async def test_a_message_that_was_seen_before_leaves_nothing() -> None:
    async with pool(Gate()) as (p, _), raw_peer(p.messenger) as peer:
        whole = message_frame(Message(ECHO, b"1", data=payload(LARGE), tid=1))
        for _ in range(3):
            await asyncio.to_thread(peer.send, whole)
        await eventually_async(lambda: p.messenger.endpoint.counters.duplicates == 2)
        await eventually_async(lambda: p.items == 0)
        assert p.slots == 1, "the reply is not acknowledged"
        p.messenger.endpoint.mark_down_all("that was all")
        p.messenger.driver.run()
        await eventually_async(lambda: p.slots == 0)


@on_uvloop
async def test_a_payload_with_a_wrong_crc_leaves_nothing() -> None:
    async with pool(Gate()) as (p, _), raw_peer(p.messenger) as peer:
        whole = bytearray(message_frame(Message(ECHO, b"1", data=payload(LARGE), tid=1)))
        whole[-1000] ^= 1
        await asyncio.to_thread(peer.send, bytes(whole))
        await eventually_async(lambda: p.messenger.endpoint.counters.hostile == 1)
        assert p.slots == 0
