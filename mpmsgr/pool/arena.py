"""The allocator of an arena: which of its bytes are in whose use. Arithmetic only, no memory.

    ingress memfd, one:     +----------------------------------------------------------+
    allocated by the I/O    |  arena: payloads as they come from the peers' sockets    |
    process; workers read   +----------------------------------------------------------+

    egress memfd, one per   +------+----------------+-------------+--------------------+
    worker slot; the worker | page | ring to worker | ring to I/O | arena: large data  |
    allocates, the I/O      |32 KiB|  ring_bytes    | ring_bytes  | of its replies     |
    process reads           +------+----------------+-------------+--------------------+
                            (layout.py; page.py; ring.py; offsets here are within the arena)

Each arena has exactly one allocator, in the process named above. A slot is a run of whole pages.
Its legal states, and who moves it on:

    ingress   FREE ──► LANDING    the I/O process: a header announced a payload; the socket's next
                                  reads go here
              LANDING ──► LEASED  the I/O process: all of it is here and its crc is right; workers
                                  may look at it, and replies not yet acknowledged, or the socket's
                                  write buffer, may refer to it
              LANDING ──► FREE    the I/O process: the connection ended first
              LEASED ──► FREE     the I/O process, once every worker it went to has reported its
                                  last view gone, or has died, and no reply refers to it

    egress    FREE ──► WRITABLE   the worker: ``con.allocate``
              WRITABLE ──► SENT   the worker: frozen from here on; the I/O process refers to it
              WRITABLE ──► FREE   the worker: the last view went and nothing was sent; or it died
              SENT ──► FREE       the worker, once the I/O process has said that nothing refers to
                                  it any more, and the last view of its own went

SENT survives the death of its worker: the I/O process knows these slots, and the `Arena` of the
next generation starts from the list of them (*occupied*).

Best fit, the lowest of equals: the shortest free run that is long enough. Free runs are kept sorted
by length, so allocate + free cost 1.2 to 2.3 us of CPU whatever is free (``python -m
bench.shared_memory``). Address-ordered first fit was tried: 0.8 to 1.7 us with up to 80 free runs,
4.9 us with 400, and where nothing fits it looks at all of them for each payload that waits. It also
packs a little worse: when a payload of 64 to 256 KiB did not fit into 256 MiB, 96 % of them were in
use on average (first fit: 93 %), with payloads of 64 KiB to 4 MiB 89 % (88 %), of 64 KiB to 64 MiB
83 % (83 %). Everything is in whole pages: payloads of a few KiB are not meant for here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

PAGE = 4096

# A free run is one int, its pages above the number of its first page: sorted by length, then place.
_PLACE_BITS = 40
_PLACE = (1 << _PLACE_BITS) - 1


class Arena:
    """*size* bytes, whole pages, of which *occupied*, (offset, length) of slots, are in use.

    Lengths, here and in all answers, are what slots take: asked for, rounded up to whole pages.
    Raises ValueError for a size or an offset within a page, or slots that overlap or do not fit.
    """

    def __init__(self, size: int, occupied: Iterable[tuple[int, int]] = ()) -> None:
        if size < PAGE or size % PAGE:
            raise ValueError(f"an arena of {size} bytes: whole pages of {PAGE}, at least one")
        self.size = size
        self.used = 0
        self._slots: dict[int, int] = {}  # offset: length
        self._runs: list[int] = []
        self._starts: dict[int, int] = {}  # first page of a free run: pages
        self._ends: dict[int, int] = {}  # page after a free run: its first page
        self._occupy(sorted(occupied))

    def _occupy(self, slots: list[tuple[int, int]]) -> None:
        """Note *slots*, in order of offset, and what is free between them."""
        free_from = 0
        for offset, length in slots:
            page, pages = offset // PAGE, _pages(length)
            if offset % PAGE or page < free_from:
                raise ValueError(f"slot at {offset}: within a page, or overlaps the one before")
            self._add_run(free_from, page)
            self._slots[offset] = pages * PAGE
            self.used += pages * PAGE
            free_from = page + pages
        if free_from * PAGE > self.size:
            raise ValueError(f"slots end at {free_from * PAGE} of {self.size} bytes")
        self._add_run(free_from, self.size // PAGE)

    def allocate(self, nbytes: int) -> int | None:
        """Offset of a new slot of at least *nbytes* (1 or more); None if no free run is as long."""
        pages = _pages(nbytes)
        index = bisect_left(self._runs, pages << _PLACE_BITS)
        if index == len(self._runs):
            return None
        page = self._runs.pop(index) & _PLACE
        end = page + self._starts.pop(page)
        del self._ends[end]
        self._add_run(page + pages, end)
        self._slots[page * PAGE] = pages * PAGE
        self.used += pages * PAGE
        return page * PAGE

    def free(self, offset: int) -> int:
        """End the slot at *offset*; returns its length. KeyError if there is no slot."""
        length = self._slots.pop(offset)
        self.used -= length
        page = offset // PAGE
        end = page + length // PAGE
        if end in self._starts:
            end = self._take_run(end)
        if page in self._ends:
            before = self._ends[page]
            self._take_run(before)
            page = before
        self._add_run(page, end)
        return length

    def _add_run(self, page: int, end: int) -> None:
        if page < end:
            self._starts[page] = end - page
            self._ends[end] = page
            insort(self._runs, (end - page) << _PLACE_BITS | page)

    def _take_run(self, page: int) -> int:
        """Forget the free run that starts at *page*; returns its end."""
        pages = self._starts.pop(page)
        del self._ends[page + pages]
        del self._runs[bisect_left(self._runs, pages << _PLACE_BITS | page)]
        return page + pages

    def length_of(self, offset: int) -> int:
        """Length of the slot at *offset*. KeyError if there is none."""
        return self._slots[offset]

    @property
    def free_bytes(self) -> int:
        """Bytes in no slot, in however many pieces."""
        return self.size - self.used

    @property
    def largest(self) -> int:
        """Length of the longest slot that could be allocated now."""
        return (self._runs[-1] >> _PLACE_BITS) * PAGE if self._runs else 0

    @property
    def slots(self) -> int:
        """Slots in use."""
        return len(self._slots)

    @property
    def occupied(self) -> list[tuple[int, int]]:
        """(offset, length) of every slot, sorted: what a next generation starts from."""
        return sorted(self._slots.items())


def _pages(nbytes: int) -> int:
    if nbytes < 1:
        raise ValueError(f"a slot of {nbytes} bytes")
    return (nbytes + PAGE - 1) // PAGE
