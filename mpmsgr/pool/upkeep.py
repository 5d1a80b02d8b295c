"""What the pool looks after once a second: slow payloads, and leases that workers keep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mpmsgr.dispatch.lanes import Lanes, Worker
from mpmsgr.messenger.driver import Driver
from mpmsgr.pool.ingress import Ingress
from mpmsgr.pool.seat import Seat

log = logging.getLogger("mpmsgr.pool")

_EVERY_S = 1.0


class Upkeep:
    """Looks after an ingress arena and its workers, of *lanes* and *seats*.

    lease_max_age_s: a worker that keeps a lease for longer is recycled, 0 = none is;
    recycle(slot, generation, why): see to that.
    """

    def __init__(
        self,
        lanes: Lanes[Any],
        seats: Mapping[Worker, Seat],
        lease_max_age_s: float,
        recycle: Callable[[int, int, str], None],
    ) -> None:
        self.lease_max_age_s = lease_max_age_s
        self._lanes = lanes
        self._seats = seats
        self._recycle = recycle
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, ingress: Ingress, driver: Driver) -> None:
        """Look from now on, until `close`."""
        self._timer = self._loop.call_later(_EVERY_S, self._look, ingress, driver)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, ingress: Ingress, driver: Driver) -> None:
        self.begin(ingress, driver)
        ingress.collect()
        for pipe, cause in list(ingress.slow()):
            driver.endpoint.pipe_failed(pipe, cause, driver.now())
        driver.run()
        for lease in list(ingress.leases()):
            if 0 < self.lease_max_age_s < lease.age_s:
                self._keeps_too_long(lease.worker, lease.nbytes, lease.age_s)

    def _keeps_too_long(self, slot: int, nbytes: int, age_s: float) -> None:
        worker = self._lanes.workers.get(slot)
        seat = self._seats.get(worker) if worker is not None else None
        if seat is not None and not seat.recycled:
            seat.recycled = True
            why = f"it keeps {nbytes} bytes of shared memory for {age_s:.0f} s"
            log.warning("worker %d is recycled: %s", slot, why)
            self._recycle(slot, seat.worker.generation, why)
