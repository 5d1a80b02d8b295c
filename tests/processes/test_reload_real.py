"""Workers come and go under load: no message lost, doubled, out of order, no session disturbed."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from mpmsgr import Message, Messenger
from mpmsgr.load import LoadPlan, LoadReport, Progress, run
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.supervisor import ExitCode
from tests.processes.supervisor_harness import Running

ECHO, COUNT = 0x8001, 0x8002
WORKERS, CLIENTS = 2, 20
BEATS = 4  # of the load generator, per second
PLUGIN = """
    from mpmsgr import handles

    kept = []

    @handles(0x8001)
    def echo(con, m):
        {before}
        con.send_message(m.reply(front=m.front, middle=m.middle, data=m.data))

    @handles(0x8002)
    def count(con, m, state):
        state["count"] = state.get("count", 0) + 1
        con.send_message(m.reply(front=str(state["count"]).encode()))
"""


class Serve:
    """Starts servers of the plugin, each with its settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[Running] = []

    def __call__(self, before: str = "pass", **more: object) -> Running:
        """A server whose echo does *before* first."""
        text = dedent(PLUGIN).format(before=before)
        (self.directory / "renewed.py").write_text(text)
        where = {"app_dir": str(self.directory), "cwd": str(self.directory)}
        self.running.append(Running.real("renewed", workers=WORKERS, **where, **more))
        return self.running[-1]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers; they end with the test."""
    serve = Serve(tmp_path)
    yield serve
    for running in serve.running:
        running.close()


def load(
    running: Running,
    duration_s: float,
    each_beat: Callable[[int], object] = lambda beat: None,
    *,
    size: int = 64,
) -> LoadReport:
    """Load from two processes, with all that must not happen looked for in the end."""
    host, port = running.wait_ready()
    beats = itertools.count()
    plan = LoadPlan(
        f"{host}:{port}",
        clients=CLIENTS,
        in_flight=8,
        size=size,
        duration_s=duration_s,
        processes=2,
    )
    sockets: list[set[int]] = []

    def progress(_: Progress) -> None:
        sockets.append(peers(running, port))
        each_beat(next(beats))

    report = run(plan, progress)
    assert report.violations == []
    assert report.sent == report.answered
    assert (report.errors, report.reconnects, report.resets, report.ended) == ({}, 0, 0, 0)
    assert len(sockets[0]) == CLIENTS
    assert set().union(*sockets) == sockets[0], "nobody has connected again"
    return report


def peers(running: Running, port: int) -> set[int]:
    """Ports of those that are connected."""
    io = psutil.Process(running.pids("mpmsgr.messenger.io")[0])
    return {c.raddr.port for c in io.net_connections("tcp") if c.raddr and c.laddr.port == port}


def reloads(running: Running) -> list[str]:
    """Beginnings and ends of reloads."""
    return re.findall(r" (reloading$|reloaded),?", "\n".join(running.lines), re.MULTILINE)


def operator(running: Running, hup_every: int) -> Callable[[int], None]:
    """HUP every so many beats, TTIN and TTOU in between."""

    def each_beat(beat: int) -> None:
        if beat % hup_every == 0:
            running.signal(signal.SIGHUP)
        elif beat % hup_every == hup_every // 2:
            running.signal((signal.SIGTTIN, signal.SIGTTOU)[beat // hup_every % 2])

    return each_beat


@pytest.mark.parametrize(
    ("duration_s", "hup_every_s"), [(8.0, 1), pytest.param(60.0, 2, marks=pytest.mark.soak)]
)
def test_reloads_and_scaling_under_load(serve: Serve, duration_s: float, hup_every_s: int) -> None:
    running = serve()
    running.wait_ready()
    first = set(running.pids("mpmsgr.pool.worker"))
    (io,) = running.pids("mpmsgr.messenger.io")
    load(running, duration_s, operator(running, BEATS * hup_every_s))
    running.until(lambda: reloads(running)[-1] == "reloaded", "the last reload is over")
    now = set(running.pids("mpmsgr.pool.worker"))
    assert not first & now
    assert running.pids("mpmsgr.messenger.io") == [io]
    retired = [line for line in running.lines if "ended: exit 0" in line]
    assert len(retired) >= WORKERS
    assert len([line for line in running.lines if "ended: " in line]) == len(retired)
    assert running.stop() == ExitCode.CLEAN


def test_large_messages_under_reloads(serve: Serve) -> None:
    """They lie in the memory of slots that the server did not begin with."""
    running = serve(arena_bytes="16MiB", worker_arena_bytes="8MiB")
    load(running, 4.0, operator(running, BEATS), size=200_000)
    assert any("slot 2" in line or "worker 2 " in line for line in running.lines)
    assert running.stop() == ExitCode.CLEAN


def test_a_state_counts_each_message_once_whoever_keeps_it(serve: Serve) -> None:
    running = serve()
    address = "{}:{}".format(*running.wait_ready())
    counts = asyncio.run(count_for(address, 4.0, lambda: running.signal(signal.SIGHUP)))
    for seen in counts:
        assert seen == list(range(1, len(seen) + 1))
    assert sum(map(len, counts)) > 100
    assert sum("is to replace" in line for line in running.lines) >= WORKERS
    assert running.stop() == ExitCode.CLEAN


async def count_for(
    address: str, duration_s: float, each_second: Callable[[], None]
) -> Sequence[list[int]]:
    """What COUNT answered to a few clients, each with several requests at once."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Messenger("client.?")) for _ in range(6)]
        cons = [client.get_connection(address) for client in clients]
        loop = asyncio.get_running_loop()
        end = loop.time() + duration_s
        timers = [loop.call_later(s, each_second) for s in range(int(duration_s))]
        counts = await asyncio.gather(*(count_until(con, end) for con in cons))
        assert all(timer.when() <= loop.time() for timer in timers)
        return counts


async def count_until(con: object, end: float) -> list[int]:
    assert isinstance(con, MessengerConnection)
    counts: list[int] = []
    while asyncio.get_running_loop().time() < end:
        replies = await asyncio.gather(
            *(con.request(Message(COUNT, b""), timeout=20.0) for _ in range(8))
        )
        counts += [int(bytes(reply.front)) for reply in replies]
    return counts


def test_a_plugin_that_leaks_loses_no_message(serve: Serve) -> None:
    running = serve(
        "kept.append(bytes(20_000) + b'.' * 20_000)",
        max_rss_bytes="1MiB",
        limits={"sample_s": 0.1, "rss_margin_bytes": 16 << 20},
    )
    load(running, 6.0)
    running.wait_line(" MiB of resident memory", times=2)
    assert running.stop() == ExitCode.CLEAN


def test_workers_that_handled_enough_are_replaced_under_load(serve: Serve) -> None:
    running = serve(max_messages=2000, limits={"sample_s": 0.1})
    load(running, 6.0)
    line = running.wait_line(" messages", times=2)
    assert "is to replace worker" in line
    assert running.stop() == ExitCode.CLEAN
