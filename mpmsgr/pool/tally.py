"""What workers have done altogether, counted by frames."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from mpmsgr.pool.seat import Seat

#: Upper bounds of buckets, in seconds.
_BOUNDS = [step * 10.0**power for power in range(-5, 2) for step in (1, 2.5, 5)]


class Histogram:
    """Counts of durations, in seconds, by bucket; the last one is for what is above all bounds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.sum += seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain values: le, the bounds; counts; sum."""
        return {"le": _BOUNDS, "counts": list(self.counts), "sum": self.sum}


class Tally:
    """handled: messages and events; busy_us: of workers' time in handlers that do not wait;
    completed_at: when a worker last completed anything, or when this began; redelivered: what dead
    workers held and is handed out again.

    stages: of one message per worker and tenth of a second at most. *worker*: from when it was
    handed out until it was known to be done; *handler*: the mean of those in its frame.
    """

    def __init__(self, now: float) -> None:
        self.handled = self.busy_us = self.redelivered = 0
        self.completed_at = now
        self.stages = {"worker": Histogram(), "handler": Histogram()}

    def frame(self, seat: Seat, count: int, busy_us: int, now: float) -> None:
        """The worker of *seat* says that it has completed *count* items, in *busy_us*."""
        seat.heard_at = now
        seat.busy_us += busy_us
        self.handled += count
        self.busy_us += busy_us
        if count:
            self.completed_at = now
        took = seat.ages.took(now)
        if took is not None:
            self.stages["worker"].add(took)
            self.stages["handler"].add(busy_us / max(count, 1) / 1e6)
