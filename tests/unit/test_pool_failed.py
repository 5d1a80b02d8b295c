"""How many handlers failed: what they raise is neither an answer nor the peer's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, Message, RemoteError, message
from mpmsgr.dispatch.handlers import every, handles
from mpmsgr.dispatch.verdicts import Poison, Reject, Retry
from mpmsgr.pool.report import Report
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    ask,
    on_uvloop,
    pool,
    session,
    sessions,
    text,
)
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import SIZES, Pool, Sizes

WORK, LATER, TYPED, STATE, PUSH = range(0x9001, 0x9006)
RAISED: dict[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("a defect"),
    "remote": lambda: RemoteError(77, "an answer"),
    "reject": lambda: Reject("an answer"),
    "poison": lambda: Poison("for quarantine"),
    "retry": lambda: Retry(0.001),
}


def plugin(site: Site) -> Iterable[Any]:
    @message(TYPED)
    class Typed:
        n: int

    @handles(WORK)
    def work(con: Connection, m: Message) -> str:
        if m.attempt == 1 and text(m) in RAISED:
            raise RAISED[text(m)]()
        return "done"

    @handles(LATER)
    async def later(con: Connection, m: Message) -> str:
        await asyncio.sleep(0)
        return work(con, m)

    @handles(Typed)
    def typed(con: Connection, m: Message) -> None:
        """Payloads that are none do not get here."""

    @handles(STATE)
    def state(con: Connection, m: Message, state: dict[str, Any]) -> str:
        state["n"] = object()
        return "not kept"

    return [work, later, typed, state]


def rows(p: Pool) -> list[tuple[int, int, int]]:
    """slot, generation and failed of the rows of workers."""
    load: Any = Report(p.front, p.memory).providers["load"]({})
    return [(row["slot"], row["generation"], row["failed"]) for row in load]


@pytest.mark.parametrize(
    ("type_", "front", "failed"),
    [
        *((type_, front, front == "error") for type_ in (WORK, LATER) for front in [*RAISED, "ok"]),
        (TYPED, b"\xc1 is no msgpack", False),
        (STATE, "", True),
    ],
)
@on_uvloop
async def test_what_counts(type_: int, front: str | bytes, failed: bool) -> None:
    async with pool(plugin) as (p, messenger):
        con = await session(p, messenger)
        await asyncio.gather(ask(con, type_, front), return_exceptions=True)
        await answer(con, WORK)
        assert p.failed == int(failed)
        assert rows(p) == [(0, 1, int(failed))]


@pytest.mark.parametrize("sizes", [SIZES, None], ids=["memory", "no memory"])
@on_uvloop
async def test_they_stay_counted_when_their_worker_is_gone(sizes: Sizes | None) -> None:
    async with pool(plugin, sizes=sizes) as (p, _), sessions(p, 2) as cons:
        for _ in range(2):
            requests = [ask(con, type_, "error") for con in cons for type_ in (WORK, LATER)]
            await asyncio.gather(*requests, return_exceptions=True)
        assert (p.failed, rows(p)) == (8, [(0, 1, 8)])
        p.kill(0)
        await p.worker(0)
        await asyncio.gather(ask(cons[0], WORK, "error"), return_exceptions=True)
        assert (p.failed, rows(p)) == (9, [(0, 2, 1)])
        assert Report(p.front, p.memory).counters()["failed_total"] == 9


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@on_uvloop
async def test_events_and_functions_at_intervals_count_too(is_async: bool) -> None:
    def fail() -> Any:
        async def later() -> None:
            raise ValueError("a defect")

        if is_async:
            return later()
        raise ValueError("a defect")

    class Failing(Dispatcher):
        def handle_accept(self, con: Connection) -> Any:
            return fail()

    def both(site: Site) -> Iterable[Any]:
        @every(0.01)
        def now_and_then() -> Any:
            return fail()

        return [*plugin(site), now_and_then, Failing()]

    async with pool(both) as (p, messenger):
        await eventually_async(lambda: p.failed >= 2)
        ticks = p.failed
        con = await session(p, messenger)
        await answer(con, WORK)
        await eventually_async(lambda: p.failed > ticks)


@on_uvloop
async def test_of_an_event_alone() -> None:
    class Failing(Dispatcher):
        def handle_accept(self, con: Connection) -> None:
            raise ValueError("a defect")

    async with pool(lambda site: [*plugin(site), Failing()]) as (p, messenger):
        con = await session(p, messenger)
        await answer(con, WORK)
        assert (p.failed, rows(p)) == (1, [(0, 1, 1)])
