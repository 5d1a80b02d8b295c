"""A worker's seat in the I/O process: what is to be sent to it, and the memory shared with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmsgr.dispatch.lanes import Worker
from mpmsgr.pool.ages import Ages
from mpmsgr.pool.envelope import ANSWERS, FREED, PUSHED, identity
from mpmsgr.pool.items import as_wire
from mpmsgr.pool.ringed import Ringed
from mpmsgr.pool.slot_memory import SlotMemory


class Seat:
    """records, more: of the next frame (envelope.py); due: it is on its way; dated: the first item
    in it is noted in ages; epoch: of the recall that is going on, 0 = none; heard_at: when the
    worker last told what it had done; busy_us: of its time in handlers, failed: how many of these
    did, as it told; recycled: the worker is to be replaced.
    """

    __slots__ = (
        "_wants",
        "ages",
        "busy_us",
        "dated",
        "due",
        "epoch",
        "failed",
        "heard_at",
        "memory",
        "more",
        "name",
        "records",
        "recycled",
        "ringed",
        "worker",
    )

    def __init__(
        self, worker: Worker, memory: SlotMemory | None, wants: Callable[[Seat], None]
    ) -> None:
        self.worker = worker
        self.memory = memory
        ours, theirs = memory.ready() if memory is not None else (None, None)
        self.ringed = Ringed(ours, theirs, as_wire)
        self.name = identity(worker.slot, worker.generation)
        self.records: list[Any] = []
        self.more: dict[str, Any] | None = None
        self.due = self.dated = self.recycled = False
        self.epoch = 0
        self.ages = Ages()
        self.busy_us = self.failed = 0
        self.heard_at = 0.0
        self._wants = wants

    def add(self, record: Any) -> None:
        """One more record."""
        self.records.append(record)
        if not self.due:
            self.due = True
            self._wants(self)

    def tell(self, what: str, value: Any) -> None:
        """Say *value* beside the records."""
        self.more = self.more or {}
        self.more[what] = value
        if not self.due:
            self.due = True
            self._wants(self)

    def answer(self, answer: Any) -> None:
        """One more of the ANSWERS."""
        self._tell_also(ANSWERS, answer)

    def pushed(self, answer: Any) -> None:
        """One more of those to pushes (PUSHED)."""
        self._tell_also(PUSHED, answer)

    def _tell_also(self, what: str, value: Any) -> None:
        values = (self.more or {}).get(what, [])
        values.append(value)
        self.tell(what, values)

    def take(self, incarnation: int) -> bytes:
        """The frame."""
        if self.memory is not None:
            self.memory.collect()
            if self.memory.freed:
                self.tell(FREED, self.memory.freed)
                self.memory.freed = []
        frame = self.ringed.pack((incarnation, self.records, self.more))
        self.records, self.more, self.due, self.dated = [], None, False, False
        return frame
