"""Requests of handlers: they leave at once, and their replies pass all lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from mpmsgr import (
    Connection,
    Dispatcher,
    ErrorCode,
    Message,
    Messenger,
    RemoteError,
    RequestTimeout,
    SessionReset,
)
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handlers import every, handles
from mpmsgr.dispatch.payload import unpack
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    refused,
    service,
    session,
    sessions,
    text,
    with_and_without_workers,
)
from tests.unit.pool_site import Plugin, Site
from tests.unit.pool_under_test import WAIT_S

DO, ASK, KEYED, ID, PUSH = range(0x9001, 0x9006)
Task = Callable[[Connection, Message], Any]


class Client(Dispatcher):
    """A client that is asked: answers with what it was asked and how manieth it was.

    asked: fronts, held: answer nothing until `let_go`.
    """

    message_types = frozenset({ASK})

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tids: list[int] = []
        self.held = False
        self._held: list[tuple[Connection, Message]] = []

    def dispatch(self, con: Connection, m: Message) -> None:
        self.asked.append(text(m))
        self.tids.append(m.tid)
        if text(m) == "fail":
            raise RemoteError(1234, "I will not")
        if self.held:
            self._held.append((con, m))
        else:
            self._answer(con, m, len(self.asked))

    def _answer(self, con: Connection, m: Message, number: int) -> None:
        con.send_message(m.reply(b"%s %d" % (bytes(m.front), number), data=m.data))

    def let_go(self) -> None:
        for number, (con, m) in enumerate(self._held, 1):
            self._answer(con, m, number)
        self.held = False


def doing(task: Task) -> Plugin:
    """A plugin: DO does *task*, KEYED too, in the lane of a key; ID tells the connection's id."""

    def plugin(site: Site) -> Iterable[Any]:
        @handles(DO)
        def do(con: Connection, m: Message) -> Any:
            return task(con, m)

        @handles(KEYED, key=slice(1))
        def keyed(con: Connection, m: Message) -> Any:
            return task(con, m)

        @handles(ID)
        def identity(con: Connection, m: Message) -> Any:
            return [site.name, con.id]

        return [do, keyed, identity]

    return plugin


async def pass_on(con: Connection, m: Message) -> str:
    """Ask the client what it asked."""
    reply = await con.request(Message(ASK, m.front, data=m.data), timeout=WAIT_S)
    return text(reply)


def listen(messenger: Messenger) -> Client:
    """What *messenger* is asked."""
    asked = Client()
    messenger.add_dispatcher_tail(asked)
    return asked


# replies


@with_and_without_workers
@on_uvloop
async def test_a_handler_asks_who_asked_it(workers: int) -> None:
    async with service(doing(pass_on), workers) as (server, messenger):
        listen(messenger)
        con = await session(server, messenger)
        replies = [await answer(con, DO, f"question {n}") for n in range(3)]
        assert replies == [f"question {n} {n + 1}" for n in range(3)]


@with_and_without_workers
@on_uvloop
async def test_many_in_all_lanes(workers: int) -> None:
    async with service(doing(pass_on), workers) as (server, _), sessions(server, 3) as cons:
        for con in cons:
            listen(con.messenger)
        asked = [
            ask(con, type_, f"{n % 5} {n}")
            for n in range(30)
            for con in cons
            for type_ in (DO, KEYED)
        ]
        replies = [unpack(one) for one in await asyncio.gather(*asked)]
        numbers = [f"{n % 5} {n}" for n in range(30) for _ in cons for _ in (DO, KEYED)]
        assert [" ".join(reply.split()[:2]) for reply in replies] == numbers


@with_and_without_workers
@on_uvloop
async def test_a_request_leaves_at_once_and_what_else_is_sent_does_not(workers: int) -> None:
    async def task(con: Connection, m: Message) -> str:
        con.send_message(Message(PUSH, b"held"))
        return await pass_on(con, m)

    async with service(doing(task), workers) as (server, messenger):
        asked = listen(messenger)
        asked.held = True
        con = await session(server, messenger)
        pushes = con.messages(PUSH)
        request = ask(con, DO, "x")
        await eventually_async(lambda: asked.asked)
        assert con.session.in_seq == 1, "the question alone"
        asked.let_go()
        assert unpack(await request) == "x 1"
        assert text(await anext(pushes)) == "held"


