"""The shared memory that a worker sees: its slot's, and the I/O process's ingress arena."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeGuard

from mpmsgr.pool import ring
from mpmsgr.pool.egress import Egress
from mpmsgr.pool.envelope import EGRESS, INGRESS
from mpmsgr.pool.layout import SlotLayout
from mpmsgr.pool.mapping import Mapping
from mpmsgr.pool.page import SIZE, Page
from mpmsgr.pool.ringed import Ringed
from mpmsgr.wire.crc import Bytes

#: Ended views wait so long for a batch to travel with, in seconds.
_TELL_S = 0.005


class WorkerMemory:
    """*slot_fd* is the slot's memfd in *layout*; threshold: bytes above which data lies in arenas.

    The descriptors are not needed afterwards. on_ended: called some time after views of the ingress
    arena have gone, where nobody took them (`take_ended`) by then; tells_soon: somebody will, see
    `told`.
    """

    def __init__(self, slot_fd: int, layout: SlotLayout, threshold: int) -> None:
        self.threshold = threshold
        self.page = Page(Mapping(slot_fd, SIZE, writable=True).raw(0, SIZE))
        self.on_ended: Callable[[], None] = lambda: None
        self._ended: deque[int] = deque()  # offsets
        self.tells_soon = self._due = False
        self._loop = asyncio.get_running_loop()
        self._egress = Egress(
            Mapping(slot_fd, layout.egress_bytes, offset=layout.egress, writable=True)
        )
        self._to_io = _ring(slot_fd, layout.to_io, layout.ring_bytes)
        self._to_worker = _ring(slot_fd, layout.to_worker, layout.ring_bytes)
        self._ingress: Mapping | None = None

    def link(self, ingress_fd: int, ingress_bytes: int) -> Ringed:
        """A new I/O process with an arena of its own. What came from the earlier one stays."""
        self._ingress = Mapping(ingress_fd, ingress_bytes)
        self._ended = deque()  # views of the earlier arena go on adding to theirs
        ring.reset(self._to_io)  # the one to us is reset by its writer, who starts at our READY
        return Ringed(self._to_io, self._to_worker)

    def welcome(self, occupied: list[tuple[int, int]]) -> None:
        """The I/O process knows us, and refers to *occupied* of an earlier generation."""
        self._egress.open([(start, length) for start, length in occupied])

    def freed(self, starts: list[int]) -> None:
        """It refers to slots no more."""
        self._egress.freed(starts)

    def lease(self, offset: int, length: int) -> memoryview:
        """What came in the ingress arena."""
        assert self._ingress is not None
        ended = self._ended

        def view_ended(offset: int) -> None:  # in any thread, and inside of the collector
            ended.append(offset)
            if not (self.tells_soon or self._due):
                self._tell_later()

        return self._ingress.lease(offset, length, view_ended)

    def skip(self, offset: int) -> None:
        """What came there was never looked at."""
        self.lease(offset, 0)

    def take_ended(self) -> list[int]:
        """Offsets of views of the ingress arena that have gone."""
        ended = self._ended
        return [ended.popleft() for _ in range(len(ended))]

    def told(self) -> None:
        """It has been told, but for what has gone since."""
        self.tells_soon = False
        if self._ended and not self._due:
            self._tell_later()

    def _tell_later(self) -> None:
        self._due = True
        self._loop.call_soon_threadsafe(self._loop.call_later, _TELL_S, self._tell)

    def _tell(self) -> None:
        self._due = False
        if self._ended:
            self.on_ended()

    def allocate(self, nbytes: int) -> memoryview | None:
        """See `Egress.allocate`."""
        return self._egress.allocate(nbytes)

    @property
    def used(self) -> int:
        """Bytes of the worker's arena in use, as far as it was told what is not."""
        return self._egress.used

    def settle(self, data: Bytes) -> Bytes:
        """*data*, or a copy, that nobody will write to: in an arena, if there is room."""
        assert self._ingress is not None
        if type(data) is not bytes:
            view = data if _is_of_bytes(data) else memoryview(data).cast("B")
            if self._ingress.offset_of(view) is not None:
                return data
            frozen = self._egress.freeze(view)
            if frozen is not None:
                return frozen
        return self._egress.store(data) or bytes(data)

    def refer(self, part: Bytes) -> list[Any] | None:
        """What the envelope says instead of *part*; None: it lies in no arena."""
        assert self._ingress is not None
        if type(part) is bytes:
            return None
        offset = self._ingress.offset_of(part)
        if offset is not None:
            return [INGRESS, offset, len(part)]
        place = self._egress.tell(part)
        return None if place is None else [EGRESS, *place]


def _is_of_bytes(data: Bytes) -> TypeGuard[memoryview]:
    """Then it is what `Egress.freeze` has to release, not another view of it."""
    return type(data) is memoryview and data.format == "B" and data.c_contiguous and data.ndim == 1


def _ring(fd: int, offset: int, size: int) -> memoryview:
    return Mapping(fd, size, offset=offset, writable=True).raw(0, size)
