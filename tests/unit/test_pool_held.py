"""What a handler sends is held until it completes, dropped if it fails; streaming is at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from mpmsgr import Connection, ErrorCode, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import reply_to
from mpmsgr.messenger.stream import MessageStream
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool_and_session,
    refused,
    service,
    service_and_session,
    sessions,
    text,
    with_and_without_workers,
)
from tests.unit.pool_site import Plugin, Site

DO, STREAM, MARK, PUSH = 0x9001, 0x9002, 0x9003, 0x9004
Task = Callable[[Connection, Message], Any]


def doing(task: Task) -> Plugin:
    """A plugin: DO and STREAM do *task*, the latter streaming; MARK pushes its front."""

    def plugin(site: Site) -> Iterable[Any]:
        @handles(DO)
        def do(con: Connection, m: Message) -> Any:
            return task(con, m)

        @handles(STREAM, streaming=True)
        def stream(con: Connection, m: Message) -> Any:
            return task(con, m)

        @handles(MARK)
        def mark(con: Connection, m: Message) -> None:
            con.send_message(Message(PUSH, m.front))

        return [do, stream, mark]

    return plugin


def push(con: Connection, what: str, size: int = 0) -> None:
    con.send_message(Message(PUSH, what.encode(), data=bytes(size)))


async def take(pushes: MessageStream, count: int) -> list[str]:
    return [text(await anext(pushes)) for _ in range(count)]


class Gate:
    """Where handlers wait. begun: fronts of those that did."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._open = asyncio.Event()

    async def wait(self, m: Message) -> None:
        self.begun.append(text(m))
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


# until it completes


@with_and_without_workers
@on_uvloop
async def test_nothing_leaves_before_the_handler_completes(workers: int) -> None:
    gate = Gate()

    async def task(con: Connection, m: Message) -> None:
        push(con, "one")
        con.send_message(reply_to(m, "here"))
        await gate.wait(m)
        push(con, "two")

    async with service(doing(task), workers) as (server, _), sessions(server, 2) as cons:
        con, other = cons
        pushes = con.messages(PUSH)
        asked = ask(con, DO, "x")
        await eventually_async(lambda: gate.begun)
        others = other.messages(PUSH)
        other.send_message(Message(MARK, b"meanwhile"))
        assert await take(others, 1) == ["meanwhile"]
        assert con.session.in_seq == 0
        gate.open()
        await asked
        assert await take(pushes, 2) == ["one", "two"]


@with_and_without_workers
@on_uvloop
async def test_it_leaves_in_the_order_it_was_sent(workers: int) -> None:
    def task(con: Connection, m: Message) -> None:
        if not m.front:
            con.group("all").join()
        con.send_message(Message(PUSH, b"1 reply", tid=m.tid))
        con.group("all").send(Message(PUSH, b"2 group"))
        push(con, "3 push")
        con.send_message(Message(PUSH, b"4 reply", tid=m.tid))
        con.group("all").send(Message(PUSH, b"5 group"))

    async def task_later(con: Connection, m: Message) -> None:
        await asyncio.sleep(0)
        task(con, m)

    for one in (task, task_later):
        async with service_and_session(doing(one), workers) as (_, con):
            pushes = con.messages(PUSH)
            for front in (b"", b"again"):
                con.send_message(Message(DO, front, tid=5))
                fronts = await take(pushes, 5)
                assert fronts == ["1 reply", "2 group", "3 push", "4 reply", "5 group"]


@with_and_without_workers
@on_uvloop
async def test_what_a_task_of_the_handler_sends_later_leaves_at_once(workers: int) -> None:
    gate = Gate()
    tasks: list[asyncio.Task[None]] = []

    async def task(con: Connection, m: Message) -> str:
        async def background() -> None:
            await gate.wait(m)
            push(con, "late")

        tasks.append(asyncio.ensure_future(background()))
        return "done"

    async with service_and_session(doing(task), workers) as (_, con):
        pushes = con.messages(PUSH)
        assert await answer(con, DO) == "done"
        gate.open()
        assert await take(pushes, 1) == ["late"]
        await asyncio.gather(*tasks)


