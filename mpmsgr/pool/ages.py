"""When a worker was given what it holds: not of each message, which would cost too much."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpmsgr.dispatch.lanes import Lane

#: Marks are at least so far apart, in seconds, and so many are kept: an age is up to so much too
#: high, and one of a minute and more may be too low.
_APART_S, _KEPT = 0.1, 600


class Ages:
    """Of the items of one worker. Times are seconds of the caller's clock.

    One of them at a time, the first after a mark, is watched until it is done.
    """

    __slots__ = ("_at", "_marks", "_watched")

    def __init__(self) -> None:
        self._at = float("-inf")
        self._marks: deque[tuple[int, float]] = deque(maxlen=_KEPT)  # number, since when
        self._watched: tuple[Lane[Any], int, float] | None = None

    def given(self, lane: Lane[Any], number: int, now: float) -> None:
        """Item *number* is the first one, of *lane*, in a frame that leaves *now*."""
        if now - self._at < _APART_S:
            return
        self._at = now
        self._marks.append((number, now))
        if self._watched is None:
            self._watched = lane, number, now

    def taken_back(self) -> None:
        """Some of the items are not the worker's any more: nobody knows what is done."""
        self._watched = None

    def took(self, now: float) -> float | None:
        """How long the item that is watched took, if it is done by now: asked at each frame."""
        if self._watched is None:
            return None
        lane, number, at = self._watched
        if lane.numbers and lane.numbers[0] <= number:
            return None
        self._watched = None
        return now - at

    def of(self, number: int, now: float) -> float:
        """How long the worker has had item *number*."""
        since = now
        for first, at in reversed(self._marks):
            since = at
            if first <= number:
                break
        return now - since
