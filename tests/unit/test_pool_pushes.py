"""Pushes to any connection, from any worker: whether the session is there is an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mpmsgr import Connection, Message, Messenger
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handlers import every, handles
from mpmsgr.errors import OutboxFull
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.session.policy import STATEFUL_SERVER, Policies
from tests.support import eventually_async
from tests.unit.messenger_peers import client, connected, place
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool_and_session,
    refused,
    service,
    service_and_session,
    sessions,
    with_and_without_workers,
)
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import Pool

WHO, TELL, FAIL, STREAM, PLAIN, PUSH = range(0x9B01, 0x9B07)
LIMIT = 10_000


class Post:
    """A plugin that pushes to the connection whose id is the message's front.

    gate: what a handler waits for after its push.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.told: list[bool] = []

    async def _push(self, con: Connection, m: Message) -> bool:
        ok = await con.connection(int(m.front)).send(Message(PUSH, m.front, data=m.data))
        self.told.append(ok)
        await self.gate.wait()
        return ok

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(WHO)
        def who(con: Connection, m: Message) -> list[Any]:
            return [site.name, con.id]

        @handles(TELL)
        async def tell(con: Connection, m: Message) -> bool:
            return await self._push(con, m)

        @handles(FAIL)
        async def fail(con: Connection, m: Message) -> None:
            await self._push(con, m)
            raise ValueError("after all")

        @handles(STREAM, streaming=True)
        async def stream(con: Connection, m: Message) -> bool:
            return await self._push(con, m)

        @handles(PLAIN)
        def plain(con: Connection, m: Message) -> bool:
            return con.connection(int(m.front)).send_message(Message(PUSH, m.front))

        return [who, tell, fail, stream, plain]


async def apart(
    one: MessengerConnection, two: MessengerConnection, workers: int
) -> tuple[int, int]:
    """Their ids on the server; with workers, their messages are handled by different ones."""
    (here, id_one), (there, id_two) = await answer(one, WHO), await answer(two, WHO)
    assert (here != there) is bool(workers)
    return id_one, id_two


async def gone(server: Messenger) -> int:
    """The id of a session that was there, and is over."""
    async with client(drain_s=0.1) as messenger:
        con = await connected(messenger, place(server))
        _, id_ = await answer(con, WHO)
    await eventually_async(lambda: id_ not in server.endpoint.registry.sessions)
    return int(id_)


@with_and_without_workers
@on_uvloop
async def test_a_handler_learns_whether_it_is_there(workers: int) -> None:
    async with service(Post(), workers) as (server, _), sessions(server, 2) as (one, two):
        _, id_ = await apart(one, two, workers)
        pushes = two.messages(PUSH)
        for type_ in (TELL, STREAM):
            assert await answer(one, type_, id_, data=b"news") is True
            assert (await anext(pushes)).data == b"news"
        over = await gone(server)
        for type_ in (TELL, STREAM):
            assert await answer(one, type_, over) is False
            assert await answer(one, type_, 999_999) is False
        assert await answer(two, TELL, id_) is True, "the own one"


@with_and_without_workers
@on_uvloop
async def test_what_an_async_handler_sends_leaves_when_it_completes(workers: int) -> None:
    post = Post()
    async with service(post, workers) as (server, _), sessions(server, 2) as (one, two):
        _, id_ = await apart(one, two, workers)
        pushes = two.messages(PUSH)
        post.gate.clear()
        asked = ask(one, TELL, id_, data=b"held")
        await eventually_async(lambda: post.told)
        first = asyncio.ensure_future(anext(pushes))
        await answer(two, WHO)  # what had left would be there before this
        assert not first.done()
        post.gate.set()
        await asked
        assert (await first).data == b"held"


@with_and_without_workers
@on_uvloop
async def test_nothing_leaves_of_a_handler_that_fails(workers: int) -> None:
    post = Post()
    async with service(post, workers) as (server, _), sessions(server, 2) as (one, two):
        _, id_ = await apart(one, two, workers)
        pushes = two.messages(PUSH)
        code, _text = await refused(ask(one, FAIL, id_, data=b"never"))
        assert (code, post.told) == (2, [True])
        await answer(one, TELL, id_, data=b"the next one")
        assert (await anext(pushes)).data == b"the next one"


@with_and_without_workers
@on_uvloop
async def test_a_plain_handler_cannot_wait_for_it(workers: int) -> None:
    async with service(Post(), workers) as (server, _), sessions(server, 2) as (one, two):
        _, id_ = await apart(one, two, workers)
        pushes = two.messages(PUSH)
        assert await answer(one, PLAIN, id_) is True
        assert (await anext(pushes)).front == b"%d" % id_
        assert await answer(one, PLAIN, 999_999) is bool(workers)


# outside of handlers


