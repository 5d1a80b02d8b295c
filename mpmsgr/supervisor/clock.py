"""The clock of one decision."""

from __future__ import annotations


class Clock:
    """The time of a decision, and the earliest later time one of its rules asked about."""

    def __init__(self, now: float) -> None:
        """Stand at *now*."""
        self.now = now
        self.next = float("inf")

    def reached(self, at: float) -> bool:
        """Whether it is *at* or later; if not, the decision is made again then."""
        if self.now >= at:
            return True
        self.next = min(self.next, at)
        return False
