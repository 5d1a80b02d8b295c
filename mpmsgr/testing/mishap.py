"""What is to go wrong: arranged first, seen to happen afterwards."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self


class Mishap:
    """Something that was arranged, and happens when its time comes; `wait` for it.

    As a context manager it is waited for at the end of the block, unless that raises. What nobody
    has waited for is at the end of the test. settled: nobody needs to, any more.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._over = threading.Event()
        self._error: BaseException | None = None
        self.settled = False

    @property
    def happened(self) -> bool:
        """Has it?"""
        return self._over.is_set() and self._error is None

    def wait(self) -> Self:
        """Return when it has happened. Raises AssertionError if it has not *timeout_s* seconds
        after it was arranged.
        """
        self.settled = True
        if not self._over.wait(max(self._deadline - time.monotonic(), 0.0)):
            self._failed(AssertionError(f"{self}: not within {self._timeout_s:g} s, {self.why()}"))
        if self._error is not None:
            raise self._error
        return self

    def why(self) -> str:
        """What is known about its not having happened yet."""
        return "nothing is known"

    def cancel(self) -> None:
        """It is not to happen any more; nobody waits for it."""
        self.settled = True

    def _done(self) -> None:
        self._over.set()

    def _failed(self, error: BaseException) -> None:
        self.cancel()
        if not self._over.is_set():
            self._error = error
            self._over.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        else:
            self.cancel()
