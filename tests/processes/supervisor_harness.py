"""A supervisor over fake children, as tests see it: its lines, its journal, its processes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.loopback import ANY_PORT
from tests.processes.marked import marked, with_argument
from tests.support import eventually

HERE = Path(__file__).parent
MARK = "MPMSGR_TEST_SUPERVISOR"
DEADLINE_S = 20.0
T = TypeVar("T")


def until(condition: Callable[[], T], what: str, timeout_s: float = DEADLINE_S) -> T:
    """The first true value of *condition*; fails after *timeout_s*."""
    return eventually(condition, timeout_s, what)


class Running:
    """A supervisor process under test, in a directory of its own."""

    def __init__(
        self, io: str = "good", worker: str = "good", *, workers: int = 2, **more: Any
    ) -> None:
        """Start with behaviours *io* and *worker*; *more*: limits=, commands=, cwd=, settings."""
        self.directory = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
        self.journal_file = self.directory / "journal"
        self.run_dir = self.directory / "run"
        self.stderr_file = self.directory / "stderr"
        fake = [sys.executable, str(HERE / "supervisor_fakes.py")]
        limits, cwd = more.pop("limits", {}), more.pop("cwd", None)
        self.reconfigure()
        told = {
            "reread": str(self.directory / "reread"),
            "handled": str(self.directory / "handled"),
            "limits": limits,
            "commands": more.pop(
                "commands",
                {
                    "io": [*fake, "io", io, str(self.journal_file)],
                    "worker": [*fake, "worker", worker, str(self.journal_file)],
                },
            ),
            "settings": {
                "bind": [ANY_PORT],
                "workers": workers,
                "run_dir": str(self.run_dir),
                **more,
            },
        }
        with self.stderr_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "supervisor_host.py"), json.dumps(told)],
                stderr=stderr,
                start_new_session=True,
                cwd=cwd,
                env={**os.environ, MARK: str(self.directory)},
            )
        self.pidfd = os.pidfd_open(self.process.pid)

    def reconfigure(self, **settings: Any) -> None:
        """What a reload finds changed since the start."""
        new = self.directory / "reread.new"
        new.write_text(json.dumps(settings))
        new.rename(self.directory / "reread")  # whole, whenever it is read

    def handle(self, slot: int, count: int) -> None:
        """The worker of *slot* has handled *count* messages by now."""
        new = self.directory / "handled.new"
        new.write_text(str(count))
        new.rename(self.directory / f"handled-{slot}")

    @classmethod
    def real(cls, *modules: str, **more: Any) -> Running:
        """With the real I/O process and workers, serving *modules*."""
        return cls(commands={}, modules=list(modules), **more)

    @property
    def lines(self) -> list[str]:
        """What it wrote to stderr."""
        return self.stderr_file.read_text().splitlines()

    @property
    def said(self) -> list[str]:
        """Its own lines: those that are no log."""
        return [line for line in self.lines if line.startswith("mpmsgr: ")]

    def journal(self, op: str, **fields: Any) -> list[dict[str, Any]]:
        """The packets of that kind which children got, oldest first."""
        if not self.journal_file.exists():
            return []
        # A line that is being written has no end yet.
        complete = self.journal_file.read_text().rpartition("\n")[0]
        packets = [json.loads(line) for line in complete.splitlines()]
        wanted = {"op": op, **fields}.items()
        return [p for p in packets if wanted <= {k: _plain(v) for k, v in p.items()}.items()]

    def wait_packet(self, op: str, timeout_s: float = DEADLINE_S, **fields: Any) -> dict[str, Any]:
        """The first such packet, once a child got it."""
        return self.until(lambda: self.journal(op, **fields), f"{op} {fields}", timeout_s)[0]

    def wait_ready(self) -> tuple[str, int]:
        """The address of the ready line, once it is there."""
        line = until(lambda: [one for one in self.said if "ready on" in one], "ready")[0]
        host, port = line.split()[3].split(",")[0].rsplit(":", 1)
        return host, int(port)

    def children(self) -> list[psutil.Process]:
        """Processes of this supervisor, whoever their parent is now; zombies are none."""
        return marked(MARK, str(self.directory), but=self.process.pid)

    def pids(self, word: str) -> list[int]:
        """Those of its processes with *word* among their arguments."""
        return with_argument(word, self.children())

    def child(self, role: str, slot: int | None = None, number: int = 1) -> int:
        """The pid of one child that was told to start."""
        pid: int = self.wait_packet("start", role=role, slot=slot, number=number)["pid"]
        return pid

    def kill_child(self, pid: int) -> None:
        """SIGKILL a child; returns when it is gone."""
        process = psutil.Process(pid)
        process.kill()
        until(lambda: all(child != process for child in self.children()), "it is gone")

    def wait_line(self, text: str, times: int = 1) -> str:
        """The line on stderr that has *text*, once it is there so many *times*."""

        def found() -> list[str]:
            lines = [line for line in self.lines if text in line]
            return lines if len(lines) >= times else []

        return self.until(found, f"a line with {text!r}")[-1]

    def until(self, condition: Callable[[], T], what: str, timeout_s: float = DEADLINE_S) -> T:
        """As the function, but a failure shows what the supervisor wrote."""
        try:
            return until(condition, what, timeout_s)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.lines])) from None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Its exit code."""
        readable, _, _ = select.select([self.pidfd], [], [], timeout_s)
        assert readable, f"still runs after {timeout_s} s: {self.lines}"
        return self.process.wait()

    def stop(self) -> int:
        """TERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End what is left; the tests have looked before."""
        self.process.kill()
        self.process.wait()
        os.close(self.pidfd)
        for child in self.children():
            child.kill()
        until(lambda: not self.children(), "no children")
        for entry in [*self.run_dir.glob("*"), *self.directory.glob("*")]:
            if not entry.is_dir():
                entry.unlink()
        if self.run_dir.exists():
            self.run_dir.rmdir()
        self.directory.rmdir()


Start = Callable[..., Running]


def assert_nothing_left(running: Running) -> None:
    """No process of it, no run directory."""
    assert running.children() == []
    assert not running.run_dir.exists()


def ask(address: tuple[str, int]) -> str:
    """The incarnation that takes a connection."""
    with socket.create_connection(address, timeout=DEADLINE_S) as sock:
        return sock.recv(64).decode()


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | str | float | None) else repr(value)
