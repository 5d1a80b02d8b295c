"""Who is read while much is in work, and who is handled first: front and workers on one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mpmsgr import Connection, Message, Messenger, Policies, handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.session.policy import LOSSLESS_CLIENT, STATEFUL_SERVER, Policy
from mpmsgr.session.session import Pause
from mpmsgr.wire.message import PRIO_HIGHEST, PRIO_LOW
from mpmsgr.wire.name import EntityName, EntityType
from mpmsgr.wire.v1.parcel import Parcel, encode_parcel
from tests.support import eventually_async
from tests.unit.messenger_peers import connected, place
from tests.unit.pool_harness import ask, on_uvloop, pool, pool_and_session, session, text
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import Pool, Sizes

HOLD, NOTE, ASK_BACK, BACK, PUSH = 0x9001, 0x9002, 0x9003, 0x9004, 0x9005
KIB, MIB = 1 << 10, 1 << 20


class Plugin:
    """HOLD waits for `gate`, NOTE does not; ASK_BACK asks the sender, PUSH sends it so many KiB.

    begun, done: what was handled.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[str] = []
        self.done: list[str] = []

    def __call__(self, site: Site) -> list[Callable[..., Any]]:
        @handles(HOLD)
        async def hold(con: Connection, m: Message) -> bool:
            self.begun.append(text(m))
            await self.gate.wait()
            self.done.append(text(m))
            return True

        @handles(NOTE)
        def note(con: Connection, m: Message) -> bool:
            self.done.append(text(m))
            return True

        @handles(ASK_BACK)
        async def ask_back(con: Connection, m: Message) -> str:
            return text(await con.request(Message(BACK), timeout=5.0))

        @handles(PUSH)
        def push(con: Connection, m: Message) -> bool:
            con.send_message(Message(PUSH, data=bytes(int(m.front) * KIB)))
            return True

        return [hold, note, ask_back, push]


def serve(mgr: Policy = STATEFUL_SERVER, default: Policy = STATEFUL_SERVER) -> dict[str, Any]:
    """Policies of the service: towards `mgr`, and all others."""
    return {"policies": Policies(default, {int(EntityType.MGR): mgr})}


@asynccontextmanager
async def of_type(p: Pool, name: str = "client.?") -> AsyncIterator[MessengerConnection]:
    """The connection of another peer, of that name."""
    policies = Policies(LOSSLESS_CLIENT)
    async with Messenger(name, policies=policies, drain_s=0.1) as messenger:
        yield await connected(messenger, place(p.messenger))


def gauge(p: Pool, name: str) -> dict[str, Any]:
    """The numbers of a throttle."""
    (found,) = (one for one in p.front.throttles.statistics() if one["name"] == name)
    return found


# who is read


@on_uvloop
async def test_reading_goes_on_when_there_is_room() -> None:
    plugin = Plugin()
    async with pool_and_session(plugin, workers=0, dispatch_bytes=10_000) as (p, con):
        asked = [ask(con, NOTE, i, data=bytes(1000)) for i in range(400)]
        await eventually_async(lambda: p.session.paused == Pause.DISPATCH)
        assert 10_000 < p.nbytes < 10_000 + 256 * KIB + 1100
        assert gauge(p, "dispatch")["waiting"] == 1
        await p.worker(0)
        await asyncio.gather(*asked)
        assert plugin.done == [str(i) for i in range(400)]
        assert not p.session.paused


@on_uvloop
async def test_a_long_message_waits_for_room_before_it_is_read() -> None:
    plugin = Plugin()
    async with pool_and_session(plugin, dispatch_bytes=3 * MIB, sizes=Sizes(arena=32 * MIB)) as (
        p,
        con,
    ):
        asked = [ask(con, HOLD, i, data=bytes(MIB)) for i in range(10)]
        await eventually_async(lambda: gauge(p, "dispatch")["waiting"])
        assert p.session.paused == Pause.ARENA
        await eventually_async(lambda: p.items == 2)  # the event of its coming is over
        assert 2 * MIB < p.nbytes < 3 * MIB
        async with of_type(p) as other:
            waiting = ask(other, HOLD, "other", data=bytes(MIB))
            await eventually_async(lambda: gauge(p, "dispatch")["waiting"] == 2)
            plugin.gate.set()
            await asyncio.gather(*asked, waiting)
        assert [name for name in plugin.done if name != "other"] == [str(i) for i in range(10)]