# if it does not


def many_sends(con: Connection, m: Message) -> None:
    """Everything there is to send."""
    push(con, "dropped")
    con.send_message(reply_to(m, "dropped"))
    con.group("all").join()
    con.group("all").send(Message(PUSH, b"dropped"))
    push(con.connection(con.id), "dropped")
    push(con, "dropped", size=200_000)
    con.send_message(m.reply(data=m.data))
    view = con.allocate(200_000)
    con.send_message(m.reply(data=view))


@with_and_without_workers
@pytest.mark.parametrize("later", [False, True])
@on_uvloop
async def test_of_a_handler_that_fails_only_the_error_leaves(workers: int, later: bool) -> None:
    def task(con: Connection, m: Message) -> None:
        many_sends(con, m)
        raise ValueError("at the end")

    async def task_later(con: Connection, m: Message) -> None:
        many_sends(con, m)
        await asyncio.sleep(0)
        raise ValueError("at the end")

    plugin = doing(task_later if later else task)
    async with service_and_session(plugin, workers) as (_, con):
        pushes = con.messages(PUSH)
        for data in (b"", bytes(600_000)):
            code, why = await refused(ask(con, DO, data=data))
            assert (code, why) == (
                ErrorCode.HANDLER_FAILED,
                "handler failed: ValueError: at the end",
            )
        con.send_message(Message(MARK, b"marked"))
        assert await take(pushes, 1) == ["marked"]
        assert con.session.in_seq == 3, "two errors and the mark"


