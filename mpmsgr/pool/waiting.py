"""What a worker holds and has no work with: its asynchronous items that go on, and what is behind
them in their lanes.
"""

from __future__ import annotations

from mpmsgr.dispatch.serial import RUNNING, Serial
from mpmsgr.pool.outlet import Outlet
from mpmsgr.wire.message import Message

#: Behind an asynchronous item a lane has about so many more at the worker, or this part of what the
#: worker may hold, if that is less.
_BEHIND, _PART = 32, 4


class Waiting:
    """count, nbytes: of these items; told: both, as the I/O process knows them.

    A lane with much behind an asynchronous item is *parked*: the I/O process is told, and hands out
    nothing more of it. It is parked no more when half of that is left: as many are there while the
    next ones are on their way, so that the lane need not stand still, nor move.
    """

    def __init__(self, credit: int) -> None:
        """*credit*: messages the worker may hold."""
        self._park_above = max(1, min(_BEHIND, credit // _PART))
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
        """More came behind what runs in *lane*, if that goes on. Is the lane to be parked now?"""
        if lane.blocked != RUNNING:
            return False
        for _, item, number in reversed(lane.waiting):
            if number in self._bytes:
                break
            if number:
                self.add(number, item)
        if len(lane.waiting) <= self._park_above or lane in self._parked:
            return False
        self._parked[lane] = outlet
        return True

    def unpark(self, lane: Serial) -> Outlet | None:
        """Less is behind what runs in *lane*. If it is to be parked no more: who is to say so."""
        few = len(lane.waiting) <= self._park_above // 2
        return self._parked.pop(lane, None) if few else None

    def drop(self, lane: Serial) -> None:
        """What waits in *lane* is void."""
        for _, _, number in lane.waiting:
            self.end(number)

    def clear(self) -> None:
        """There is nobody to be told."""
        self._bytes.clear()
        self._parked.clear()
        self.nbytes = 0
