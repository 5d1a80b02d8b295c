"""How much a worker may hold: about a millisecond of the handler time that was measured of it.

Less would leave it idle while a batch is on its way, and make the batches of short handlers small;
more would be hoarding, if the next handler should take long.
"""

from __future__ import annotations

#: Handler time that a worker may hold, in microseconds.
WINDOW_US = 1000.0
#: What reading and writing batches takes of the time of a message, and at most what part of it.
_OVERHEAD_US, _OVERHEAD_PART = 3.0, 0.75
#: Before anything was measured, and never less than: one that runs, and one that is there next.
_FIRST, _LEAST = 32, 2
_FIRST_BYTES, _LEAST_BYTES = 1 << 20, 1 << 18
#: Weight of the past in the running means, where a batch took less time than before, and more. What
#: is measured is time by the clock: where cores are short, it is longer than it should be.
_KEEP_FALLING, _KEEP_RISING = 0.7, 0.95


class Credit:
    """The window of one worker: `messages` and `nbytes`, at most *most* messages."""

    __slots__ = ("_us_per_byte", "_us_per_message", "messages", "most", "nbytes")

    def __init__(self, most: int) -> None:
        self.most = most
        self.messages = min(_FIRST, most)
        self.nbytes = _FIRST_BYTES
        self._us_per_message = self._us_per_byte = 0.0

    @property
    def us_per_message(self) -> float:
        """Mean time of the worker for a message, in microseconds; 0 before the first."""
        return self._us_per_message

    def measured(self, count: int, nbytes: int, busy_us: float) -> None:
        """*count* messages of *nbytes* together took *busy_us* of the worker's time."""
        if not count:
            return
        us = self._us_per_message = _mean(self._us_per_message, busy_us / count)
        handler_us = us - min(_OVERHEAD_US, us * _OVERHEAD_PART)
        self.messages = _within(_LEAST, WINDOW_US / handler_us, self.most)
        if nbytes:
            self._us_per_byte = _mean(self._us_per_byte, busy_us / nbytes)
            self.nbytes = max(_LEAST_BYTES, int(WINDOW_US / self._us_per_byte))


def _mean(before: float, now: float) -> float:
    now = max(now, 1e-6)  # a byte takes less than a nanosecond, and never nothing
    keep = _KEEP_FALLING if now < before else _KEEP_RISING
    return before * keep + now * (1 - keep) if before else now


def _within(least: int, value: float, most: int) -> int:
    return min(most, max(least, int(value)))
