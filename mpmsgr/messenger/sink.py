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

    async def drain(self) -> None:
        """Return when everything delivered has been handled."""
