"""A hundred clients that send more than there is room for, to workers that take nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import psutil
import pytest
import uvloop

from mpmsgr import Message, Messenger, Policies
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.session.policy import LOSSLESS_CLIENT
from mpmsgr.wire.message import PRIO_HIGHEST
from tests.processes.pool_serving import IO, Serve
from tests.support import eventually_async

KIB, MIB = 1 << 10, 1 << 20
HOLD, NOW = 0x9001, 0x9002
CLIENTS, EACH, SIZE = 100, 2, MIB
#: Without a reserve, 32 of them would leave no room for others.
DISPATCH, ARENA = 32 * (SIZE + 256), 16 * MIB
#: What a session may bring beyond `dispatch_bytes`: a message for which no room is asked, being no
#: longer than `arena_threshold_bytes`, and a short read. Measured: 7 KiB with messages as here, 58
#: with those of 60 kB.
PER_SESSION = 64 * KIB + 16 * KIB
WORKERS = 2
#: Without an arena, what is on its way to a worker: a message in a batch, and in ZeroMQ's hands.
ON_ITS_WAY = 2 * WORKERS * SIZE
#: Both sides give up a connection that is silent for so long.
KEEPALIVE_S, SILENCE_S = 0.4, 2.0
WAIT_S = 30.0

MODULES = {
    "gate": """
        import asyncio
        from pathlib import Path
        from mpmsgr import handles

        @handles(0x9001)
        async def hold(con, m):
            while not Path("open").exists():
                await asyncio.sleep(0.02)
            with open("handled", "a") as lines:
                print(bytes(m.front).decode(), file=lines)
            return len(m.data)

        @handles(0x9002)
        def now(con, m):
            return True
    """
}
TOML = f"""
    dispatch_bytes = {DISPATCH}
    keepalive_period_s = {KEEPALIVE_S}
    keepalive_timeout_s = {SILENCE_S}
    [policy.mgr]
    preset = "stateful_server"
    urgent = true
"""


@pytest.fixture(params=[ARENA, 0], ids=["arena", "no arena"])
def arena(request: pytest.FixtureRequest) -> int:
    """Its bytes."""
    return int(request.param)


@pytest.fixture
def server(arena: int) -> Iterator[Serve]:
    toml = f"arena_bytes = {arena}\n{TOML}"
    with Serve(MODULES, workers=WORKERS, toml=toml) as server:
        yield server


@asynccontextmanager
async def connection(server: Serve, name: str = "client.?") -> AsyncIterator[MessengerConnection]:
    """The session of a peer of its own, which notices silence as soon as the server does."""
    watched = replace(
        LOSSLESS_CLIENT, keepalive_period_s=KEEPALIVE_S, keepalive_timeout_s=SILENCE_S
    )
    async with Messenger(name, policies=Policies(watched), drain_s=0.1) as messenger:
        con = messenger.get_connection(server.address)
        assert isinstance(con, MessengerConnection)
        await con.wait_connected(WAIT_S)
        yield con


def resident(server: Serve) -> int:
    """Memory of the I/O process, in bytes."""
    (pid,) = server.pids(IO)
    rss: int = psutil.Process(pid).memory_info().rss
    return rss


@pytest.mark.alone
def test_a_flood_is_kept_out_and_nothing_of_it_is_lost(server: Serve, arena: int) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            mgr, idle = await enter(connection(server, "mgr.1")), await enter(connection(server))
            flood = [await enter(connection(server)) for _ in range(CLIENTS)]
            before = resident(server)
            data = bytes(SIZE)
            began = mgr.messenger.now()
            asked = [
                asyncio.ensure_future(con.request(Message(HOLD, b"%d.%d" % (c, i), data=data)))
                for i in range(EACH)
                for c, con in enumerate(flood)
            ]
            await eventually_async(lambda: server.lines("peers are not read"), WAIT_S)
            await watched(flood, began)
            grown = resident(server) - before

            for _ in range(10):
                assert await idle.ping(timeout=5.0) < 5.0
                urgent = Message(NOW, priority=PRIO_HIGHEST, data=bytes(100 * KIB))
                await mgr.request(urgent, timeout=5.0)
            assert not any(one.done() for one in asked)
            grown = max(grown, resident(server) - before)
            print(f"grown by {grown / MIB:.1f} MiB, before {before / MIB:.0f} MiB")
            assert grown < DISPATCH + CLIENTS * PER_SESSION + (0 if arena else ON_ITS_WAY)

            (server.directory / "open").touch()
            replies = await asyncio.wait_for(asyncio.gather(*asked), WAIT_S)
            assert len(replies) == CLIENTS * EACH
            for con in (mgr, idle, *flood):
                assert con.last_reset is None
                assert con.messenger.endpoint.counters.opened == 1, "it never reconnected"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 4 * WAIT_S))
    handled = [line.split(".") for line in server.written("handled")]
    for c in range(CLIENTS):
        assert [i for client, i in handled if client == str(c)] == [str(i) for i in range(EACH)]


async def watched(flood: list[MessengerConnection], began: float) -> None:
    """Let so much time pass that silence would have ended every session, if there were any."""
    late = began + 1.2 * SILENCE_S
    await eventually_async(lambda: all(con.session.last_received > late for con in flood), WAIT_S)
