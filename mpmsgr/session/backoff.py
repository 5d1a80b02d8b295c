"""Delays between connection attempts (session spec §10, rows 7 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


class Backoff:
    """0 for the first failure, then initial_s, doubled up to max_s; `reset` after a success.

    jitter: spread each delay evenly over (0, delay], so that many clients of one restarted server
    do not come back at the same moment.
    """

    __slots__ = ("_initial_s", "_max_s", "_next_s", "_rng")

    def __init__(self, initial_s: float, max_s: float, rng: Random | None = None) -> None:
        self._initial_s, self._max_s, self._rng = initial_s, max_s, rng
        self._next_s = 0.0

    def reset(self) -> None:
        """The session works again."""
        self._next_s = 0.0

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = self._next_s
        self._next_s = min(delay * 2, self._max_s) if delay else self._initial_s
        return delay * (1.0 - self._rng.random()) if self._rng else delay