@on_uvloop
async def test_sockets_that_break_while_they_wait_or_receive_give_everything_back() -> None:
    plugin = Plugin()
    async with pool(plugin, dispatch_bytes=3 * MIB, sizes=Sizes(arena=32 * MIB)) as (p, messenger):
        cons = [await session(p, messenger)]
        async with of_type(p) as other:
            cons.append(other)
            asked = [ask(con, HOLD, i, data=bytes(MIB)) for i in range(5) for con in cons]
            for _ in range(5):
                await eventually_async(lambda: gauge(p, "dispatch")["waiting"] >= 2)
                pipes = list(p.messenger.endpoint.registry.pipes)
                for con in cons:
                    assert con.session.pipe is not None
                    con.session.pipe.handle.abort()  # type: ignore[attr-defined]
                for pipe in pipes:
                    await eventually_async(lambda pipe=pipe: pipe.closed)  # type: ignore[misc]
            plugin.gate.set()
            await asyncio.gather(*asked)
        assert sorted(plugin.done) == sorted(str(i) for i in [*range(5)] * 2)


@on_uvloop
async def test_without_an_arena_long_messages_wait_for_room_as_well() -> None:
    plugin = Plugin()
    async with pool_and_session(plugin, dispatch_bytes=3 * MIB, sizes=None) as (p, con):
        asked = [ask(con, HOLD, i, data=bytes(MIB)) for i in range(10)]
        await eventually_async(lambda: gauge(p, "dispatch")["waiting"])
        assert 2 * MIB < p.nbytes < 3 * MIB
        plugin.gate.set()
        await asyncio.gather(*asked)


@on_uvloop
async def test_a_peer_type_with_a_throttle_of_its_own_leaves_others_alone() -> None:
    plugin = Plugin()
    throttled = replace(STATEFUL_SERVER, throttle_messages=5)
    async with pool(plugin, **serve(default=throttled)) as (p, messenger):
        con = await session(p, messenger)
        async with of_type(p, "mgr.1") as mgr:
            asked = []
            for i in range(20):
                asked.append(ask(con, HOLD, i))
                await asyncio.sleep(0)
            await eventually_async(lambda: gauge(p, "default.messages")["waiting"])
            assert 5 <= gauge(p, "default.messages")["current"] < 20
            for i in range(50):
                await ask(mgr, NOTE, i, priority=PRIO_HIGHEST)  # whatever the worker holds
            assert len(plugin.done) == 50
            plugin.gate.set()
            await asyncio.gather(*asked)
            assert gauge(p, "default.messages")["current"] == 0
            assert gauge(p, "default.bytes")["current"] == 0


@on_uvloop
async def test_a_key_s_lane_counts_for_the_types_of_its_senders() -> None:
    gate = asyncio.Event()

    def plugin(site: Site) -> list[Callable[..., Any]]:
        @handles(HOLD, key=slice(0, 1))
        async def hold(con: Connection, m: Message) -> bool:
            return await gate.wait()

        @handles(NOTE, ordering="none")
        async def note(con: Connection, m: Message) -> bool:
            return await gate.wait()

        return [hold, note]

    mgr_policy = replace(STATEFUL_SERVER, throttle_bytes=1 * MIB)
    client_policy = replace(STATEFUL_SERVER, throttle_messages=10_000)
    async with pool(plugin, **serve(mgr_policy, client_policy)) as (p, messenger):
        con = await session(p, messenger)
        async with of_type(p, "mgr.1") as mgr:
            asked = [ask(one, HOLD, "k", data=bytes(100)) for one in (con, mgr) for _ in range(3)]
            asked += [ask(mgr, NOTE, "k", data=bytes(100)) for _ in range(3)]
            await eventually_async(lambda: p.items == 9)
            assert gauge(p, "mgr.bytes")["current"] == 6 * (53 + 1 + 100 + 21)
            assert gauge(p, "default.messages")["current"] == 3
            gate.set()
            await asyncio.gather(*asked)
            await eventually_async(lambda: not p.items)
            assert {one["current"] for one in p.front.throttles.statistics()} == {0}


@on_uvloop
async def test_a_reply_that_a_handler_waits_for_is_read_although_there_is_no_room() -> None:
    async with pool_and_session(Plugin(), dispatch_bytes=10_000) as (_, con):
        asks = con.messages(BACK)
        asked = [ask(con, ASK_BACK, i, data=bytes(1000)) for i in range(100)]

        async def answer() -> None:
            async for m in asks:
                con.send_message(m.reply(b"here", data=bytes(200 * KIB)))

        answering = asyncio.ensure_future(answer())
        assert {unpack(await one) for one in asked} == {"here"}
        answering.cancel()


