"""The operator's signals as readable bytes: the handler does nothing, the loop reads what came."""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Any

from mpmsgr.supervisor import terminal

SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Signals:
    """While entered, `SIGNALS` arrive at `read` instead of doing what they do to a process.

    Main thread only (ValueError otherwise).
    """

    def __enter__(self) -> Signals:
        """Take the signals over."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers: dict[int, Any] = {n: signal.signal(n, _note) for n in SIGNALS}
        ignored = self._handlers[signal.SIGHUP] is signal.SIG_IGN
        self._ends_with_terminal = terminal.in_foreground() and not ignored
        return self

    def __exit__(self, *exc: object) -> None:
        """Give them back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    @property
    def hung_up(self) -> bool:
        """Whether a HUP says that the terminal is gone which we were started in the foreground of.

        It never does under nohup, which has HUP ignored: whoever says that wants us to stay.
        """
        return self._ends_with_terminal and terminal.is_gone()

    def fileno(self) -> int:
        """The descriptor that is readable when a signal came."""
        return self._reader.fileno()

    def read(self) -> list[int]:
        """The numbers of the signals that came, oldest first."""
        try:
            return list(self._reader.recv(4096))
        except BlockingIOError:
            return []


def _note(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has it already."""
