"""The shared memory of the I/O process: its ingress arena, and that of the worker slots."""

from __future__ import annotations

import os

from mpmsgr.pool.layout import SlotLayout
from mpmsgr.pool.mapping import Mapping
from mpmsgr.pool.slot_memory import SlotMemory


class IoMemory:
    """*ingress_fd* is the memfd of the arena, *arena_bytes* long; layout: of the slots' memfds;
    threshold: messages longer than so many bytes are received there.
    """

    def __init__(
        self, ingress_fd: int, arena_bytes: int, layout: SlotLayout, threshold: int
    ) -> None:
        self.ingress = Mapping(ingress_fd, arena_bytes, writable=True)
        os.close(ingress_fd)
        self.threshold = threshold
        self.slots: dict[int, SlotMemory] = {}
        self._layout = layout

    def add_slot(self, slot: int, fd: int) -> None:
        """The memory of *slot* is the memfd *fd*, which is closed."""
        self.slots[slot] = SlotMemory(fd, self._layout)
        os.close(fd)
