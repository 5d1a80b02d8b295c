"""What the verbs tell of the pool: a server whose handlers keep, wait, hold and are in groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mpmsgr import Message
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.admin_asking import ask, mpmsgr, refused
from tests.processes.pool_clients import session
from tests.processes.pool_serving import WORKER, Serve, kill

COUNT, KEYED, JOIN, KEEP, GATED, LATER, BLOCKED = range(0x9001, 0x9008)
MIB = 1 << 20
WAIT_S = 10.0

Body = Callable[[Serve], Awaitable[None]]
THROTTLED = """
    dispatch_bytes = "64MiB"
    [policy.client]
    throttle_messages = 1000
"""
MODULES = {
    "table": """
        import asyncio
        import os
        import time
        from mpmsgr import Retry, handles

        kept = []

        def wait_for(name):
            while not os.path.exists(name):
                yield 0.01

        @handles(0x9001)
        def count(con, m, state):
            state["n"] = state.get("n", 0) + 1
            state["raw"] = bytes(m.front)
            return state["n"]

        @handles(0x9002, key=slice(0, 2))
        def keyed(con, m, state):
            state.setdefault("seen", []).append(int(m.front[2:]))
            return 0

        @handles(0x9003)
        def join(con, m):
            con.group(bytes(m.front).decode()).join()
            return 0

        @handles(0x9004)
        def keep(con, m):
            kept.append(m.data)
            return 0

        @handles(0x9005)
        async def gated(con, m):
            for seconds in wait_for("open"):
                await asyncio.sleep(seconds)
            return 0

        @handles(0x9006)
        def later(con, m):
            if not os.path.exists("open"):
                raise Retry(1.0)
            return 0

        @handles(0x9007)
        def blocked(con, m):
            for seconds in wait_for("open"):
                time.sleep(seconds)
            return 0
    """
}


def served(**options: Any) -> Callable[[Body], Callable[[], None]]:
    """The coroutine function as a test with a `Serve` of *options*."""

    def decorate(test: Body) -> Callable[[], None]:
        def run() -> None:
            with Serve(MODULES, **options) as server:
                asyncio.run(asyncio.wait_for(test(server), 2 * WAIT_S))

        run.__name__ = test.__name__
        return run

    return decorate


async def told(server: Serve, line: str) -> Any:
    """What a verb prints with --json, while we go on."""
    return await asyncio.to_thread(ask, server, line)


async def call(con: MessengerConnection, type_: int, front: bytes = b"", data: bytes = b"") -> None:
    await con.request(Message(type_, front, data=data), timeout=WAIT_S)


def address(con: MessengerConnection) -> str:
    """HOST:PORT/NONCE, as the server names its client."""
    return str(con.messenger.addr)


@served()
async def test_state(server: Serve) -> None:
    async with session(server) as con, session(server) as other:
        assert await told(server, "state") == []
        for front in (b"\x00a", b"\xffb"):
            await call(con, COUNT, front)
        await call(other, KEYED, b"us1")
        await call(con, KEYED, b"us2")
        rows = await told(server, "state")
        assert [(row["kind"], row["of"]) for row in rows] == [
            ("session", address(con)),
            ("key", "front[0:2]=0x7573"),
        ]
        assert all(row["state_bytes"] > 0 for row in rows)
        of_session = rows[0] | {"state": {"n": 2, "raw": "0xff62"}}
        of_key = rows[1] | {"state": {"seen": [1, 2]}}
        assert await told(server, f"state {address(con)}") == [of_session]
        assert await told(server, f"state {rows[0]['id']}") == [of_session]
        assert await told(server, "state 0x7573") == [of_key]
        assert "no state is kept for 0x41" in await asyncio.to_thread(refused, server, "state 0x41")


@served()
async def test_groups(server: Serve) -> None:
    async with session(server) as con, session(server) as other:
        assert await told(server, "groups") == []
        await call(con, JOIN, b"all")
        await call(other, JOIN, b"all")
        await call(other, JOIN, b"few")
        ids = {row["peer"]: row["id"] for row in await told(server, "sessions")}
        members = {
            row["name"]: (row["members"], row["sessions"]) for row in await told(server, "groups")
        }
        assert members == {
            "all": (2, [ids[address(con)], ids[address(other)]]),
            "few": (1, [ids[address(other)]]),
        }


@served(workers=1)
async def test_lanes_and_loads(server: Serve) -> None:
    async with session(server) as con, session(server) as other:
        assert await told(server, "lanes") == []
        waiting = asyncio.ensure_future(call(con, GATED))
        retried = asyncio.ensure_future(call(other, LATER))
        retried_too = asyncio.ensure_future(call(other, COUNT))
        await call(con, KEYED, b"us0")  # all of them have arrived

        async def lanes() -> Any:
            rows = {row["of"]: row for row in await told(server, "lanes")}
            held = rows.get(address(other), {}).get("held")
            return rows if held == ["retried later"] else None

        rows = await until(lanes)
        assert (rows[address(con)]["kind"], rows[address(con)]["worker"]) == ("session", 0)
        assert (rows[address(con)]["in_flight"], rows[address(con)]["waiting"]) == (1, 0)
        assert rows[address(other)]["waiting"] == 2
        (row,) = await told(server, "workers")
        assert (row["held"] >= 1, row["lanes"], row["handled"] >= 1) == (True, 3, True)
        (running,) = row["running"]
        assert (running["type"], running["lane"]) == (GATED, rows[address(con)]["id"])
        assert 0 < running["for_s"] <= row["oldest_s"]
        assert "0x9005 for" in (await asyncio.to_thread(mpmsgr, server, "workers")).stdout
        pool = (await told(server, "perf dump"))["pool"]
        assert pool["in_work"] == 3
        assert pool["oldest_s"] >= running["for_s"]
        (server.directory / "open").touch()
        await asyncio.gather(waiting, retried, retried_too)
        assert await told(server, "lanes") == []


@served(workers=1)
async def test_a_handler_that_keeps_its_thread_is_told_of(server: Serve) -> None:
    async with session(server) as con:
        await call(con, COUNT)
        blocked = asyncio.ensure_future(call(con, BLOCKED))

        async def running() -> Any:
            (row,) = await told(server, "workers")
            return row["running"] and row["running"][0]

        assert (await until(running))["type"] == BLOCKED
        (server.directory / "open").touch()
        await blocked


@served()
async def test_the_arena(server: Serve) -> None:
    async with session(server) as con:
        said = await told(server, "arena")
        assert [row["arena"] for row in said["arenas"]][:3] == ["ingress", "worker 0", "worker 1"]
        assert {row["used_bytes"] for row in said["arenas"]} == {0}
        assert said["leases"] == []
        await call(con, KEEP, data=bytes(MIB))
        said = await told(server, "arena")
        ingress, (lease,) = said["arenas"][0], said["leases"]
        assert (ingress["slots"], ingress["waiting"]) == (1, 0)
        assert MIB < ingress["used_bytes"] < ingress["size_bytes"]
        assert (lease["lease_bytes"], lease["worker"] in (0, 1)) == (ingress["used_bytes"], True)
        text = (await asyncio.to_thread(mpmsgr, server, "arena")).stdout
        assert "ingress" in text
        assert "age_s" in text


@served(workers=1, toml=THROTTLED)
async def test_throttles(server: Serve) -> None:
    async with session(server) as con:
        waiting = [asyncio.ensure_future(call(con, GATED, b"x")) for _ in range(3)]
        await call(con, KEYED, b"us0")
        rows = {row["name"]: row for row in await told(server, "throttles")}
        assert rows["client.messages"] == {
            "name": "client.messages",
            "current": 3,
            "max": 1000,
            "waiting": 0,
            "full_count": 0,
        }
        assert rows["dispatch"]["max"] == 64 * MIB
        assert rows["dispatch"]["current"] > 0
        (server.directory / "open").touch()
        await asyncio.gather(*waiting)


@served(workers=1, toml='max_attempts = 1\nquarantine_dir = "q"\n')
async def test_counters_of_deaths(server: Serve) -> None:
    async with session(server) as con:
        before = (await told(server, "perf dump"))["pool"]
        await call(con, COUNT)
        victims = [asyncio.ensure_future(call(con, type_)) for type_ in (BLOCKED, COUNT, COUNT)]

        async def runs() -> bool:
            (row,) = await told(server, "workers")
            return bool(row["running"])

        await until(runs)
        kill(server.pids(WORKER)[0])
        killed, *spared = await asyncio.gather(*victims, return_exceptions=True)
        assert isinstance(killed, Exception)
        assert spared == [None, None]
        after = (await told(server, "perf dump"))["pool"]
        grown = {name: after[name] - before[name] for name in before if name.endswith("_total")}
        assert grown["quarantined_total"] == 1
        assert 0 <= grown["redelivered_total"] <= 3  # what it had got beside the killer
        assert grown["handled_total"] >= 3
        assert after["completed_ago_s"] < WAIT_S


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """The first true value of the coroutine function *condition*, which asks a verb."""
    while not (value := await condition()):
        pass
    return value
