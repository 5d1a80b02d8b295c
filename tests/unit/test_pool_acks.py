"""Policy ack = "handled": a peer keeps its message until a handler has completed with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, ErrorCode, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import unpack
from mpmsgr.dispatch.verdicts import Poison, Reject, Retry
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.session.policy import STATEFUL_SERVER, Policies
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    pool_and_session,
    refused,
    session,
    text,
)
from tests.unit.pool_site import Site

WORK, LATER, FREE, ASK = range(0x9001, 0x9005)
HANDLED = Policies(STATEFUL_SERVER).having(ack="handled")


class Gates:
    """A plugin: LATER and FREE (without an order) wait for `open` with their front; WORK does what
    its front says.

    runs: site, front and attempt of everything that began.
    """

    def __init__(self) -> None:
        self.runs: list[tuple[str, str, int]] = []
        self._gates: dict[str, asyncio.Event] = {}

    def open(self, *fronts: object) -> None:
        for front in fronts:
            self._gate(str(front)).set()

    def _gate(self, front: str) -> asyncio.Event:
        return self._gates.setdefault(front, asyncio.Event())

    def begun(self) -> list[str]:
        return [front for _, front, _ in self.runs]

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(LATER)
        async def later(con: Connection, m: Message) -> str:
            self.runs.append((site.name, text(m), m.attempt))
            await self._gate(text(m)).wait()
            return text(m)

        @handles(FREE, ordering="none")
        async def free(con: Connection, m: Message) -> str:
            return await later(con, m)

        @handles(WORK)
        def work(con: Connection, m: Message) -> Any:
            self.runs.append((site.name, text(m), m.attempt))
            match text(m):
                case "fail":
                    raise ValueError("no")
                case "reject":
                    return Reject("no")
                case "poison":
                    return Poison("no")
                case "retry":
                    return Retry(0.01) if m.attempt < 3 else "done"
                case "die":
                    site.die()
            return "done"

        @handles(ASK)
        async def question(con: Connection, m: Message) -> str:
            return text(await con.request(Message(ASK, b"?"), timeout=5))

        return [later, free, work, question]


def kept(con: MessengerConnection) -> int:
    """Messages that the client keeps until they are acknowledged."""
    return con.session.outbox.queued + len(con.session.outbox.sent)


async def reconnect(con: MessengerConnection) -> None:
    """Over another socket."""
    pipe: Any = con.session.pipe
    pipe.handle.abort()
    await eventually_async(lambda: con.is_connected and con.session.pipe is not pipe)


@on_uvloop
async def test_a_message_is_kept_until_it_is_handled() -> None:
    plugin = Gates()
    async with pool_and_session(plugin, policies=HANDLED) as (_, con):
        asked = [ask(con, LATER, n) for n in range(3)]
        await eventually_async(lambda: plugin.begun() == ["0"])
        await reconnect(con)
        assert kept(con) == 3
        for n in range(3):
            plugin.open(n)
            assert unpack(await asked[n]) == str(n)
            await eventually_async(lambda: kept(con) == 2 - n)  # noqa: B023
        assert plugin.begun() == ["0", "1", "2"], "the repeats were dropped"


@on_uvloop
async def test_nothing_is_acknowledged_ahead_of_what_is_in_work() -> None:
    """They complete in any order."""
    plugin = Gates()
    async with pool_and_session(plugin, workers=2, policies=HANDLED) as (_, con):
        asked = [ask(con, FREE, n) for n in range(5)]
        await eventually_async(lambda: len(plugin.runs) == 5)
        plugin.open(1, 3)
        await asyncio.gather(asked[1], asked[3])
        await reconnect(con)
        assert kept(con) == 5, "the first is not handled"
        plugin.open(0)
        await asked[0]
        await eventually_async(lambda: kept(con) == 3)
        await reconnect(con)
        assert kept(con) == 3
        plugin.open(2, 4)
        await asyncio.gather(*asked)
        await eventually_async(lambda: kept(con) == 0)
        assert sorted(plugin.begun()) == ["0", "1", "2", "3", "4"]


@on_uvloop
async def test_who_connects_before_there_is_a_worker() -> None:
    """Its first event waits with its messages, and goes to another lane no more than that."""
    plugin = Gates()
    async with pool_and_session(plugin, workers=0, policies=HANDLED) as (p, con):
        asked = [ask(con, FREE, n) for n in range(2)]
        await eventually_async(lambda: p.items == 3)
        plugin.open(0, 1)
        await p.worker(0)
        assert [unpack(reply) for reply in await asyncio.gather(*asked)] == ["0", "1"]
        await eventually_async(lambda: kept(con) == 0)


@pytest.mark.parametrize("size", [0, 600_000])
@on_uvloop
async def test_a_dead_worker_acknowledges_nothing(size: int) -> None:
    plugin = Gates()
    async with pool_and_session(plugin, policies=HANDLED) as (p, con):
        asked = [ask(con, LATER, n, data=bytes(size)) for n in range(2)]
        await eventually_async(lambda: plugin.begun() == ["0"])
        p.kill(0)
        await reconnect(con)
        assert kept(con) == 2
        plugin.open(0, 1)
        await p.worker(0)
        await asyncio.gather(*asked)
        await eventually_async(lambda: kept(con) == 0)
        assert plugin.runs == [("0.1", "0", 1), ("0.2", "0", 2), ("0.2", "1", 1)]


@pytest.mark.parametrize(
    ("front", "code"),
    [
        ("fail", ErrorCode.HANDLER_FAILED),
        ("reject", ErrorCode.REJECTED),
        ("poison", ErrorCode.QUARANTINED),
        ("die", ErrorCode.QUARANTINED),
        ("retry", None),
    ],
)
@on_uvloop
async def test_however_it_ends_it_is_handled(front: str, code: ErrorCode | None) -> None:
    plugin = Gates()
    async with pool_and_session(plugin, policies=HANDLED, respawn=True, max_attempts=2) as (_, con):
        asked = ask(con, WORK, front)
        if code is None:
            assert unpack(await asked) == "done"
        else:
            assert (await refused(asked))[0] == code
        assert await answer(con, WORK, "next") == "done"
        await eventually_async(lambda: kept(con) == 0)


@on_uvloop
async def test_a_message_that_is_to_be_tried_again_is_in_work() -> None:
    plugin = Gates()
    async with pool_and_session(plugin, policies=HANDLED) as (_, con):
        asked = ask(con, WORK, "retry")
        await eventually_async(lambda: plugin.runs)
        assert kept(con) == 1
        assert unpack(await asked) == "done"
        await eventually_async(lambda: kept(con) == 0)


@on_uvloop
async def test_answers_to_handlers_are_handled_when_they_come() -> None:
    class Answers(Dispatcher):
        message_types = frozenset({ASK})

        def dispatch(self, con: Connection, m: Message) -> None:
            con.send_message(m.reply(b"!"))

    plugin = Gates()
    async with pool(plugin, policies=HANDLED) as (p, messenger):
        messenger.add_dispatcher_tail(Answers())
        con = await session(p, messenger)
        assert await answer(con, ASK) == "!"
        await eventually_async(lambda: kept(con) == 0)


@on_uvloop
async def test_a_session_that_starts_over_does_not_count_what_was_in_work() -> None:
    plugin = Gates()
    async with pool(plugin, policies=HANDLED) as (p, messenger):
        con = await session(p, messenger)
        con.send_message(Message(LATER, b"old"))
        await eventually_async(lambda: plugin.begun() == ["old"])
        con.mark_down()
        again = await session(p, messenger)
        asked = ask(again, LATER, "new")
        await eventually_async(lambda: len(again.session.outbox.sent) == 1)
        plugin.open("old")
        await eventually_async(lambda: "new" in plugin.begun())
        await asyncio.sleep(0.05)  # longer than acks are held back
        assert again.session.outbox.sent[0].seq == 1, "that was not this one"
        plugin.open("new")
        assert unpack(await asked) == "new"
        await eventually_async(lambda: kept(again) == 0)


@on_uvloop
async def test_by_default_a_message_is_acknowledged_when_it_came() -> None:
    plugin = Gates()
    async with pool_and_session(plugin) as (_, con):
        asked = ask(con, LATER, 0)
        await eventually_async(lambda: plugin.runs and kept(con) == 0)
        plugin.open(0)
        await asked
