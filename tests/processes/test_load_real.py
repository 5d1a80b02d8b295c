"""The load generator against a real server whose processes die meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from bench.server import Server, kill
from mpmsgr.load import LoadPlan, LoadReport, Progress, run

CLIENTS = 20


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("workers.echo:Echo", workers=2) as running:
        yield running
        assert running.stop() == 0


def load(server: Server, *steps: Callable[[], object], duration_s: float = 1.0) -> LoadReport:
    """Load from two processes; *steps* happen in its midst, a beat apart."""
    beats = 0

    def progress(_: Progress) -> None:
        nonlocal beats
        beats += 1
        if 2 <= beats < 2 + len(steps):
            steps[beats - 2]()

    plan = LoadPlan(
        server.address, clients=CLIENTS, in_flight=8, duration_s=duration_s, processes=2
    )
    report = run(plan, progress)
    assert beats > 1 + len(steps)
    assert (report.duplicated, report.reordered, report.corrupted) == (0, 0, 0)
    return report


def test_an_undisturbed_run(server: Server) -> None:
    report = load(server)
    assert report.violations == []
    assert report.sent == report.answered > 1000
    assert (report.errors, report.reconnects, report.resets) == ({}, 0, 0)


def test_what_a_killed_worker_held_is_answered_by_others(server: Server) -> None:
    victim = server.worker_pids()[0]
    # Stopped first: an echo takes so little time that a worker may hold nothing when it is killed.
    report = load(server, lambda: os.kill(victim, signal.SIGSTOP), lambda: kill(victim))
    assert report.violations == []
    assert report.sent == report.answered
    assert (report.errors, report.reconnects, report.resets) == ({}, 0, 0)


def test_what_a_killed_io_process_had_is_lost_and_said_to_be(server: Server) -> None:
    report = load(server, lambda: kill(server.io_pid()), duration_s=4.0)
    (violation,) = report.violations
    assert violation.startswith(f"{report.lost} lost")
    assert 0 < report.lost == report.sent - report.answered
    assert (report.reconnects, report.resets, report.ended) == (CLIENTS, CLIENTS, 0)