@pytest.mark.parametrize("size", [30_000, 600_000])
@on_uvloop
async def test_long_questions_and_answers(size: int) -> None:
    async def task(con: Connection, m: Message) -> Message:
        reply = await con.request(Message(ASK, m.front, data=m.data), timeout=WAIT_S)
        return m.reply(reply.front, data=reply.data)

    data = bytes(range(250)) * (size // 250)
    async with pool(doing(task), workers=2) as (p, messenger):
        listen(messenger)
        con = await session(p, messenger)
        for n in range(4):
            reply = await ask(con, DO, "x", data=data)
            assert (text(reply), bytes(reply.data)) == (f"x {n + 1}", data)


@with_and_without_workers
@on_uvloop
async def test_an_error_reply_is_an_exception_in_the_handler(workers: int) -> None:
    async def task(con: Connection, m: Message) -> Any:
        if text(m) == "fail":
            return await pass_on(con, m)
        try:
            await con.request(Message(ASK, b"fail"), timeout=WAIT_S)
        except RemoteError as err:
            return [err.code, err.text]

    async with service(doing(task), workers) as (server, messenger):
        listen(messenger)
        con = await session(server, messenger)
        assert await answer(con, DO, "catch") == [1234, "I will not"]
        assert await refused(ask(con, DO, "fail")) == (1234, "I will not"), "it is passed on"


# that do not come


@with_and_without_workers
@on_uvloop
async def test_a_plain_handler_cannot_wait(workers: int) -> None:
    def task(con: Connection, m: Message) -> Any:
        return con.request(Message(ASK))

    async with service(doing(task), workers) as (server, messenger):
        asked = listen(messenger)
        con = await session(server, messenger)
        code, why = await refused(ask(con, DO))
        assert code == ErrorCode.HANDLER_FAILED
        assert why == (
            "handler failed: HandlerError: request needs an async handler: a plain one cannot wait"
        )
        assert asked.asked == []


@with_and_without_workers
@on_uvloop
async def test_an_answer_that_comes_too_late_is_dropped(workers: int) -> None:
    async def task(con: Connection, m: Message) -> str:
        try:
            return text(await con.request(Message(ASK, m.front), timeout=0.02))
        except RequestTimeout:
            return await pass_on(con, m)

    async with service(doing(task), workers) as (server, messenger):
        asked = listen(messenger)
        asked.held = True
        con = await session(server, messenger)
        request = ask(con, DO, "x")
        await eventually_async(lambda: len(asked.asked) == 2)
        asked.let_go()
        assert unpack(await request) == "x 2"
        assert await answer(con, DO, "y"), "the lane goes on"


@on_uvloop
async def test_the_answer_to_a_dead_worker_s_request_is_dropped() -> None:
    """It comes when the handler runs again, and asks again."""
    seen: list[str] = []

    class Strays(Dispatcher):
        message_types = frozenset({ASK})

        def dispatch(self, con: Connection, m: Message) -> None:
            seen.append(text(m))

    def plugin(site: Site) -> list[Any]:
        return [*doing(pass_on)(site), Strays()]

    async with pool(plugin) as (p, messenger):
        asked = listen(messenger)
        asked.held = True
        con = await session(p, messenger)
        request = ask(con, DO, "x")
        await eventually_async(lambda: len(asked.asked) == 1)
        p.kill(0)
        await p.worker(0)
        await eventually_async(lambda: len(asked.asked) == 2)
        asked.let_go()
        assert unpack(await request) == "x 2"
        assert len(set(asked.tids)) == 2
        assert seen == []
        assert await answer(con, DO, "y")


@with_and_without_workers
@on_uvloop
async def test_a_session_that_ends_ends_its_requests(workers: int) -> None:
    ends: list[BaseException] = []

    async def task(con: Connection, m: Message) -> None:
        try:
            await con.request(Message(ASK), timeout=WAIT_S)
        except SessionReset as err:
            ends.append(err)

    async with service(doing(task), workers) as (server, messenger):
        asked = listen(messenger)
        asked.held = True
        con = await session(server, messenger)
        for type_ in (DO, KEYED):
            con.send_message(Message(type_, b"x"))
        await eventually_async(lambda: len(asked.asked) == 2)
        await messenger.shutdown()
        await eventually_async(lambda: len(ends) == 2)


@on_uvloop
async def test_a_session_whose_reply_nobody_waits_for_any_more_is_not_awaited() -> None:
    given_up = asyncio.Event()
    late: list[int] = []

    async def task(con: Connection, m: Message) -> str:
        request = asyncio.ensure_future(con.request(Message(ASK), timeout=WAIT_S))
        await given_up.wait()
        request.cancel()
        await asyncio.wait([request])
        return "went on"

    class Strays(Dispatcher):
        message_types = frozenset({ASK})

        def dispatch(self, con: Connection, m: Message) -> None:
            late.append(m.tid)

    def plugin(site: Site) -> list[Any]:
        return [*doing(task)(site), Strays()]

    async with pool(plugin) as (p, messenger):
        asked = listen(messenger)
        asked.held = True
        con = await session(p, messenger)
        request = ask(con, DO)
        await eventually_async(lambda: asked.asked)
        assert p.lane().is_awaited
        given_up.set()
        assert unpack(await request) == "went on"
        await eventually_async(lambda: not p.lane().is_awaited)
        asked.let_go()
        assert await answer(con, ID)
        assert late == [], "the reply that comes in the end is no message of its own"


@on_uvloop
async def test_who_was_asked_is_forgotten_with_its_session() -> None:
    async with pool(doing(pass_on)) as (p, _):
        for n in range(3):
            async with sessions(p, 1) as (con,):
                listen(con.messenger)
                assert await answer(con, DO, n) == f"{n} 1"
                assert p.asked == {p.lane().id}
            await eventually_async(lambda: not p.lanes)
            assert not p.asked


# of others


@with_and_without_workers
@on_uvloop
async def test_a_handler_asks_somebody_else(workers: int) -> None:
    async def task(con: Connection, m: Message) -> str:
        other, _, question = text(m).partition(" ")
        asked = con.connection(int(other))
        return text(await asked.request(Message(ASK, question.encode()), timeout=WAIT_S))

    async with service(doing(task), workers) as (server, _), sessions(server, 4) as cons:
        for con in cons:
            listen(con.messenger)
        places = [await answer(con, ID) for con in cons]
        assert len({name for name, _ in places}) == (workers or 1)
        for con in cons:
            for _, id_ in places:
                assert (await answer(con, DO, f"{id_} question")).startswith("question ")


@with_and_without_workers
@on_uvloop
async def test_a_session_that_is_gone_answers_nothing(workers: int) -> None:
    async def task(con: Connection, m: Message) -> str:
        try:
            asked = con.connection(int(m.front))
            await asked.request(Message(ASK), timeout=WAIT_S)
        except (SessionReset, KeyError):
            return "gone"
        return "here"

    async with service(doing(task), workers) as (server, _), sessions(server, 2) as (con, other):
        _, id_ = await answer(other, ID)
        listen(other.messenger)
        assert await answer(con, DO, id_) == "here"
        await other.messenger.shutdown()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await answer(con, DO, id_) == "gone"
        assert loop.time() - began < WAIT_S / 2, "nobody has to wait for it"


@with_and_without_workers
@on_uvloop
async def test_a_session_that_ends_while_somebody_else_s_handler_asks(workers: int) -> None:
    async def task(con: Connection, m: Message) -> str:
        try:
            await con.connection(int(m.front)).request(Message(ASK), timeout=WAIT_S)
        except SessionReset:
            return "gone"
        return "here"

    async with service(doing(task), workers) as (server, _), sessions(server, 2) as (con, other):
        _, id_ = await answer(other, ID)
        asked = listen(other.messenger)
        asked.held = True
        request = ask(con, DO, id_)
        await eventually_async(lambda: asked.asked)
        await other.messenger.shutdown()
        assert unpack(await asyncio.wait_for(request, WAIT_S / 2)) == "gone"


@on_uvloop
async def test_an_answer_finds_its_handler_after_the_session_s_lane_has_moved() -> None:
    async with pool(doing(pass_on), workers=2) as (p, messenger):
        asked = listen(messenger)
        con = await session(p, messenger)
        await answer(con, ID)
        asked.held = True
        requests = [ask(con, KEYED, f"{n} key") for n in range(8)]
        await eventually_async(lambda: len(asked.asked) == 8)
        slot = int((await answer(con, ID))[0][0])
        p.front.retire(slot, 1)
        assert (await answer(con, ID))[0] == f"{1 - slot}.1", "it has moved"
        asked.let_go()
        replies = [unpack(one) for one in await asyncio.gather(*requests)]
        assert [reply[:5] for reply in replies] == [f"{n} key" for n in range(8)]


@on_uvloop
async def test_a_regular_call_asks() -> None:
    answers: list[str] = []
    ids: list[int] = []

    def plugin(site: Site) -> list[Any]:
        @every(0.01)
        async def look(service: Service) -> None:
            for id_ in ids:
                con = service.connection(id_)
                answers.append(text(await con.request(Message(ASK, b"alive?"), timeout=WAIT_S)))

        return [*doing(pass_on)(site), look]

    async with pool(plugin, workers=2) as (p, messenger):
        listen(messenger)
        con = await session(p, messenger)
        ids.append((await answer(con, ID))[1])
        await eventually_async(lambda: len(answers) >= 3)
        ids.clear()
        assert answers[:2] == ["alive? 1", "alive? 2"]
