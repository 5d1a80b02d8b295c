"""What a worker holds and has no work with: its asynchronous items that go on, and what is behind
them in their lanes.
"""

from __future__ import annotations

from mpmsgr.dispatch.serial import RUNNING, Serial
from mpmsgr.pool.outlet import Outlet
from mpmsgr.wire.message import Message


class Waiting:
    """count, nbytes: of these items; told: both, as the I/O process knows them.

    A lane with items behind an asynchronous one is *parked*: the I/O process is told, and hands out
    nothing more of it until there are none.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self.told = (0, 0)
        self._bytes: dict[int, int] = {}  # by number
        self._parked: dict[Serial, Outlet] = {}

    @property
    def count(self) -> int:
        """Items that wait."""
        return len(self._bytes)

    def add(self, number: int, item: Message | str) -> None:
        """*item* waits from now on."""
        raw = item.raw if isinstance(item, Message) else None
        nbytes = self._bytes[number] = len(raw or b"")
        self.nbytes += nbytes

    def end(self, number: int) -> None:
        """It does so no more."""
        self.nbytes -= self._bytes.pop(number, 0)

    def park(self, lane: Serial, outlet: Outlet) -> bool:
        """More came behind what runs in *lane*, if that goes on. Is that new of the lane?"""
        if lane.blocked != RUNNING:
            return False
        for _, item, number in reversed(lane.waiting):
            if number in self._bytes:
                break
            if number:
                self.add(number, item)
        is_new = lane not in self._parked
        self._parked[lane] = outlet
        return is_new

    def unpark(self, lane: Serial) -> Outlet | None:
        """Nothing is behind what runs in *lane*. If it was parked: who is to say so."""
        return self._parked.pop(lane, None)

    def drop(self, lane: Serial) -> None:
        """What waits in *lane* is void."""
        for _, _, number in lane.waiting:
            self.end(number)

    def clear(self) -> None:
        """There is nobody to be told."""
        self._bytes.clear()
        self._parked.clear()
        self.nbytes = 0
