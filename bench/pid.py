"""A dispatcher module that tells which process runs it: `bench.pid`."""

from __future__ import annotations

import os

from mpmsgr import Connection, Message, handles, message


@message(0x8003)
class Pid:
    """Asks for the process id."""


@handles(Pid)
def pid(con: Connection, m: Message) -> int:
    """Answer with the id of this process."""
    return os.getpid()
