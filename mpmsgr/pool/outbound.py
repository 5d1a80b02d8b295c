"""A worker's next batch: what its connections and lanes have to say, and acts, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mpmsgr.pool.outlet import Outlet


class Outbound:
    """Collects records until `flush` gives them to *send*.

    working: a batch is being worked on, whose end flushes; else a flush comes by itself.
    """

    def __init__(self, send: Callable[[list[Any]], None]) -> None:
        self.working = False
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Outlet] = []
        self._records: list[Any] = []
        self._scheduled = False

    def has_output(self, outlet: Outlet) -> None:
        """*outlet* has something for the next batch."""
        outlet.dirty = True
        self._dirty.append(outlet)
        if not self.working and not self._scheduled:
            self._schedule()

    def act(self, record: list[Any]) -> None:
        """Add *record*, behind all that was there before."""
        self._cut()
        self._records.append(record)
        if not self.working and not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()

    def _cut(self) -> None:
        if self._dirty:
            self._records += [outlet.take_record() for outlet in self._dirty]
            self._dirty.clear()

    def flush(self) -> None:
        """Send what there is."""
        self._cut()
        if self._records:
            records, self._records = self._records, []
            self._send(records)

    def discard(self) -> None:
        """Forget it all: nobody is there to take it."""
        for outlet in self._dirty:
            outlet.take_record()
        self._dirty.clear()
        self._records.clear()
