"""A server with nothing to do does nothing: no process of it polls."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from mpmsgr import Message, sync
from tests.processes.pool_serving import IO, WORKER, Serve

MODULES = {
    "echoes": """
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(front=m.front))
    """
}
SESSIONS = 20
#: Shorter than the silence after which peers ask each other whether they live.
WINDOW_S = 4.0
#: What is asked for: a thread may look after something once a second. One more for the fraction of
#: a period, one for a page fault or a lock.
PERIOD_S, MORE = 1.0, 2
CPU = 0.01


def test_an_idle_server_sleeps() -> None:
    limits = ("--max-rss", "4GiB", "--max-lifetime", "3600", "--max-messages", "1000000")
    flags = ("--metrics-bind", "0", *limits)
    with Serve(MODULES, flags=flags) as server, ExitStack() as clients:
        for _ in range(SESSIONS):
            con = clients.enter_context(sync.connect(server.address, timeout=10))
            con.request(Message(0x8001, b"x"), timeout=10)
        pids = [server.process.pid, *server.pids(IO), *server.pids(WORKER)]
        assert len(pids) == 4
        server.until(lambda: has_settled(server, pids), "acks are sent, nobody wakes for a while")
        began, before = time.monotonic(), wakeups_of(pids)
        cpu = [cpu_s(pid) for pid in pids]
        server.lasts(WINDOW_S)
        took = time.monotonic() - began
        for thread, count in wakeups_of(pids).items():
            woke = count - before.get(thread, 0)
            assert woke <= took / PERIOD_S + MORE, f"{thread}: {woke} in {took:.1f} s"
        for pid, used in zip(pids, cpu, strict=True):
            assert cpu_s(pid) - used < CPU * took, f"process {pid} is not idle"


def has_settled(server: Serve, pids: list[int]) -> bool:
    before = wakeups_of(pids)
    server.lasts(PERIOD_S / 4)
    return wakeups_of(pids) == before


def wakeups_of(pids: list[int]) -> dict[str, int]:
    """How often each thread has gone to sleep and was woken."""
    counts = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            lines = (task / "status").read_text().splitlines()
            facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            counts[f"{pid}/{task.name} {facts['Name']}"] = int(facts["voluntary_ctxt_switches"])
    return counts


def cpu_s(pid: int) -> float:
    """CPU time a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
