"""Turns of tests that run in several processes at once: some want to be alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, flock
from pathlib import Path


class Turns:
    """One process's view of the turns that are taken in *folder*; close it at the end."""

    def __init__(self, folder: Path) -> None:
        self._door, self._room = (
            os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for name in ("door", "room")
        )

    def close(self) -> None:
        """Take no more turns."""
        os.close(self._door)
        os.close(self._room)

    @contextmanager
    def turn(self, alone: bool) -> Iterator[None]:
        """Waits until nobody is *alone*, or, to be alone, until nobody is there."""
        # Who waits to be alone keeps the door, so that nobody else comes in before.
        flock(self._door, LOCK_EX)
        try:
            flock(self._room, LOCK_EX if alone else LOCK_SH)
        finally:
            flock(self._door, LOCK_UN)
        try:
            yield
        finally:
            flock(self._room, LOCK_UN)
