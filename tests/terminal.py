"""A shell in a terminal, for tests that type what a page of the docs says."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path

import psutil

#: The screen that full-screen programs have for themselves, and leave nothing of.
_OTHER_SCREEN = re.compile(r"\x1b\[\?1049h.*?\x1b\[\?1049l", re.DOTALL)
#: Colours, moves of the cursor, titles, what readline says of pasting.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*\x07|[=>])")
INTERRUPT = "\x03"


class Terminal:
    """``/bin/sh`` at a terminal of 80 columns, its prompt is "$ ". What is typed is echoed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._screen, keyboard = os.openpty()
        fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self._shell = subprocess.Popen(
            ["/bin/sh", "-i"],
            cwd=folder,
            env={**environment, "PS1": "$ ", "TERM": "xterm"},
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(keyboard)
        self._raw = b""
        self._taken = 0

    @property
    def printed(self) -> str:
        """What there is to read and nobody has taken yet."""
        while select.select([self._screen], [], [], 0)[0]:
            try:
                self._raw += os.read(self._screen, 1 << 16)
            except OSError:  # nobody has it open any more
                break
        text = _OTHER_SCREEN.sub("", self._raw.decode(errors="replace"))
        lines = _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
        return "\n".join(map(_overprinted, lines))[self._taken :]

    def take(self, count: int) -> None:
        """So many characters of it are read."""
        self._taken += count

    def type(self, keys: str) -> None:
        """Press them."""
        os.write(self._screen, keys.encode())

    def hang_up(self) -> None:
        """The window is closed. The shell ends by that; returns when it has."""
        os.close(self._screen)
        self._screen = -1
        self._shell.wait(timeout=20)

    def close(self) -> None:
        """Kill the shell and whoever runs in it."""
        if self._screen < 0:
            return
        family = psutil.Process(self._shell.pid).children(recursive=True)
        for process in family:
            process.kill()
        self._shell.kill()
        self._shell.wait()
        psutil.wait_procs(family, timeout=5)
        os.close(self._screen)


def _take_terminal() -> None:
    """In the child: Ctrl-C is a signal to it, also where who runs the tests has it ignored."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _overprinted(line: str) -> str:
    """What stays visible of one that was begun anew, as progress bars do."""
    *before, last = line.split("\r")
    for text in reversed(before):
        last += text[len(last) :]
    return last.rstrip(" ") if before else last
