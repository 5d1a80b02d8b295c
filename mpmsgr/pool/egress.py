"""A worker's own arena: what large data it sends lies there until nobody refers to it.

The worker allocates (arena.py has the states of a slot); the I/O process says what it does not need
any more.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from mpmsgr.pool.arena import Arena
from mpmsgr.pool.mapping import Mapping
from mpmsgr.wire.crc import Bytes


class Range(NamedTuple):
    """*length* bytes at *offset*, in the slot of *slot_length* bytes at *slot*."""

    offset: int
    length: int
    slot: int
    slot_length: int


class _Slot:
    """views: exporters that live here; told: how often the I/O process was told of it; given: what
    `allocate` returned, while it may be written.
    """

    __slots__ = ("given", "told", "views")

    def __init__(self) -> None:
        self.views = self.told = 0
        self.given: weakref.ref[memoryview] | None = None


class Egress:
    """The arena in *mapping*: of slots that handlers look at, or the I/O process refers to."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._arena = Arena(mapping.size)
        self._slots: dict[int, _Slot] = {}  # by start
        self._starts: list[int] = []  # sorted
        self._ended: deque[int] = deque()  # a view of the slot has gone; filled by any thread

    def open(self, occupied: Collection[tuple[int, int]]) -> None:
        """A new I/O process, or the first: it refers to *occupied* of an earlier generation."""
        self._collect()
        for start in list(self._starts):
            self._untold(start, self._slots[start].told)
        mine = {start: self._arena.length_of(start) for start in self._starts}
        self._arena = Arena(self._mapping.size, [*occupied, *mine.items()])
        for start, _ in occupied:
            self._add(start).told = 1

    def allocate(self, nbytes: int) -> memoryview | None:
        """A writable view of a new slot; None if there is no room."""
        start = self._new(nbytes)
        if start is None:
            return None
        view = self._view(start, start, nbytes, writable=True)
        self._slots[start].given = weakref.ref(view)
        return view

    def store(self, data: Bytes) -> memoryview | None:
        """A read-only view of a copy of *data*; None if there is no room."""
        nbytes = len(data)
        start = self._new(nbytes)
        if start is None:
            return None
        self._mapping.raw(start, nbytes)[:] = data
        return self._view(start, start, nbytes)

    def freeze(self, data: memoryview) -> Bytes | None:
        """A read-only view of *data*, which lies here and can be written to no more; else None.

        *data* and what `allocate` gave are released, unless it was frozen before. Where other views
        are left, such as an array made of it, somebody could go on writing: then it is a copy.
        """
        offset, length = self._mapping.offset_of(data), len(data)
        start = None if offset is None else self._slot_of(offset)
        if offset is None or start is None:
            return None
        slot = self._slots[start]
        if slot.given is None:
            return data
        given = slot.given()
        frozen = self._view(start, offset, length)
        with suppress(BufferError):  # an array, or the like, looks at it
            data.release()
        with suppress(BufferError):
            if given is not None:
                given.release()
        self._collect()
        if slot.views == 1:
            slot.given = None
            return frozen
        return self.store(frozen) or bytes(frozen)

    def tell(self, part: Bytes) -> Range | None:
        """Where *part* lies, for the I/O process, which refers to it from now on; None: not here.

        What can still be written to is not told.
        """
        offset = self._mapping.offset_of(part)
        start = None if offset is None else self._slot_of(offset)
        if offset is None or start is None or self._slots[start].given is not None:
            return None
        self._slots[start].told += 1
        return Range(offset, len(part), start, self._arena.length_of(start))

    def freed(self, starts: Iterable[int]) -> None:
        """The I/O process refers to the slots at *starts* no more; once for each time it was told
        of one.
        """
        for start in starts:
            if start in self._slots:
                self._untold(start, 1)

    @property
    def used(self) -> int:
        """Bytes in use."""
        self._collect()
        return self._arena.used

    # slots

    def _new(self, nbytes: int) -> int | None:
        self._collect()
        start = self._arena.allocate(nbytes)
        if start is not None:
            self._add(start)
        return start

    def _add(self, start: int) -> _Slot:
        slot = self._slots[start] = _Slot()
        insort(self._starts, start)
        return slot

    def _slot_of(self, offset: int) -> int | None:
        """Start of the slot that *offset* lies in."""
        at = bisect_right(self._starts, offset) - 1
        if at < 0:
            return None
        start = self._starts[at]
        return start if offset < start + self._arena.length_of(start) else None

    def _view(self, start: int, offset: int, length: int, *, writable: bool = False) -> memoryview:
        self._slots[start].views += 1
        view = self._mapping.lease(offset, length, self._ended.append, writable=writable)
        return view

    def _untold(self, start: int, times: int) -> None:
        slot = self._slots[start]
        slot.told -= times
        self._free_if_unused(start, slot)

    def _collect(self) -> None:
        """Note the views that have gone."""
        while self._ended:
            start = self._slot_of(self._ended.popleft())
            assert start is not None
            slot = self._slots[start]
            slot.views -= 1
            self._free_if_unused(start, slot)

    def _free_if_unused(self, start: int, slot: _Slot) -> None:
        if not slot.views and not slot.told:
            self._arena.free(start)
            del self._slots[start]
            self._starts.remove(start)
