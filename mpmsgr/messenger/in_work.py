"""What local dispatchers have in work, as far as it decides which sessions are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mpmsgr.dispatch.serial import HELD
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.sink import HEAP
from mpmsgr.messenger.throttles import PER_MESSAGE, Throttles
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.message import Message


class InWork:
    """Messages that were received and are not handled, at most *dispatch_bytes* (0 = no limit).

    Those that wait because their session is full are none of them: it is read on for its acks. So
    is a session that owes us a reply, with at most `held_limit` bytes of it in work.
    """

    def __init__(self, dispatch_bytes: int) -> None:
        self.throttles = Throttles(dispatch_bytes, lambda pipe, size, lead: HEAP)
        self._sizes: dict[Message, tuple[Session, int]] = {}
        self._bytes: Counter[Session] = Counter()

    def add(self, con: MessengerConnection, m: Message) -> None:
        """*m* is in work."""
        session, size = con.session, m.size
        self._sizes[m] = session, size
        self._bytes[session] += size
        self.throttles.dispatch.take(size + PER_MESSAGE)
        self.throttles.took(session, 1, size)

    def remove(self, items: Iterable[object]) -> None:
        """Those of *items* that were in work are not any more."""
        for item in items:
            session, size = self._sizes.pop(item, (None, 0))  # type: ignore[call-overload]
            if session is not None:
                self._bytes[session] -= size
                if not self._bytes[session]:
                    del self._bytes[session]
                self.throttles.dispatch.give_back(size + PER_MESSAGE)
                self.throttles.gave_back(session, 1, size)
        if self.throttles.waits:
            self.throttles.look()

    def came(self, con: MessengerConnection) -> None:
        """Messages came: is *con* read on?"""
        throttles = self.throttles
        if throttles.dispatch.current > throttles.quick and not self._must_be_read(con):
            throttles.came(con.session)

    def read_on(self, con: MessengerConnection) -> None:
        """*con* is over, full, or owes us a reply."""
        if con.lane.blocked & HELD:
            self.remove(item for _, item, _ in con.lane.waiting)
        self.throttles.let_through(con.session)

    def place(
        self, con: MessengerConnection, pipe: Pipe, size: int, lead: int
    ) -> memoryview | None:
        """See `Sink.place`."""
        at_once = self._must_be_read(con) or self.throttles.claim(pipe, size, lead)
        return HEAP if at_once else None

    def _must_be_read(self, con: MessengerConnection) -> bool:
        if con.lane.blocked & HELD:
            return True
        return con.is_owed_reply and self._bytes[con.session] <= con.session.held_limit
