"""@every: called regularly, in exactly one process, for as long as there is one."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from mpmsgr import Connection, Message
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handlers import every, handles
from tests.support import eventually_async
from tests.unit.pool_harness import (
    answer,
    on_uvloop,
    pool,
    service,
    service_and_session,
    session,
    text,
    with_and_without_workers,
)
from tests.unit.pool_site import Plugin, Site

JOIN, PUSH = 0x9001, 0x9002


def calling(calls: list[str], seconds: float = 0.01) -> Plugin:
    """A plugin that notes who was called."""

    def plugin(site: Site) -> list[Any]:
        @every(seconds)
        def call() -> None:
            calls.append(site.name)

        return [call]

    return plugin


@with_and_without_workers
@on_uvloop
async def test_one_is_called_and_then_again(workers: int) -> None:
    calls: list[str] = []
    async with service(calling(calls), workers):
        await eventually_async(lambda: len(calls) >= 10)
        assert len(set(calls)) == 1


@with_and_without_workers
@on_uvloop
async def test_nobody_catches_up_with_calls_that_were_missed(workers: int) -> None:
    calls: list[str] = []
    async with service(calling(calls, seconds=0.02), workers):
        loop = asyncio.get_running_loop()
        await eventually_async(lambda: calls)
        began, before = loop.time(), len(calls)
        while loop.time() < began + 0.2:
            pass  # nothing runs
        await eventually_async(lambda: len(calls) >= before + 2)
        assert len(calls) <= before + 3


@on_uvloop
async def test_another_worker_is_called_when_the_first_dies() -> None:
    calls: list[str] = []
    async with pool(calling(calls), workers=2) as (p, _):
        await eventually_async(lambda: calls)
        first = calls[-1]
        p.kill(int(first[0]))
        await eventually_async(lambda: calls[-1] != first)
        second = calls[-1]
        p.kill(int(second[0]))
        count = len(calls)
        await asyncio.sleep(0.03)
        assert len(calls) == count, "nobody is there"
        await p.worker(0, generation=7)
        await eventually_async(lambda: calls[-1] == "0.7")


@on_uvloop
async def test_a_call_that_kills_its_worker_is_not_the_last() -> None:
    calls: list[str] = []

    def plugin(site: Site) -> list[Any]:
        @every(0.01)
        def call() -> None:
            calls.append(site.name)
            if len(calls) <= 5:
                site.die()

        return [call]

    async with pool(plugin, respawn=True, max_attempts=2) as (p, _):
        await eventually_async(lambda: len(calls) >= 8)
        assert p.deaths == 5
        assert p.quarantined == 0, "a call is no message"


@with_and_without_workers
@on_uvloop
async def test_a_call_that_takes_long_is_not_made_twice(workers: int) -> None:
    running: list[int] = []
    calls: list[int] = []

    def plugin(site: Site) -> list[Any]:
        @every(0.005)
        async def call() -> None:
            running.append(1)
            calls.append(len(running))
            await asyncio.sleep(0.03)
            running.pop()

        return [call]

    async with service(plugin, workers):
        await eventually_async(lambda: len(calls) >= 4)
    assert set(calls) == {1}


@with_and_without_workers
@on_uvloop
async def test_a_call_that_fails_is_made_again(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def plugin(site: Site) -> list[Any]:
        @every(0.01)
        async def call() -> None:
            calls.append(site.name)
            await asyncio.sleep(0)
            raise ValueError("this time too")

        return [call]

    async with service(plugin, workers):
        await eventually_async(lambda: len(calls) >= 3)
    failed = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(failed) >= 3
    assert "plugin.call failed" in caplog.text


@with_and_without_workers
@on_uvloop
async def test_calls_can_send(workers: int) -> None:
    ids: list[int] = []

    def plugin(site: Site) -> list[Any]:
        @handles(JOIN)
        def join(con: Connection, m: Message) -> None:
            con.group("all").join()
            ids.append(con.id)

        @every(0.01)
        def tell(service: Service) -> None:
            service.group("all").send(Message(PUSH, b"to all"))
            for id_ in ids:
                service.connection(id_).send_message(Message(PUSH, b"to one"))

        return [join, tell]

    async with service_and_session(plugin, workers) as (_, con):
        pushes = con.messages(PUSH)
        con.send_message(Message(JOIN))
        heard = {text(await anext(pushes)) for _ in range(6)}
        assert heard == {"to all", "to one"}


@on_uvloop
async def test_calls_end_when_nobody_asks_for_them_any_more() -> None:
    """The next generation of the plugin has other ones."""
    calls: list[str] = []

    def plugin(site: Site) -> list[Any]:
        @handles(JOIN)
        def join(con: Connection, m: Message) -> str:
            return site.name

        return [join, *(calling(calls)(site) if site.name.endswith(".1") else [])]

    async with pool(plugin) as (p, messenger):
        await eventually_async(lambda: len(calls) >= 2)
        p.kill(0)
        await p.worker(0)
        count = len(calls)
        assert await answer(await session(p, messenger), JOIN) == "0.2"
        await asyncio.sleep(0.03)
        assert len(calls) == count
