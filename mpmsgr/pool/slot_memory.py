"""The shared memory of a worker slot, as the I/O process sees it."""

from __future__ import annotations

from collections import deque

from mpmsgr.pool import page, ring
from mpmsgr.pool.layout import SlotLayout
from mpmsgr.pool.mapping import Mapping


class _Referred:
    """A slot of the worker's arena that views here refer to; told: how often the worker told us."""

    __slots__ = ("length", "told", "views")

    def __init__(self, length: int) -> None:
        self.length = length
        self.told = self.views = 0


class SlotMemory:
    """*fd* is the slot's memfd in *layout*; it may be closed afterwards.

    freed: offsets of slots that are not referred to any more, for the worker; page: its counters.
    """

    def __init__(self, fd: int, layout: SlotLayout) -> None:
        self.freed: list[int] = []
        self.page = page.Page(Mapping(fd, page.SIZE, writable=True).raw(0, page.SIZE))
        self._cells = self.page.cells
        self._egress = Mapping(fd, layout.egress_bytes, offset=layout.egress)
        size = layout.ring_bytes
        to_worker = Mapping(fd, size, offset=layout.to_worker, writable=True)
        to_io = Mapping(fd, size, offset=layout.to_io, writable=True)  # the reader's position
        self._to_worker, self._to_io = to_worker.raw(0, size), to_io.raw(0, size)
        self._referred: dict[int, _Referred] = {}
        self._ended: deque[int] = deque()

    def ready(self) -> tuple[memoryview, memoryview]:
        """A worker says READY: fresh rings, ours to it, and its to us."""
        ring.reset(self._to_worker)  # the other one was reset by its writer, before it said so
        self.collect()
        self.freed.clear()
        for referred in self._referred.values():
            referred.told = 1  # by `occupied`
        return self._to_worker, self._to_io

    @property
    def arena_bytes(self) -> int:
        """Size of the worker's arena."""
        return self._egress.size

    @property
    def occupied(self) -> list[tuple[int, int]]:
        """(offset, length) of the slots that are still referred to."""
        return [(start, referred.length) for start, referred in sorted(self._referred.items())]

    def view(self, offset: int, length: int, start: int, slot_length: int) -> memoryview:
        """What the worker told us of. Raises ValueError where that is outside of its arena."""
        view = self._egress.lease(offset, length, lambda _: self._ended.append(start))
        referred = self._referred.get(start)
        if referred is None:
            referred = self._referred[start] = _Referred(slot_length)
        referred.views += 1
        referred.told += 1
        return view

    def collect(self) -> None:
        """Note which views have gone."""
        while self._ended:
            start = self._ended.popleft()
            referred = self._referred[start]
            referred.views -= 1
            if not referred.views:
                del self._referred[start]
                self.freed += [start] * referred.told

    @property
    def begun(self) -> int:
        """Number of the item that the worker began last."""
        return self._cells[page.BEGUN]

    def ask_back(self, epoch: int) -> None:
        """Have the worker begin nothing more, until RECALLED with *epoch*."""
        self._cells[page.RECALL] = epoch
