"""Each signal of the operator, with real processes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from mpmsgr.supervisor import ExitCode
from tests.processes.supervisor_harness import Running, Start, ask, assert_nothing_left


def workers(running: Running) -> int:
    """Living worker processes."""
    return len(running.pids("worker"))


def dumps(log: str) -> dict[str, str]:
    """Each process's stacks, whole: what stands between the head of a dump and the next line."""
    dump = re.compile(
        r" mpmsgr\.stacks: stacks of (.*), pid \d+:\n((?:(?:Current|Thread|  File).*\n?|\n)+)"
    )
    return dict(dump.findall(log))


def test_quit_writes_the_stacks_of_everybody_and_stops_at_once(start: Start) -> None:
    running = start(worker="spins", graceful_timeout_s=600.0)
    running.wait_ready()
    running.until(lambda: len(running.journal("spins")) == 2, "both spin")
    running.signal(signal.SIGQUIT)
    assert running.wait(10.0) == ExitCode.UNFINISHED, "who is inside C has to be killed"
    stacks = dumps("\n".join(running.lines))
    assert "in dump_stacks" in stacks.pop("the supervisor")
    assert "in run" in stacks.pop("the I/O process (incarnation 1)")
    for slot in range(2):
        assert "in spin" in stacks.pop(f"worker {slot} (generation 1)")
    assert not stacks
    assert_nothing_left(running)


def test_quit_while_stopping_hurries(start: Start) -> None:
    running = start(io="stubborn", graceful_timeout_s=600.0)
    running.wait_ready()
    running.signal(signal.SIGTERM)
    running.wait_packet("stop", role="io")
    running.signal(signal.SIGQUIT)
    assert running.wait(10.0) == ExitCode.UNFINISHED
    assert any("stacks of the I/O process" in line for line in running.lines)


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGQUIT]
)
def test_children_live_on_when_they_get_it_themselves(start: Start, number: signal.Signals) -> None:
    running = start(workers=1)
    running.wait_ready()
    for pid in (running.child("io"), running.child("worker", 0)):
        os.kill(pid, number)
    assert running.stop() == ExitCode.CLEAN
    assert len(running.journal("stop")) == 2, "they were there to be told"


def test_usr1_opens_the_log_file_anew_everywhere(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "log"
    running = start(log_file=str(file), log_level="info")
    running.wait_ready()
    file.rename(tmp_path / "log.1")
    running.signal(signal.SIGUSR1)
    for role, slot in (("io", None), ("worker", 0), ("worker", 1)):
        running.wait_packet("reopen_logs", role=role, slot=slot)
    assert running.stop() == ExitCode.CLEAN
    assert "SIGUSR1" in (tmp_path / "log.1").read_text()
    assert "SIGTERM" in file.read_text()
    assert running.lines == running.said, "stderr has the ready line alone"


def test_a_quarantine_that_cannot_be(start: Start, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    running = start(quarantine_dir=str(tmp_path / "taken"))
    assert running.wait(10.0) == ExitCode.USAGE
    assert re.search("quarantine_dir = .*taken': cannot be made: File exists", running.said[-1])
    assert_nothing_left(running)


def test_a_log_file_that_cannot_be(start: Start, tmp_path: Path) -> None:
    running = start(log_file=str(tmp_path / "nowhere" / "log"))
    assert running.wait() == ExitCode.USAGE
    assert re.search("log_file = .*nowhere/log': cannot be opened: No such file", running.said[-1])
    assert_nothing_left(running)


def test_usr2_makes_every_io_process_a_lame_duck_that_listens(start: Start) -> None:
    running = start()
    address = running.wait_ready()
    assert running.journal("lame_duck") == []
    running.signal(signal.SIGUSR2)
    running.wait_packet("lame_duck", role="io", number=1)
    assert ask(address) == "1", "for sessions that come back"
    os.kill(running.child("io"), signal.SIGKILL)
    running.wait_packet("lame_duck", role="io", number=2)
    assert ask(address) == "2"
    assert running.stop() == ExitCode.CLEAN


def test_ttin_and_ttou_change_the_number_of_workers(start: Start) -> None:
    running = start(workers=1)
    running.wait_ready()
    for slot in (1, 2):
        running.signal(signal.SIGTTIN)
        running.wait_line(f"worker {slot} (generation 1) is ready")
    running.signal(signal.SIGTTOU)
    retire = running.wait_packet("retire", role="io")
    assert (retire["slot"], retire["generation"]) == (2, 1)
    running.wait_line("worker 2 (generation 1) ended: exit 0")
    running.signal(signal.SIGTTIN)
    running.child("worker", 2, number=2)
    assert running.stop() == ExitCode.CLEAN


def test_the_last_worker_stays(start: Start) -> None:
    running = start(workers=1)
    running.wait_ready()
    running.signal(signal.SIGTTOU)
    running.wait_line("must be at least 1")
    assert workers(running) == 1
    assert running.stop() == ExitCode.CLEAN


def test_without_workers_there_is_nothing_to_count(start: Start) -> None:
    running = start(workers=0)
    running.wait_ready()
    running.signal(signal.SIGTTIN)
    running.wait_line("handlers run in the I/O process")
    assert running.stop() == ExitCode.CLEAN


def test_a_worker_that_does_not_retire_is_killed_in_the_end(start: Start) -> None:
    running = start(io="keeps-workers", graceful_timeout_s=1.0)
    running.wait_ready()
    running.signal(signal.SIGTTOU)
    lost = running.wait_packet("worker_lost", role="io")
    assert (lost["slot"], lost["cause"]) == (1, "signal 9 (not retired after 1 s)")
    running.wait_line("not retired after 1 s")
    assert running.stop() == ExitCode.CLEAN
