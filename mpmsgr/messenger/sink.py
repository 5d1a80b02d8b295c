"""Where received messages and events of sessions go: dispatchers in this process, or a pool."""

from __future__ import annotations

from typing import Final, Protocol

from mpmsgr.session.actions import Event
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes

#: Answer of `Sink.place`: none of ours, receive it into memory of its own.
HEAP: Final = memoryview(b"")


class Sink(Protocol):
    """Takes what sessions deliver; never blocks.

    claims_above: it wants to give a place to messages longer than so many bytes; 0, where a
    subclass leaves it at that: to none.
    """

    claims_above: int = 0

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """Raw messages of *session*, in order."""

    def event(self, event: Event) -> None:
        """A session's event, in order with its messages."""

    def full(self, session: Session, full: bool) -> None:
        """The outbox of *session* is full: its new requests wait, until it has room again."""

    def place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        """A place for the raw message of *size* bytes, *lead* of them before its data.

        A writable view of that size, which is what `deliver` gets when the message is whole (and
        forgotten when its socket breaks before, or it turns out to be a repeat); HEAP; or None:
        the session is not read until `Driver.grant`. What is granted then must not depend on acks
        of this session: they may be behind the message.
        """
        return HEAP

    def unplace(self, pipe: Pipe) -> None:
        """*pipe* is gone, and waits for a place no longer."""
        return

    async def drain(self) -> None:
        """Return when everything delivered has been handled."""