@asynccontextmanager
async def outside(
    **options: Any,
) -> AsyncIterator[tuple[Pool, MessengerConnection, Callable[..., Awaitable[bool]]]]:
    """A pool, a client's session, and what pushes to it from the worker that does not have it."""
    async with pool_and_session(Post(), 2, **options) as (made, con):
        _, id_ = await answer(con, WHO)
        runtime = next(w.runtime for w in made.workers.values() if not w.cons)

        async def push(to: int = id_, data: bytes = b"") -> bool:
            return await runtime.connection(to).send(Message(PUSH, data=data))

        yield made, con, push


@on_uvloop
async def test_it_leaves_at_once() -> None:
    async with outside() as (made, con, push):
        pushes = con.messages(PUSH)
        assert await push(data=b"now")
        assert (await anext(pushes)).data == b"now"
        assert not await push(to=999_999)
        over = await gone(made.messenger)
        await eventually_async(lambda: all(over not in w.cons for w in made.workers.values()))
        assert not await push(to=over)
        results = [push(data=b"%d" % i) for i in range(50)] + [push(to=1)]
        assert await asyncio.gather(*results) == [True] * 50 + [False]
        assert [int((await anext(pushes)).data) for _ in range(50)] == list(range(50))


@pytest.mark.parametrize("outbox_full", ["block", "fail", "drop_oldest"])
@on_uvloop
async def test_a_full_outbox_is_told_too(outbox_full: str) -> None:
    policy = replace(STATEFUL_SERVER, outbox_bytes=LIMIT, outbox_full=outbox_full)
    async with outside(policies=Policies(policy)) as (made, con, push):
        transport: Any = con.session.pipe and con.session.pipe.handle
        transport.pause_reading()
        results = [await _result(push(data=bytes(1000))) for _ in range(20)]
        assert results[:9] == [True] * 9
        if outbox_full == "drop_oldest":
            assert results == [True] * 20
        else:
            assert {type(result) for result in results[9:]} == {OutboxFull}
            full = results[-1]
            assert isinstance(full, OutboxFull)
            assert (full.address, full.limit) == (made.session.peer_addr, LIMIT)
            assert 9000 < full.nbytes <= LIMIT
        transport.resume_reading()
        pushes = con.messages(PUSH)
        assert await anext(pushes)


async def _result(push: Awaitable[bool]) -> bool | OutboxFull:
    try:
        return await push
    except OutboxFull as full:
        return full


@on_uvloop
async def test_who_waits_when_the_link_ends_is_told() -> None:
    async with outside() as (made, _, push):
        asked = asyncio.ensure_future(push())
        await asyncio.sleep(0)
        for worker in list(made.workers):
            made.kill(worker)
        assert await asked is False
        assert await asyncio.wait_for(push(), 5) is False, "nor is anybody there later"
        await made.worker(0)
        await made.worker(1)


@on_uvloop
async def test_who_does_not_wait_any_more_leaves_nothing() -> None:
    async with outside() as (made, con, push):
        pushes = con.messages(PUSH)
        asked = asyncio.ensure_future(push(data=b"it went"))
        await asyncio.sleep(0)
        asked.cancel()
        assert (await anext(pushes)).data == b"it went"
        assert all(not w.runtime.pushes._waiting for w in made.workers.values())


@with_and_without_workers
@on_uvloop
async def test_from_a_regular_call(workers: int) -> None:
    told: list[bool] = []
    ids: list[int] = []

    def plugin(site: Site) -> Iterable[Any]:
        @every(0.02)
        async def push(service: Service) -> None:
            told.extend([await service.connection(id_).send(Message(PUSH)) for id_ in ids])
            ids.clear()

        return [*Post()(site), push]

    async with service_and_session(plugin, workers) as (_, con):
        pushes = con.messages(PUSH)
        _, id_ = await answer(con, WHO)
        ids.extend([999_999, id_])
        await anext(pushes)
    assert told == [False, True]


@with_and_without_workers
@on_uvloop
async def test_other_acts_on_any_connection(workers: int) -> None:
    def plugin(site: Site) -> Iterable[Any]:
        @handles(TELL)
        def tell(con: Connection, m: Message) -> None:
            other = con.connection(int(m.front))
            other.send_keepalive()
            other.mark_disposable()
            assert (other.failed, other.is_connected) == (False, True)
            con.connection(999_999).send_keepalive()
            con.connection(999_999).mark_disposable()
            con.connection(999_999).mark_down()

        return [*list(Post()(site))[:1], tell]

    async with service(plugin, workers) as (server, _), sessions(server, 2) as (one, two):
        _, id_ = await apart(one, two, workers)
        one.send_message(Message(TELL, b"%d" % id_))
        await eventually_async(lambda: two.last_keepalive, what="the keepalive")
        assert server.endpoint.registry.sessions[id_].lossy
