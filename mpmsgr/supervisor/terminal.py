"""The terminal a server is started in, and whether it is still there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


def in_foreground() -> bool:
    """Whether we have a terminal and what is typed there is for us, and not for a shell."""
    try:
        with _controlling_terminal() as fd:
            return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def is_gone() -> bool:
    """Whether we have no terminal, or none any more.

    When one hangs up, the kernel takes it from the whole session before it sends HUP. Source:
    tty_signal_session_leader, Linux's drivers/tty/tty_jobctrl.c.
    """
    try:
        with _controlling_terminal():
            return False
    except OSError as exc:
        return exc.errno == errno.ENXIO


@contextmanager
def _controlling_terminal() -> Iterator[int]:
    fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
