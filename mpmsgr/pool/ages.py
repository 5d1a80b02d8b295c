"""When a worker was given what it holds: not of each message, which would cost too much."""

from __future__ import annotations

from collections import deque

#: Marks are at least so far apart, in seconds, and so many are kept: an age is up to so much too
#: high, and one of a minute and more may be too low.
_APART_S, _KEPT = 0.1, 600


class Ages:
    """Of the items of one worker. Times are seconds of the caller's clock."""

    __slots__ = ("_at", "_marks")

    def __init__(self) -> None:
        self._at = float("-inf")
        self._marks: deque[tuple[int, float]] = deque(maxlen=_KEPT)  # number, since when

    def given(self, number: int, now: float) -> None:
        """Item *number* is the first one in a frame that leaves *now*."""
        if now - self._at >= _APART_S:
            self._at = now
            self._marks.append((number, now))

    def of(self, number: int, now: float) -> float:
        """How long the worker has had item *number*."""
        since = now
        for first, at in reversed(self._marks):
            since = at
            if first <= number:
                break
        return now - since
