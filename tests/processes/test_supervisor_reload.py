"""A reload with real processes: new workers before old ones go, or the old ones stay."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from mpmsgr.supervisor import ExitCode
from tests.loopback import ANY_PORT
from tests.processes.supervisor_harness import Running, Start, ask, assert_nothing_left, until

FAKE = {"modules": ["fake"]}


def having(worker: str) -> dict[str, Any]:
    """Settings in which workers behave so."""
    return {"options": {"fake": {"worker": worker}}}


def reload(running: Running, **settings: Any) -> None:
    running.reconfigure(**settings)
    running.signal(signal.SIGHUP)


def worker_pids(running: Running) -> set[int]:
    return set(running.pids("worker"))


def test_workers_are_renewed_one_after_the_other(start: Start) -> None:
    running = start()
    address = running.wait_ready()
    before = worker_pids(running)
    reload(running)
    running.wait_line("reloaded, 2 workers")
    starts = [(p["slot"], p["number"]) for p in running.journal("start", role="worker")]
    assert sorted(starts[:2]) == [(0, 1), (1, 1)]
    assert starts[2:] == [(2, 1), (0, 2)], "the spare slot, then the one that was freed"
    retires = [(p["slot"], p["generation"]) for p in running.journal("retire", role="io")]
    assert retires == [(0, 1), (1, 1)]
    until(lambda: len(worker_pids(running)) == 2, "the old ones are gone")
    assert not before & worker_pids(running)
    assert ask(address) == "1", "the same I/O process"
    assert running.stop() == ExitCode.CLEAN
    assert_nothing_left(running)


def test_an_old_worker_goes_only_when_its_successor_is_ready(start: Start) -> None:
    running = start(workers=1)
    running.wait_ready()
    reload(running)
    running.wait_packet("stop", role="worker", slot=0)
    order = [
        (p["op"], p["role"], p["slot"])
        for op in ("start", "retire", "stop")
        for p in running.journal(op)
    ]
    everything = running.journal_file.read_text()
    assert order[-1] == ("stop", "worker", 0)
    assert everything.index('"retire"') < everything.index('"stop"')
    assert everything.rindex('"start"') < everything.index('"retire"')


def test_again_and_again(start: Start) -> None:
    running = start()
    running.wait_ready()
    for times in range(1, 6):
        running.signal(signal.SIGHUP)
        running.wait_line("reloaded, 2 workers", times)
    assert {p["slot"] for p in running.journal("start", role="worker")} == {0, 1, 2}
    before = len(os.listdir(f"/proc/{running.process.pid}/fd"))
    running.signal(signal.SIGHUP)
    running.wait_line("reloaded, 2 workers", 6)
    until(lambda: len(worker_pids(running)) == 2, "the old ones are gone")
    assert len(os.listdir(f"/proc/{running.process.pid}/fd")) <= before
    assert running.stop() == ExitCode.CLEAN


def test_hups_in_a_row_end_in_the_last_settings(start: Start) -> None:
    running = start(**FAKE)
    running.wait_ready()
    for _ in range(5):
        reload(running, workers=3)
    running.wait_line("reloaded, 3 workers")
    assert len(worker_pids(running)) == 3
    assert running.stop() == ExitCode.CLEAN


def test_new_workers_that_cannot_start_leave_the_old_ones(start: Start) -> None:
    running = start(**FAKE)
    running.wait_ready()
    before = worker_pids(running)
    reload(running, **having("unloadable"))
    line = running.wait_line("the reload is given up")
    assert line.endswith("the workers from before it stay: no module named 'nowhere'")
    until(lambda: worker_pids(running) == before, "the old ones are there alone")
    os.kill(running.child("worker", 1), signal.SIGKILL)
    again = running.wait_packet("start", role="worker", slot=1, number=2)
    until(lambda: again["pid"] in worker_pids(running), "it has the old settings")
    assert running.journal("retire") == []
    assert running.stop() == ExitCode.CLEAN


def test_new_workers_that_die_leave_the_old_ones(start: Start) -> None:
    running = start(**FAKE)
    running.wait_ready()
    before = worker_pids(running)
    reload(running, **having("exit"))
    assert "died 3 times in a row" in running.wait_line("the reload is given up")
    until(lambda: worker_pids(running) == before, "the old ones are there alone")
    reload(running)
    running.wait_line("reloaded, 2 workers")
    assert running.stop() == ExitCode.CLEAN


def test_a_reload_closes_open_breakers(start: Start) -> None:
    limits = {"breaker_limit": 2, "backoff_max_s": 600.0}
    running = start(worker="good", workers=1, limits=limits, **FAKE)
    running.wait_ready()
    for number in (1, 2):
        os.kill(running.child("worker", 0, number), signal.SIGKILL)
    running.wait_line("started every 600 s only")
    reload(running)
    running.wait_line("reloaded, 1 workers")
    assert running.stop() == ExitCode.CLEAN


def test_a_wrong_configuration_changes_nothing(start: Start) -> None:
    running = start()
    running.wait_ready()
    reload(running, worker_credits=3)
    assert "the nearest known name is worker_credit" in running.wait_line("worker_credits = 3")
    assert len(running.journal("start", role="worker")) == 2
    assert running.stop() == ExitCode.CLEAN


def test_what_only_a_restart_changes_is_said(start: Start) -> None:
    running = start()
    running.wait_ready()
    reload(running, bind=[ANY_PORT, ANY_PORT], nonce=7, graceful_timeout_s=5.0)
    running.wait_line("only a restart changes bind, nonce")
    running.wait_line("reloaded, 2 workers")
    assert running.stop() == ExitCode.CLEAN
    (stop,) = running.journal("stop", role="io")
    assert stop["timeout_s"] < 5.0, "the rest is in force"


def test_a_reload_brings_another_number_of_workers(start: Start) -> None:
    running = start(workers=2)
    running.wait_ready()
    reload(running, workers=1)
    running.wait_line("reloaded, 1 workers")
    assert len(worker_pids(running)) == 1
    running.signal(signal.SIGTTIN)
    until(lambda: len(worker_pids(running)) == 2, "one more")
    running.signal(signal.SIGHUP)
    running.wait_line("reloaded, 2 workers")
    assert running.stop() == ExitCode.CLEAN


def test_a_reload_reaches_the_io_process_as_its_settings(start: Start) -> None:
    running = start(workers=1)
    running.wait_ready()
    reload(running, log_level="debug")
    assert running.wait_packet("settings", role="io")["values"]["log_level"] == "debug"
    assert running.stop() == ExitCode.CLEAN


def test_a_reload_without_workers(start: Start) -> None:
    running = start(workers=0)
    running.wait_ready()
    reload(running, modules=["other"])
    running.wait_line("only a restart changes modules")
    running.wait_line("reloaded, 0 workers")
    assert running.stop() == ExitCode.CLEAN


def test_a_changed_source_reloads(start: Start, tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text("")
    running = start(workers=1, app_dir=str(tmp_path), reload=True)
    running.wait_ready()
    (tmp_path / "fake.py").write_text("# changed")
    running.wait_line("changed: fake.py")
    running.wait_line("reloaded, 1 workers")
    assert running.stop() == ExitCode.CLEAN


def test_a_worker_that_dies_while_it_is_replaced(start: Start) -> None:
    running = start(workers=1, **FAKE)
    running.wait_ready()
    reload(running, **having("unready@1"))
    running.child("worker", 1)
    os.kill(running.child("worker", 0), signal.SIGKILL)
    running.wait_packet("worker_lost", role="io", slot=0)
    os.kill(running.child("worker", 1), signal.SIGKILL)
    running.wait_line("reloaded, 1 workers")
    assert [p["slot"] for p in running.journal("start", role="worker")] == [0, 1, 1]
    assert running.stop() == ExitCode.CLEAN


def test_the_io_process_dies_while_a_worker_retires(start: Start) -> None:
    running = start(io="keeps-workers@1", workers=1, graceful_timeout_s=600.0)
    running.wait_ready()
    running.signal(signal.SIGHUP)
    running.wait_packet("retire", role="io")
    os.kill(running.child("io"), signal.SIGKILL)
    running.wait_packet("stop", role="worker", slot=0, number=1)
    running.wait_line("reloaded, 1 workers")
    assert running.stop() == ExitCode.CLEAN


def test_a_stop_in_the_middle_of_a_reload(start: Start) -> None:
    running = start(io="keeps-workers", workers=2, graceful_timeout_s=20.0)
    running.wait_ready()
    running.signal(signal.SIGHUP)
    running.wait_packet("retire", role="io")
    assert running.stop() == ExitCode.CLEAN
    assert_nothing_left(running)


@pytest.mark.parametrize("signals", [30, pytest.param(1000, marks=pytest.mark.soak)])
def test_signals_in_any_order_leave_order(start: Start, signals: int) -> None:
    running = start()
    running.wait_ready()
    chance = random.Random(signals)
    for sent in range(signals):
        running.signal(chance.choice([signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU]))
        running.wait_line("got SIG", times=sent + 1)
    running.signal(signal.SIGHUP)
    running.until(lambda: settled(running), "all is as wanted")
    assert not [line for line in running.lines if "signal 9" in line], "nobody had to be killed"
    assert running.stop() == ExitCode.CLEAN
    assert_nothing_left(running)


def settled(running: Running) -> bool:
    """Whether the last thing it did was to end a reload, with so many workers as it says."""
    match = re.search(r"reloaded, (\d+) workers$", running.lines[-1])
    return match is not None and len(worker_pids(running)) == int(match[1])


@pytest.mark.parametrize("cycles", [3, pytest.param(300, marks=pytest.mark.soak)])
def test_starts_and_stops_leave_nothing_behind(start: Start, cycles: int) -> None:
    for number in range(cycles):
        running = start(workers=1)
        running.wait_ready()
        if number % 3 == 1:
            running.signal(signal.SIGHUP)
        assert running.stop() == ExitCode.CLEAN
        assert_nothing_left(running)
