"""Limits of workers with real processes: who reaches one is replaced as in a reload."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from mpmsgr.supervisor import ExitCode
from tests.processes.supervisor_harness import Running, Start

QUICKLY = {"sample_s": 0.1}


def replaced(running: Running, why: str) -> None:
    """Worker 0 is replaced by one in slot 1, and for good."""
    line = running.wait_line("is to replace")
    assert "worker 1 is to replace worker 0: " in line
    assert why in line
    running.wait_line("worker 0 (generation 1) ended: exit 0")
    order = [p["op"] for p in running.journal("retire") + running.journal("stop")]
    assert order == ["retire", "stop"]
    assert running.stop() == ExitCode.CLEAN
    assert len(running.journal("start", role="worker")) == 2


def test_messages(start: Start) -> None:
    running = start(workers=1, max_messages=1000, limits=QUICKLY)
    running.wait_ready()
    running.handle(0, 1000)
    replaced(running, "it handled 1000 messages")


def test_age(start: Start) -> None:
    running = start(workers=1, max_lifetime_s=3.0)
    running.wait_ready()
    running.wait_line("is to replace worker 0: it lived 3 s")
    assert running.stop() == ExitCode.CLEAN


def test_memory(start: Start) -> None:
    running = start(worker="grows@1", workers=1, max_rss_bytes=1 << 20, limits=QUICKLY)
    running.wait_ready()
    running.wait_packet("start", role="worker")
    running.signal(signal.SIGUSR1)  # the fake grows by 64 MiB, its successor's number is 1 as well
    line = running.wait_line("is to replace worker 0")
    assert "MiB of resident memory" in line
    assert running.stop() == ExitCode.CLEAN


def test_a_small_limit_does_not_replace_fresh_workers(start: Start) -> None:
    running = start(workers=1, max_rss_bytes=1, limits=QUICKLY)
    running.wait_ready()
    pid = running.process.pid
    before = psutil.Process(pid).num_ctx_switches().voluntary
    running.until(
        lambda: psutil.Process(pid).num_ctx_switches().voluntary > before + 20, "it measured"
    )
    assert len(running.journal("start", role="worker")) == 1
    assert running.stop() == ExitCode.CLEAN


@pytest.mark.parametrize("setting", ["auto", "list"])
def test_affinity(start: Start, setting: str) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    cpus = allowed if setting == "auto" else allowed[-1:]
    text = setting if setting == "auto" else str(cpus[0])
    running = start(workers=2, cpu_affinity=text)
    running.wait_ready()
    bound = [os.sched_getaffinity(running.child("worker", slot)) for slot in (0, 1)]
    assert bound == [{cpus[0]}, {cpus[1 % len(cpus)]}]
    assert os.sched_getaffinity(running.child("io")) == set(allowed)
    running.signal(signal.SIGHUP)
    running.wait_line("reloaded, 2 workers")
    bound = [os.sched_getaffinity(running.child("worker", s, n)) for s, n in ((2, 1), (0, 2))]
    assert sorted(bound, key=min) == sorted([{cpus[0]}, {cpus[1 % len(cpus)]}], key=min)
    assert running.stop() == ExitCode.CLEAN


def test_a_cpu_that_is_not_ours(start: Start) -> None:
    running = start(cpu_affinity="65000")
    assert running.wait() == ExitCode.USAGE
    assert "CPU 65000 is none of ours" in running.said[-1]