@on_uvloop
async def test_a_reply_that_is_taken_back_leaves_those_of_others_alone() -> None:
    """They wait in one batch: some of the handlers behind each other fail."""

    def task(con: Connection, m: Message) -> None:
        con.send_message(reply_to(m, text(m)))
        if int(m.front) % 3 == 1:
            raise ValueError(text(m))

    async with pool_and_session(doing(task)) as (_, con):
        asked = [ask(con, DO, i) for i in range(60)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        failed = [i for i, result in enumerate(results) if isinstance(result, Exception)]
        assert failed == list(range(1, 60, 3))
        assert con.session.in_seq == 60


@pytest.mark.parametrize("size", [0, 600_000])
@on_uvloop
async def test_of_a_handler_whose_worker_dies_nothing_leaves(size: int) -> None:
    gate = Gate()

    async def task(con: Connection, m: Message) -> str:
        push(con, f"attempt {m.attempt}", size)
        con.group("all").join()
        con.group("all").send(Message(PUSH, b"group %d" % m.attempt))
        await gate.wait(m)
        return f"attempt {m.attempt}"

    async with pool_and_session(doing(task)) as (p, con):
        pushes = con.messages(PUSH)
        asked = ask(con, DO, "x")
        await eventually_async(lambda: gate.begun)
        p.kill(0)
        gate.open()
        await p.worker(0)
        await asked
        assert await take(pushes, 2) == ["attempt 2", "group 2"]
        assert con.session.in_seq == 3
        assert p.groups == {"all": 1}


# streaming


@with_and_without_workers
@on_uvloop
async def test_a_streaming_handler_sends_at_once(workers: int) -> None:
    gate = Gate()

    async def task(con: Connection, m: Message) -> str:
        push(con, "one")
        push(con, "large", size=300_000)
        await gate.wait(m)
        push(con, "two")
        return "end"

    async with service_and_session(doing(task), workers) as (_, con):
        pushes = con.messages(PUSH)
        asked = ask(con, STREAM)
        assert await take(pushes, 2) == ["one", "large"]
        assert not asked.done()
        gate.open()
        await asked
        assert await take(pushes, 1) == ["two"]


@with_and_without_workers
@on_uvloop
async def test_what_a_streaming_handler_sent_before_it_failed_has_left(workers: int) -> None:
    def task(con: Connection, m: Message) -> None:
        push(con, "sent")
        raise ValueError("at the end")

    async with service_and_session(doing(task), workers) as (_, con):
        pushes = con.messages(PUSH)
        code, _ = await refused(ask(con, STREAM))
        assert code == ErrorCode.HANDLER_FAILED
        assert await take(pushes, 1) == ["sent"]


@on_uvloop
async def test_a_plain_streaming_handler_does_not_wait_for_its_batch() -> None:
    """What it sent is on its way while it still runs."""
    seen: list[int] = []

    def task(con: Connection, m: Message) -> None:
        push(con, "sent")
        seen.append(p.front._link is not None)
        deadline = time.monotonic() + 10
        while not p.session.outbox.queued and time.monotonic() < deadline:
            p.front._link.drain()  # what the front's process does meanwhile
        seen.append(p.session.outbox.queued)

    async with pool_and_session(doing(task)) as (p, con):
        pushes = con.messages(PUSH)
        con.send_message(Message(STREAM))
        assert await take(pushes, 1) == ["sent"]
        assert seen == [True, 1]


# the cap


@on_uvloop
async def test_a_handler_may_hold_only_so_much() -> None:
    def task(con: Connection, m: Message) -> str:
        for _ in range(int(m.front)):
            push(con, "x", size=1000)
        return "end"

    async with pool_and_session(doing(task), worker={"held_limit": 10_000}) as (_, con):
        assert await answer(con, DO, 9) == "end"
        code, why = await refused(ask(con, DO, 10))
        assert code == ErrorCode.HANDLER_FAILED
        assert "HandlerError" in why
        assert "at most 10000 (held_bytes); @handles(streaming=True) sends at once" in why
        assert await answer(con, STREAM, 50) == "end"


@on_uvloop
async def test_a_reply_above_the_cap() -> None:
    def task(con: Connection, m: Message) -> Message:
        return m.reply(data=bytes(int(m.front)))

    async with pool_and_session(doing(task), worker={"held_limit": 10_000}) as (_, con):
        for size in (20_000, 200_000):
            _, why = await refused(ask(con, DO, size))
            assert "HandlerError: a message of" in why
        assert len((await ask(con, DO, 9_000)).data) == 9_000


@on_uvloop
async def test_memory_above_the_cap() -> None:
    def task(con: Connection, m: Message) -> Message:
        return m.reply(data=con.allocate(300_000))

    async with pool_and_session(doing(task), worker={"held_limit": 200_000}) as (_, con):
        _, why = await refused(ask(con, DO))
        assert "HandlerError" in why
        assert "streaming=True" in why
        assert len((await ask(con, STREAM)).data) == 300_000


# the end of a session


@with_and_without_workers
@pytest.mark.parametrize("later", [False, True])
@on_uvloop
async def test_a_handler_that_ends_the_session(workers: int, later: bool) -> None:
    """That is done when it completes, and not if it fails."""

    def task(con: Connection, m: Message) -> None:
        con.mark_down()
        con.send_message(reply_to(m, "dropped"))
        if text(m) == "fail":
            raise ValueError("at the end")

    async def task_later(con: Connection, m: Message) -> None:
        await asyncio.sleep(0)
        task(con, m)

    async with service_and_session(doing(task_later if later else task), workers) as (_, con):
        code, _ = await refused(ask(con, DO, "fail"))
        assert code == ErrorCode.HANDLER_FAILED
        assert con.last_reset is None
        con.send_message(Message(DO))
        await eventually_async(lambda: con.last_reset)
        pushes = con.messages(PUSH)
        con.send_message(Message(MARK, b"in a new session"))
        assert await take(pushes, 1) == ["in a new session"]
