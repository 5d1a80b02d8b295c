"""Stacks, ours and those that a child writes: from a pipe of its own, so that each stays whole.

faulthandler writes a dump in many small pieces. On a stderr that several processes share, pieces of
other dumps and lines of the log would get between them.
"""

from __future__ import annotations

import faulthandler
import os

#: A dump is over when so long nothing followed, in seconds.
QUIET_S = 0.05
#: Handed out in pieces of about so many bytes, if it does not end.
MAX_BYTES = 1 << 20


class Stacks:
    """What one child wrote and nobody has taken yet.

    due_at: when it is to be taken, monotonic seconds; infinite while there is nothing. eof: nothing
    more comes.
    """

    def __init__(self, fd: int) -> None:
        """Take over *fd*, the reading end of a pipe."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._text = bytearray()
        self.due_at = float("inf")
        self.eof = False

    def fileno(self) -> int:
        """The descriptor to watch for reading; -1 once closed."""
        return self._fd

    def read(self, now: float) -> None:
        """Collect what is there."""
        try:
            while len(self._text) < MAX_BYTES:
                piece = os.read(self._fd, 1 << 16)
                if not piece:
                    self.eof = True
                    break
                self._text += piece
        except BlockingIOError:
            pass
        if self._text:
            self.due_at = now if len(self._text) >= MAX_BYTES else now + QUIET_S

    def take(self) -> str:
        """What was collected, without its last line's end."""
        text = self._text.decode(errors="replace").rstrip("\n")
        self._text.clear()
        self.due_at = float("inf")
        return text

    def close(self) -> None:
        """Close the pipe; the child's writing fails from now on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def own_stacks() -> str:
    """Those of this process, or why they are not to be had: out of descriptors."""
    try:
        # In memory: no directory may be left to write in, on a full disk or a read-only root.
        with open(os.memfd_create("stacks"), "w+b") as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            return file.read().decode(errors="replace").rstrip("\n")
    except OSError as exc:
        return f"not to be had: {exc.strerror}"
