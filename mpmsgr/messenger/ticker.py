"""Calls for functions with @every, at their times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping


class Ticker:
    """*tick(name)* every so many seconds, on the running loop."""

    def __init__(self, tick: Callable[[str], object]) -> None:
        self._tick = tick
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._seconds: dict[str, float] = {}

    def set(self, seconds: Mapping[str, float]) -> None:
        """Names and their seconds from now on; what goes on as before keeps its time."""
        for name in list(self._seconds):
            if seconds.get(name) != self._seconds[name]:
                self._timers.pop(name).cancel()
                del self._seconds[name]
        for name, period in seconds.items():
            if name not in self._seconds:
                self._seconds[name] = period
                self._arm(name, self._loop.time() + period)

    def _arm(self, name: str, at: float) -> None:
        self._timers[name] = self._loop.call_at(at, self._due, name, at)

    def _due(self, name: str, at: float) -> None:
        # From the time it was due, but not to catch up with what was missed.
        self._arm(name, max(at, self._loop.time() - self._seconds[name]) + self._seconds[name])
        self._tick(name)

    def close(self) -> None:
        """No more calls."""
        self.set({})
