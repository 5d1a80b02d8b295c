"""Where received messages and events of sessions go: dispatchers in this process, or a pool."""

from __future__ import annotations

from typing import Protocol

from mpmsgr.session.actions import Event
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes


class Sink(Protocol):
    """Takes what sessions deliver; never blocks."""

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """Raw messages of *session*, in order."""

    def event(self, event: Event) -> None:
        """A session's event, in order with its messages."""

    def full(self, session: Session, full: bool) -> None:
        """The outbox of *session* is full: its new requests wait, until it has room again."""

    async def drain(self) -> None:
        """Return when everything delivered has been handled."""
