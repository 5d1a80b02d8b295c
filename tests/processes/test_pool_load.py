"""Many sessions at once through two workers: nothing lost, duplicated or reordered; overload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.load import LoadPlan, LoadReport, run
from tests.processes.pool_serving import IO, WORKER, Serve

SESSIONS, IN_FLIGHT = 200, 16
MIB = 1 << 20
LIMIT = 8 * MIB

MODULES = {
    "echoes": """
        import time
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(m.front, m.middle, m.data))

        @handles(0x9001)
        def slow(con, m):
            time.sleep(0.001)
            con.send_message(m.reply(m.front))
    """
}


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    with Serve(MODULES, toml=f"dispatch_bytes = {LIMIT}\n") as server:
        yield server


def check(report: LoadReport, server: Serve) -> None:
    assert report.violations == []
    assert (report.resets, report.reconnects, report.errors) == (0, 0, {}), report.text()
    busy = [child for child in server.children() if child.pid in server.pids(WORKER)]
    cpu = sorted(child.cpu_times().user for child in busy)
    assert cpu[0] > cpu[1] / 4, f"one worker did nearly all of it: {cpu}"
    print(report.text())


@pytest.mark.alone
def test_200_sessions_with_16_in_flight(server: Serve) -> None:
    plan = LoadPlan(server.address, SESSIONS, IN_FLIGHT, size=64, count=40_000)
    report = run(plan)
    check(report, server)
    assert report.answered == 40_000


@pytest.mark.soak
@pytest.mark.parametrize("size", [64, 2048])
def test_200_sessions_with_16_in_flight_for_half_a_minute(server: Serve, size: int) -> None:
    plan = LoadPlan(server.address, SESSIONS, IN_FLIGHT, size=size, duration_s=30.0)
    check(run(plan), server)


# overload


@pytest.mark.alone
def test_memory_stays_bounded_when_workers_are_slow(server: Serve) -> None:
    """128 MiB wait for two slow workers; what is in the server stays near its limit."""

    def resident() -> int:
        pids = [*server.pids(IO), *server.pids(WORKER)]
        return sum(c.memory_info().rss for c in server.children() if c.pid in pids)

    async def session(number: int) -> None:
        async with Messenger(f"client.{number}", drain_s=0.5) as messenger:
            con = messenger.get_connection(server.address)
            data = bytes(64 * 1024)
            asked = [Message(0x9001, b"%d" % i, data=data) for i in range(512)]
            replies = await asyncio.gather(*(con.request(m, timeout=60) for m in asked))
            assert [bytes(m.front) for m in replies] == [b"%d" % i for i in range(512)]

    async def main() -> int:
        load = asyncio.gather(*(session(number) for number in range(4)))
        most = before = resident()
        while not load.done():
            most = max(most, await asyncio.to_thread(resident))
            await asyncio.wait([load], timeout=0.02)
        await load
        return most - before

    grown = asyncio.run(main())
    print(f"grown by {grown / MIB:.0f} MiB at the most")
    assert grown < 100 * MIB
