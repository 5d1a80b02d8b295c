"""Takes back what a worker has not begun, while another one has nothing to do.

A worker in the midst of a long handler cannot answer, so it is not asked: a cell of its counters
page tells it to begin nothing more, and another one how far it got.

    I/O process                                worker, at every item
    RECALL = epoch, frame RECALLED on its way  BEGUN = number of the item
    after _SETTLE_S: read BEGUN                RECALL is not the epoch it knows: do not run it
    take back what is above                    at the frame RECALLED: STOPPED(epoch, first not run)
    at STOPPED: take back the rest, go on

The epoch begins with the worker's generation: one may be stored on the page of its successor.
Each stores first and looks then. _SETTLE_S is ten thousand times what a store takes to be seen by
another core: whatever ran without having seen RECALL had shown its number in BEGUN by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from mpmsgr.dispatch.lanes import Lanes, Worker
from mpmsgr.pool.envelope import RECALLED
from mpmsgr.pool.seat import Seat

_SETTLE_S = 0.001
#: A worker that completes nothing for so long while another one is idle holds too much; seconds.
_STALL_S = 0.005


class Recalls:
    """Looks for workers of *lanes* that hold what others could do; *pump* when there is more."""

    def __init__(
        self, lanes: Lanes[Any], seats: Mapping[Worker, Seat], pump: Callable[[], None]
    ) -> None:
        self.count = 0
        self._lanes = lanes
        self._seats = seats
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Worker, asyncio.TimerHandle] = {}

    def look(self) -> None:
        """Something has changed: is somebody idle beside one who holds more than he does?"""
        for worker in self._lanes.stalled():
            if worker not in self._timers and self._seats[worker].memory is not None:
                timer = self._loop.call_later(_STALL_S, self._stalled, worker, worker.progress)
                self._timers[worker] = timer

    def _stalled(self, worker: Worker, progress: int) -> None:
        del self._timers[worker]
        seat = self._seats.get(worker)
        if seat is None or seat.memory is None or worker not in self._lanes.stalled():
            return
        if worker.progress != progress:
            self.look()
            return
        self.count += 1
        seat.epoch = worker.generation << 32 | self.count
        self._lanes.recall(worker)
        seat.memory.ask_back(seat.epoch)
        seat.tell(RECALLED, seat.epoch)
        self._timers[worker] = self._loop.call_later(_SETTLE_S, self._settled, worker)

    def _settled(self, worker: Worker) -> None:
        del self._timers[worker]
        seat = self._seats.get(worker)
        if seat is None or seat.memory is None or not seat.epoch:
            return  # it is dead, or has answered already
        self._lanes.take_back(worker, seat.memory.begun)
        self._pump()

    def stopped(self, seat: Seat, epoch: int, number: int) -> None:
        """The worker of *seat* ran nothing from *number* on, and waits for more."""
        if epoch == seat.epoch:
            seat.epoch = 0
            self._lanes.resume(seat.worker, number)
            self._pump()

    def lost(self, seat: Seat) -> None:
        """The worker of *seat* is gone."""
        timer = self._timers.pop(seat.worker, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Look no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
