"""A histogram of durations."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

#: Upper bounds of buckets, in seconds: from a microsecond up.
_BOUNDS = [float(f"{step}e{power}") for power in range(-6, 2) for step in (1, 2.5, 5)]


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
