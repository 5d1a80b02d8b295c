"""What workers have done altogether, counted by frames."""

from __future__ import annotations

from mpmsgr.pool.seat import Seat
from mpmsgr.pool.stages import Stages


class Tally:
    """handled: messages and events; failed: those whose handler raised what it should not have;
    busy_us: of workers' time in handlers that do not wait; completed_at: when a worker last
    completed anything, or when this began; redelivered: what dead workers held and is handed out
    again; stages: how long messages took.
    """

    def __init__(self, now: float) -> None:
        self.handled = self.failed = self.busy_us = self.redelivered = 0
        self.completed_at = now
        self.stages = Stages()

    def frame(self, seat: Seat, count: int, busy_us: int, failed: int, now: float) -> None:
        """The worker of *seat* has told that it completed *count* items, in *busy_us*, and that
        *failed* of them did; what they sent is in the outboxes.
        """
        seat.heard_at = now
        seat.busy_us += busy_us
        seat.failed += failed
        self.handled += count
        self.failed += failed
        self.busy_us += busy_us
        if count:
            self.completed_at = now
        self.stages.replied(now)
