"""Served with the modules under test: holds handlers back while a test wants to meet one.

A file in the directory of the environment's `GATE_ENV`, named after a message type, is a gate that
is shut: messages of the type wait before their handlers, each in the worker that runs it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.wire.message import Message

GATE_ENV = "MPMSGR_TEST_GATE"
_POLL_S = 0.005


def gate(directory: Path, type_: int) -> Path:
    """The file that holds back messages of *type_*."""
    return directory / f"{type_:#x}"


class Gate(Dispatcher):
    """Asked first; takes nothing."""

    order = -(1 << 31)

    def __init__(self) -> None:
        self._directory = Path(os.environ[GATE_ENV])

    def dispatch(self, con: Connection, m: Message) -> bool:
        """Pass *m* on, now or as soon as it may."""
        path = gate(self._directory, m.type)
        while path.exists():
            time.sleep(_POLL_S)
        return False
