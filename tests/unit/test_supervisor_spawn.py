"""What children start with, and what they do first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mpmsgr
from mpmsgr.process import SUPERVISOR_PID_ENV
from mpmsgr.supervisor.spawn import MALLOC_ENVIRONMENT, Commands, Process, child_environment, spawn
from tests.support import eventually

ROOT = str(Path(mpmsgr.__file__).parent.parent)


def test_the_environment_of_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/usr/bin", *sys.path])
    env = child_environment({"HOME": "/", "MALLOC_TOP_PAD_": "1"})
    assert env == MALLOC_ENVIRONMENT | {
        "HOME": "/",
        "MALLOC_TOP_PAD_": "1",  # the operator's word
        SUPERVISOR_PID_ENV: str(os.getpid()),
    }


@pytest.mark.parametrize(
    ("first", "before", "after"),
    [
        ("/usr/bin", None, None),
        (ROOT, None, ROOT),
        (ROOT, "/x", f"{ROOT}:/x"),
    ],
)
def test_a_checkout_that_is_not_installed_is_found_by_children(
    monkeypatch: pytest.MonkeyPatch, first: str, before: str | None, after: str | None
) -> None:
    monkeypatch.setattr(sys, "path", [first, *sys.path])
    env = child_environment({} if before is None else {"PYTHONPATH": before})
    assert env.get("PYTHONPATH") == after


def test_modules_of_the_current_directory_are_not_ours() -> None:
    for command in (Commands().io, Commands().worker):
        assert "-P" in command
    assert Commands().io[-2:] == ["-m", "mpmsgr.messenger.io"]
    assert Commands().worker[-2:] == ["-m", "mpmsgr.pool.worker"]


CHILD = """
import signal, sys
from mpmsgr.control import ControlChannel
from mpmsgr.process import dump_stacks_on_signal, leave_signals_to_parent
channel = ControlChannel.from_fd(int(sys.argv[sys.argv.index("--control-fd") + 1]))
signal.raise_signal(signal.SIGTERM)
channel.send("pending", signals=[int(s) for s in signal.sigpending()])
leave_signals_to_parent()
signal.raise_signal(signal.SIGINT)
dump_stacks_on_signal(int(sys.argv[sys.argv.index("--stacks-fd") + 1]))
channel.send("alive", blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""


def test_stop_signals_do_not_reach_a_child_however_early() -> None:
    process = spawn([sys.executable, "-c", CHILD], [])
    try:
        packets = []
        while not process.channel.eof:
            packets += process.channel.wait(20.0)
    finally:
        cause = process.reap()
    assert packets == [
        {"op": "pending", "signals": [signal.SIGTERM]},
        {"op": "alive", "blocked": 0},
    ]
    assert cause == "exit 0"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_the_cause_of_death() -> None:
    process = spawn([sys.executable, "-c", "input()"], [])
    process.kill()
    assert process.reap() == "signal 9"
    assert process.signal == signal.SIGKILL
    process = spawn(["/bin/false"], [])
    assert process.reap() == "exit 1"
    assert process.signal == 0


@pytest.mark.parametrize(("stdin", "status"), [(False, "exit 1"), (True, "exit 0")])
def test_a_child_reads_from_our_stdin_only_where_it_is_to(
    capfd: pytest.CaptureFixture[str], stdin: bool, status: str
) -> None:
    reader, writer = os.pipe()
    kept = os.dup(0)
    try:
        os.dup2(reader, 0)
        os.write(writer, b"hello\n")
        process = spawn([sys.executable, "-c", "print(input())"], [], stdin=stdin)
        assert process.reap() == status  # the end of the file is an error
    finally:
        os.dup2(kept, 0)
        for number in (kept, reader, writer):
            os.close(number)
    assert capfd.readouterr().out == ("hello\n" if stdin else "")


def test_a_program_that_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["/nonexistent"], [])


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize(("offset", "code"), [(0, 0), (1, 1)])
def test_who_has_lost_its_parent_ends(offset: int, code: int) -> None:
    text = (
        f"import mpmsgr.process as p; p.die_with_parent({os.getpid() + offset}); raise SystemExit"
    )
    assert subprocess.run([sys.executable, "-c", text], timeout=20.0).returncode == code


# One call into C that holds the GIL for longer than any test lasts.
SPINNING = """
import re, sys
from mpmsgr.process import dump_stacks_on_signal
def spin():
    re.match(r"(a+)+$", "a" * 60 + "b")
dump_stacks_on_signal(int(sys.argv[sys.argv.index("--stacks-fd") + 1]))
spin()
"""

ENDS_IN_C = """
import ctypes, sys
from mpmsgr.process import dump_stacks_on_signal
dump_stacks_on_signal(int(sys.argv[sys.argv.index("--stacks-fd") + 1]))
def reads_nothing():
    ctypes.string_at(0)
reads_nothing()
"""


def dump(process: Process) -> str:
    """The next one of *process*, once it is whole."""
    pieces: list[str] = []

    def whole() -> bool:
        process.stacks.read(0.0)
        pieces.append(process.stacks.take())
        return process.stacks.eof or pieces[-1].endswith(" in <module>")

    eventually(whole, 20.0)
    return "".join(pieces)


def test_stacks_are_written_though_a_thread_is_in_c() -> None:
    process = spawn([sys.executable, "-c", SPINNING], [])
    try:
        for _ in range(3):
            process.dump_stacks()
            lines = dump(process).splitlines()
            assert lines[0].startswith("Current thread 0x")
            assert lines[-1].endswith(" in <module>")
        assert not process.stacks.eof
    finally:
        process.kill()
        assert process.reap() == "signal 9"


def test_the_stacks_of_a_fault_come_before_its_death_is_told() -> None:
    process = spawn([sys.executable, "-c", ENDS_IN_C], [])
    text = dump(process)
    assert process.reap() == "signal 11"
    assert text.startswith("Fatal Python error: Segmentation fault")
    assert "in reads_nothing" in text
