"""What collects in a worker for its next batch: of a connection, or of another lane."""

from __future__ import annotations

from typing import Any

from mpmsgr.dispatch.serial import Serial
from mpmsgr.pool.envelope import POISON, TIMES


class Outlet:
    """id: of the connection or lane; incarnation: of the I/O process that told of it; completed:
    items since the last batch; out: head, body, head, body ... of parcels; dirty: it waits to be
    taken.
    """

    def __init__(self, id_: int, incarnation: int) -> None:
        self.id, self.incarnation = id_, incarnation
        self.completed = 0
        self.out: list[Any] = []
        self.dirty = False
        self._more: dict[int, Any] | None = None

    def note(self, what: int, value: Any) -> None:
        """Say *value* with the record (see envelope.py)."""
        if self._more is None:
            self._more = {}
        self._more[what] = value

    def note_poison(self, reason: str) -> None:
        """The item that completes next belongs in quarantine."""
        self._note_of_next(POISON, reason)

    def note_times(self, begun: int, completed: int) -> None:
        """When the item that completes next began, and completed: CLOCK_MONOTONIC in ns."""
        self._note_of_next(TIMES, begun, completed)

    def _note_of_next(self, what: int, *values: Any) -> None:
        noted = (self._more or {}).get(what, [])
        self.note(what, [*noted, [self.completed, *values]])

    def take_record(self) -> list[Any]:
        """What happened since the last batch."""
        record: list[Any] = [self.id, self.completed, self.out]
        if self._more is not None:
            record.append(self._more)
            self._more = None
        self.completed, self.out, self.dirty = 0, [], False
        return record


class LaneOutlet(Serial, Outlet):
    """A lane that is not a connection's."""

    def __init__(self, id_: int, incarnation: int) -> None:
        Serial.__init__(self, id_)
        Outlet.__init__(self, id_, incarnation)
