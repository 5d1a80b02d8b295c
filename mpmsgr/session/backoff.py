"""Delays between connection attempts (session spec §10, rows 7 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


class Backoff:
    """None after the first failure, then initial_s, doubled up to max_s; anew after a success.

    jitter: spread each delay evenly over (0, delay], so that many clients of one restarted server
    do not come back at the same moment. Sessions keep how far they are, a number each.
    """

    def __init__(self, initial_s: float, max_s: float, rng: Random | None = None) -> None:
        self._initial_s, self._max_s, self._rng = initial_s, max_s, rng

    def after(self, delay: float) -> float:
        """The delay that follows on *delay*; the first one is 0."""
        return min(delay * 2, self._max_s) if delay else self._initial_s

    def spread(self, delay: float) -> float:
        """Seconds to wait where it is the turn of *delay*."""
        return delay * (1.0 - self._rng.random()) if self._rng else delay
