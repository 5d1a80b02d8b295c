"""A server whose terminal is closed: one that was in front there stops, others take HUP as ever."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.loopback import ANY_PORT
from tests.processes.marked import marked, with_argument
from tests.support import eventually
from tests.terminal import Terminal

MARK = "MPMSGR_TEST_TERMINAL"
DEADLINE_S = 20.0
PLUGIN = "from mpmsgr import handles\n@handles(0x8001)\ndef f(con, m): ...\n"
SERVE = f"{sys.executable} -m mpmsgr serve --workers 1 --run-dir run --bind {ANY_PORT} plain"


class Window:
    """A terminal, and the server that is started in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.run_dir = folder / "run"
        (folder / "plain.py").write_text(PLUGIN)
        environ = {k: v for k, v in os.environ.items() if not k.startswith("MPMSGR_")}
        self.terminal = Terminal(folder, {**environ, MARK: str(folder)})

    def type(self, line: str) -> None:
        """Type *line*, which starts a server that logs to ``said``; returns when it is ready."""
        self.terminal.type(f"{line}\n")
        eventually(lambda: "ready on" in self.said + self.terminal.printed, DEADLINE_S, "ready")

    @property
    def said(self) -> str:
        """What the server wrote."""
        file = self._folder / "said"
        return file.read_text() if file.exists() else ""

    def until(self, text: str) -> None:
        """The server has said *text*."""
        eventually(lambda: text in self.said, DEADLINE_S, text)

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        os.kill(with_argument("serve", self.processes())[0], number)

    def processes(self) -> list[psutil.Process]:
        """The shell, the server, its children."""
        return marked(MARK, str(self._folder), but=os.getpid())

    def wait_end(self) -> None:
        """Nobody is left."""
        eventually(lambda: not self.processes(), DEADLINE_S, f"all end: {self.said}")

    def close(self) -> None:
        """Kill what is left."""
        self.terminal.close()
        for process in self.processes():
            process.kill()
        self.wait_end()


@pytest.fixture
def window() -> Iterator[Window]:
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as folder:
        window = Window(Path(folder))
        yield window
        window.close()


def test_in_the_foreground_it_stops_when_the_terminal_is_closed(window: Window) -> None:
    window.type(f"{SERVE} 2>said")
    window.signal(signal.SIGHUP)
    window.until("reloaded")
    assert "terminal is gone" not in window.said
    window.terminal.hang_up()
    window.wait_end()
    assert "stopping: the terminal is gone" in window.said
    assert window.said.count("reloading") == 1
    assert not window.run_dir.exists(), "it was stopped in order"


def test_it_stops_as_well_if_its_lines_went_to_the_terminal(window: Window) -> None:
    window.type(f"exec {SERVE} --log-file said --log-level debug")
    window.terminal.hang_up()
    window.wait_end()
    assert "stopping: the terminal is gone" in window.said
    assert not window.run_dir.exists()


@pytest.mark.parametrize("line", [f"nohup {SERVE} 2>said", f"{SERVE} 2>said &"])
def test_who_was_to_stay_reloads(window: Window, line: str) -> None:
    window.type(line)
    window.terminal.hang_up()
    window.signal(signal.SIGHUP)
    window.until("reloaded")
    assert "terminal is gone" not in window.said
    window.signal(signal.SIGTERM)
    window.wait_end()
