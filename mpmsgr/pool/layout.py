"""Where things are in the memory of a worker slot; the same for all three processes."""

from __future__ import annotations

from dataclasses import dataclass

from mpmsgr.pool import page

PAGE = 4096


@dataclass(frozen=True)
class SlotLayout:
    """One memfd per worker slot; offsets and sizes in bytes, all of them whole pages.

        page                 counters (page.py)
        to_worker            ring, the I/O process writes (ring.py)
        to_io                ring, the worker writes
        egress               arena of the worker (arena.py)

    ring_bytes: size of each ring; egress_bytes: size of the arena. Raises ValueError unless both
    are whole pages and at least one.
    """

    ring_bytes: int
    egress_bytes: int

    def __post_init__(self) -> None:
        for name in ("ring_bytes", "egress_bytes"):
            value = getattr(self, name)
            if value < PAGE or value % PAGE:
                raise ValueError(f"{name} = {value}: whole pages of {PAGE} bytes, at least one")

    @property
    def page(self) -> int:
        """Offset of the counters page, of `page.SIZE` bytes."""
        return 0

    @property
    def to_worker(self) -> int:
        """Offset of the ring to the worker."""
        return page.SIZE

    @property
    def to_io(self) -> int:
        """Offset of the ring to the I/O process."""
        return self.to_worker + self.ring_bytes

    @property
    def egress(self) -> int:
        """Offset of the arena."""
        return self.to_io + self.ring_bytes

    @property
    def size(self) -> int:
        """Of the memfd."""
        return self.egress + self.egress_bytes
