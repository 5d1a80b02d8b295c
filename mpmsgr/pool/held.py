"""What waits for the acks that empty a full session's outbox.

Such a session is read on, since those acks are behind its requests. What waits of them has a limit
of its own, and counts for no throttle, so that one peer that reads no replies does not stop all the
others.
"""

from __future__ import annotations

from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.throttles import PER_MESSAGE, Throttles
from mpmsgr.pool.items import SessionLane


class Held:
    """Moves what waits in lanes of full sessions out of the sums of *throttles*, and back."""

    def __init__(self, driver: Driver, throttles: Throttles) -> None:
        self._driver = driver
        self._throttles = throttles

    def add(self, lane: SessionLane, count: int, nbytes: int) -> None:
        """*count* messages more, of *nbytes* together, wait in *lane*: too many, perhaps."""
        lane.held_count += count
        lane.held_bytes += nbytes
        self._throttles.dispatch.current -= nbytes + count * PER_MESSAGE
        self._throttles.gave_back(lane.session, count, nbytes)
        if lane.held_bytes > lane.session.held_limit:
            self._driver.endpoint.overrun(lane.session, self._driver.now())

    def release(self, lane: SessionLane) -> None:
        """What waits in *lane* waits for its turn only."""
        self._throttles.dispatch.current += lane.held_bytes + lane.held_count * PER_MESSAGE
        self._throttles.took(lane.session, lane.held_count, lane.held_bytes)
        lane.held_count = lane.held_bytes = 0
