"""Where received messages and events of sessions go: dispatchers in this process, or a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from mpmsgr.session.actions import Event
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message

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

    def deliver_decoded(
        self, session: Session, raws: list[Bytes], messages: Sequence[Message | None]
    ) -> None:
        """The same; *messages* are the decoded ones, where that is done already."""
        self.deliver(session, raws)

    def event(self, event: Event) -> None:
        """A session's event, in order with its messages."""

    def full(self, session: Session, full: bool) -> None:
        """The outbox of *session* is full: its new requests wait, until it has room again."""

    def place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        """Room, and a place, for the raw message of *size* bytes, *lead* of them before its data.

        A writable view of that size, which is what `deliver` gets when the message is whole (and
        forgotten when its socket breaks before, or it turns out to be a repeat); HEAP; or None:
        the session is not read until `Driver.grant`. What is granted then must not depend on acks
        of this session: they may be behind the message.
        """
        return HEAP

    def unplace(self, pipe: Pipe) -> None:
        """The message of *pipe* for which a place was asked is over, waited for or not: it is here
        (`deliver` follows, unless it is a repeat), or will never be. Called once per `place`.
        """
        return

    async def drain(self) -> None:
        """Return when everything delivered has been handled."""