@pytest.mark.parametrize("before", [True, False])
@on_uvloop
async def test_a_full_session_is_read_for_its_acks_whatever_else_is_in_work(before: bool) -> None:
    """Be its messages there before it is full, or not: they wait for acks, and hold up nobody."""
    plugin = Plugin()
    policy = replace(STATEFUL_SERVER, outbox_bytes=300 * KIB, throttle_messages=1000)
    sizes = Sizes(arena=32 * MIB, threshold=20 * KIB)
    async with pool(plugin, dispatch_bytes=2 * MIB, sizes=sizes, **serve(default=policy)) as (
        p,
        messenger,
    ):
        con = await session(p, messenger)
        con.messages(PUSH)
        await eventually_async(lambda: not p.items)
        transport: Any = con.session.pipe.handle if con.session.pipe is not None else None
        transport.pause_reading()
        async with of_type(p) as other:
            asked = []
            if not before:
                asked.append(ask(con, PUSH, 400))
                await eventually_async(lambda: p.lane(con).session.full)
            asked += [ask(other, HOLD, "other", data=bytes(MIB)) for _ in range(3)]
            await eventually_async(lambda: p.lane(other).session.paused)
            asked += [ask(con, HOLD, i, data=bytes(30 * KIB)) for i in range(5)]
            if before:
                await eventually_async(lambda: p.lane(con).session.paused)
                lane = p.lane(con)
                p.messenger.endpoint.send(lane.session, [push_of(400)], p.messenger.now())
                p.messenger.driver.run()
            await eventually_async(lambda: p.lane(con).held_count == 5)
            assert gauge(p, "default.messages")["current"] == 2, "of the other"
            transport.resume_reading()
            await eventually_async(lambda: not p.lane(con).session.full)
            assert gauge(p, "default.messages")["current"] == 7
            plugin.gate.set()
            await asyncio.gather(*asked)
            await eventually_async(lambda: not p.items)
            assert {one["current"] for one in p.front.throttles.statistics()} == {0}


def push_of(kib: int) -> Parcel:
    """A message to a client."""
    return encode_parcel(Message(PUSH, data=bytes(kib * KIB), tid=1), EntityName.parse("svc.0"))


# who is handled first


@on_uvloop
async def test_a_highest_message_is_handled_within_the_credit_of_its_worker() -> None:
    plugin = Plugin()
    async with pool_and_session(plugin, credit=100) as (p, con):
        hold = ask(con, HOLD)
        await eventually_async(lambda: plugin.begun)
        asked = [ask(con, NOTE, i, priority=PRIO_LOW) for i in range(10_000)]
        await eventually_async(lambda: p.items == 10_001)
        async with of_type(p) as other:
            await ask(other, NOTE, "other", priority=PRIO_HIGHEST)
        now = ask(con, NOTE, "now", priority=PRIO_HIGHEST)
        await eventually_async(lambda: p.lane(con).session.in_seq == 10_002)
        window = len(p.lane(con).inflight)
        plugin.gate.set()
        await asyncio.gather(hold, now, *asked)
        assert len(plugin.done) == 10_003
        assert plugin.done[0] == "other", "nothing of its own session was before it"
        assert window <= 100 + 4
        assert plugin.done.index("now") <= window + 1, "behind what was handed out before"


@on_uvloop
async def test_highest_messages_go_to_workers_that_are_full_for_others() -> None:
    plugin = Plugin()
    async with pool_and_session(plugin, credit=8) as (p, con):
        p.all_is_work()
        with p.frozen(0):
            asked = [ask(con, HOLD, i) for i in range(20)]
            await eventually_async(lambda: p.items >= 20)
        assert p.seat(0).room <= 8 // 4, "less is not worth a batch"
        async with of_type(p) as other:
            for _ in range(20):
                await ask(other, NOTE, "now", priority=PRIO_HIGHEST)
            assert plugin.done == ["now"] * 20
            late = ask(other, NOTE, "later")
            await eventually_async(lambda: p.lane(other).queued == 1)
            assert "later" not in plugin.done
            plugin.gate.set()
            await asyncio.gather(late, *asked)
        assert len(plugin.done) == 41


@on_uvloop
async def test_messages_of_urgent_peers_do_as_well() -> None:
    plugin = Plugin()
    urgent = replace(STATEFUL_SERVER, urgent=True)
    async with pool_and_session(plugin, credit=8, dispatch_bytes=8 * MIB, **serve(urgent)) as (
        p,
        con,
    ):
        asked = [ask(con, HOLD, i, data=bytes(20_000)) for i in range(500)]
        await eventually_async(lambda: p.session.paused)
        async with of_type(p, "mgr.1") as mgr:
            for i in range(20):
                await ask(mgr, NOTE, "now", data=bytes((300 * KIB) * (i % 2)))
            assert plugin.done == ["now"] * 20
            plugin.gate.set()
            await asyncio.gather(*asked)
