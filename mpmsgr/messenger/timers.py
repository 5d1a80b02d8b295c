"""Many wake-up times, one timer of the event loop: ten thousand idle sessions need no more."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session

Target = Pipe | Session


class Timers:
    """Calls *fire(target)* when the time it asked for has come.

    A target has one time that counts, its `wake_at`; what it asked for before and gave up stays
    in the heap until then and is passed over.
    """

    def __init__(self, fire: Callable[[Target], None]) -> None:
        self._fire = fire
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Target]] = []
        self._order = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    def add(self, target: Target, at: float) -> None:
        """Wake *target* at *at*, seconds of the loop's clock."""
        heapq.heappush(self._heap, (at, next(self._order), target))
        self._arm()

    def _arm(self) -> None:
        if not self._heap:
            return
        at = self._heap[0][0]
        if self._handle is not None:
            if at >= self._armed_for:
                return
            self._handle.cancel()
        self._armed_for = at
        self._handle = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._handle = None
        # The loop's timers have millisecond resolution and may fire that much early.
        now = max(self._loop.time(), self._armed_for)
        while self._heap and self._heap[0][0] <= now:
            at, _, target = heapq.heappop(self._heap)
            if target.wake_at == at:
                self._fire(target)
        self._arm()

    def close(self) -> None:
        """Wake nobody any more."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
