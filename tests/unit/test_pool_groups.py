"""Groups: one push reaches every member, whichever worker it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from mpmsgr import Connection, Message
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handlers import every, handles
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.stream import MessageStream
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.session.policy import STATEFUL_SERVER, Policies
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    service,
    service_and_session,
    sessions,
    text,
    with_and_without_workers,
)
from tests.unit.pool_site import Site

JOIN, LEAVE, SAY, PUSH = range(0x9001, 0x9005)


def plugin(site: Site) -> Iterable[Any]:
    """Rooms: the front is the name of the room, and what is said in it behind a colon."""

    @handles(JOIN)
    def join(con: Connection, m: Message) -> str:
        con.group(text(m)).join()
        return site.name

    @handles(LEAVE)
    def leave(con: Connection, m: Message) -> str:
        con.group(text(m)).leave()
        return site.name

    @handles(SAY)
    def say(con: Connection, m: Message) -> str:
        room, _, words = text(m).partition(":")
        con.group(room).send(Message(PUSH, words.encode(), data=m.data))
        return site.name

    return [join, leave, say]


async def heard(pushes: MessageStream, count: int) -> list[str]:
    return [text(await anext(pushes)) for _ in range(count)]


# members


@with_and_without_workers
@on_uvloop
async def test_a_push_reaches_every_member(workers: int) -> None:
    async with service(plugin, workers) as (server, _), sessions(server, 4) as cons:
        streams = [con.messages(PUSH) for con in cons]
        for con in cons[:3]:
            await answer(con, JOIN, "a")
        await answer(cons[3], JOIN, "b")
        await answer(cons[3], SAY, "a:hello, from outside")
        await answer(cons[0], SAY, "b:hello, b")
        await answer(cons[0], SAY, "nobody:is here")
        for stream in streams[:3]:
            assert await heard(stream, 1) == ["hello, from outside"]
        assert await heard(streams[3], 1) == ["hello, b"]


@with_and_without_workers
@on_uvloop
async def test_who_leaves_hears_no_more(workers: int) -> None:
    async with service(plugin, workers) as (server, _), sessions(server, 2) as (con, other):
        stream, others = con.messages(PUSH), other.messages(PUSH)
        for one in (con, con, other):
            await answer(one, JOIN, "a")
        await answer(con, SAY, "a:1")
        await answer(con, LEAVE, "a")
        await answer(con, LEAVE, "never been there")
        await answer(con, SAY, "a:2")
        await answer(con, JOIN, "a")
        await answer(con, SAY, "a:3")
        assert await heard(stream, 2) == ["1", "3"], "and once, who joined twice"
        assert await heard(others, 3) == ["1", "2", "3"]


@with_and_without_workers
@on_uvloop
async def test_membership_survives_a_socket(workers: int) -> None:
    async with service(plugin, workers) as (server, _), sessions(server, 2) as (con, other):
        stream = con.messages(PUSH)
        await answer(con, JOIN, "a")
        assert con.session.pipe is not None
        assert isinstance(con.session.pipe.handle, PipeTransport)
        con.session.pipe.handle.abort()
        await answer(other, SAY, "a:1")
        assert await heard(stream, 1) == ["1"]


@on_uvloop
async def test_membership_ends_with_the_session_and_a_group_with_its_last_member() -> None:
    async with pool(plugin) as (p, _), sessions(p, 3) as cons:
        for con in cons:
            await answer(con, JOIN, "a")
        await answer(cons[0], JOIN, "b")
        assert p.groups == {"a": 3, "b": 1}
        await answer(cons[0], LEAVE, "b")
        assert p.groups == {"a": 3}
        await cons[0].messenger.shutdown()
        await eventually_async(lambda: p.groups == {"a": 2})
        for con in cons[1:]:
            await con.messenger.shutdown()
        await eventually_async(lambda: p.groups == {})


@with_and_without_workers
@on_uvloop
async def test_only_a_connection_can_join(workers: int) -> None:
    errors: list[str] = []

    def regular(site: Site) -> list[Any]:
        @every(0.01)
        def try_to(service: Service) -> None:
            for act in (service.group("a").join, service.group("a").leave):
                with pytest.raises(ValueError, match="connection") as raised:
                    act()
                errors.append(str(raised.value))

        return [try_to, *plugin(site)]

    async with service(regular, workers):
        await eventually_async(lambda: len(errors) >= 2)


# three workers


@on_uvloop
async def test_over_three_workers_and_a_death() -> None:
    async with pool(plugin, workers=3, respawn=True) as (p, _), sessions(p, 9) as cons:
        streams = [con.messages(PUSH) for con in cons]
        homes = [await answer(con, JOIN, "all") for con in cons]
        assert {name[0] for name in homes} == {"0", "1", "2"}
        said: list[str] = []

        async def say(con: MessengerConnection, words: str) -> None:
            said.append(words)
            await answer(con, SAY, f"all:{words}")

        for n, con in enumerate(cons):
            await say(con, f"{n} before")
        p.kill(1)
        for n, con in enumerate(cons):
            await say(con, f"{n} after")
        for stream in streams:
            assert await heard(stream, len(said)) == said
        assert p.groups == {"all": 9}


@on_uvloop
async def test_a_push_is_encoded_once() -> None:
    async with pool(plugin, workers=2) as (p, _), sessions(p, 4) as cons:
        for con in cons:
            await answer(con, JOIN, "a")
            assert con.session.pipe is not None
            assert isinstance(con.session.pipe.handle, PipeTransport)
            con.session.pipe.handle.pause_reading()  # so that nothing is acknowledged
        outboxes = [lane.session.outbox for lane in p.session_lanes()]
        cons[0].send_message(Message(SAY, b"a:x", data=bytes(5000)))
        await eventually_async(lambda: all(box.nbytes > 5000 for box in outboxes))
        parcels = [next(parcel for parcel in box.sent if parcel.size > 5000) for box in outboxes]
        assert len({id(parcel) for parcel in parcels}) == 4
        assert len({id(parcel.body[0]) for parcel in parcels}) == 1
        for con in cons:
            assert con.session.pipe is not None
            con.session.pipe.handle.resume_reading()  # type: ignore[attr-defined]


@pytest.mark.parametrize("echo", [True, False])
@on_uvloop
async def test_a_large_push_stays_until_everybody_has_it(echo: bool) -> None:
    def large(site: Site) -> list[Any]:
        @handles(SAY)
        def say(con: Connection, m: Message) -> None:
            data = m.data if echo else bytes(reversed(m.data))
            con.group("a").send(Message(PUSH, m.front, data=data))

        return [say, *list(plugin(site))[:1]]

    data = bytes(range(256)) * 2000
    async with pool(large, workers=2) as (p, _), sessions(p, 3) as cons:
        streams = [con.messages(PUSH) for con in cons]
        for con in cons:
            await answer(con, JOIN, "a")
        for n in range(10):
            cons[n % 3].send_message(Message(SAY, b"%d" % n, data=data))
            for stream in streams:
                m = await anext(stream)
                assert text(m) == str(n)
                assert bytes(m.data) == (data if echo else data[::-1])


# who cannot keep up


@with_and_without_workers
@on_uvloop
async def test_a_member_whose_outbox_is_full_is_passed_over(workers: int) -> None:
    policies = Policies(STATEFUL_SERVER).having(outbox_bytes=20_000)
    async with (
        service(plugin, workers, policies=policies) as (server, _),
        sessions(server, 2) as (con, slow),
    ):
        stream, others = con.messages(PUSH), slow.messages(PUSH)
        for one in (con, slow):
            await answer(one, JOIN, "a")
        assert slow.session.pipe is not None
        handle: Any = slow.session.pipe.handle
        handle.pause_reading()
        for n in range(40):
            await answer(con, SAY, f"a:{n}", data=bytes(1000))
        assert await heard(stream, 40) == [str(n) for n in range(40)]
        dropped = server.endpoint.counters.pushes_dropped
        assert 20 <= dropped < 40
        handle.resume_reading()
        assert await heard(others, 40 - dropped) == [str(n) for n in range(40 - dropped)]


@with_and_without_workers
@on_uvloop
async def test_the_newest_are_kept_where_the_policy_says_so(workers: int) -> None:
    changes: dict[str, Any] = {"outbox_bytes": 20_000, "outbox_full": "drop_oldest"}
    policies = Policies(STATEFUL_SERVER).having(**changes)

    def burst(site: Site) -> Iterable[Any]:
        @handles(SAY)
        def say(con: Connection, m: Message) -> None:
            for n in range(40):
                con.group("a").send(Message(PUSH, b"%d" % n, data=bytes(1000)))

        return [say, *list(plugin(site))[:1]]

    async with service_and_session(burst, workers, policies=policies) as (server, con):
        pushes = con.messages(PUSH)
        await answer(con, JOIN, "a")
        con.send_message(Message(SAY))
        await eventually_async(lambda: server.endpoint.counters.pushes_dropped)
        dropped = server.endpoint.counters.pushes_dropped
        assert await heard(pushes, 40 - dropped) == [str(n) for n in range(dropped, 40)]


@on_uvloop
async def test_members_may_come_and_go_while_it_is_talked() -> None:
    async with pool(plugin, workers=3, respawn=True) as (p, _), sessions(p, 6) as cons:
        for con in cons:
            con.messages(PUSH)
            await answer(con, JOIN, "a")

        async def talk(con: MessengerConnection) -> None:
            for n in range(30):
                await ask(con, SAY, f"a:{n}", data=bytes(n * 1000))
                if n % 7 == 3:
                    await ask(con, LEAVE if n % 2 else JOIN, "a")

        talks = [asyncio.ensure_future(talk(con)) for con in cons]
        for slot in (0, 1, 2):
            await eventually_async(lambda: p.ready.keys() >= {0, 1, 2})
            p.kill(slot)
        await asyncio.gather(*talks)
        assert p.groups in ({"a": 6}, {})
