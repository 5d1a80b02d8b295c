"""The connection of a messenger to itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.payload import to_message
from mpmsgr.messenger.connection import LocalConnection
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message

if TYPE_CHECKING:
    from mpmsgr.messenger.messenger import Messenger


class LoopbackConnection(LocalConnection):
    """The messenger talking to itself: not encoded, not numbered, in order.

    Two ends, so that a reply is told from the request it answers: *other* is the far one.
    """

    id = 0

    def __init__(self, messenger: Messenger) -> None:
        super().__init__(messenger)
        self.other: LoopbackConnection = self
        self.peer_type = messenger.name.type
        self.features = (1 << 64) - 1

    @classmethod
    def pair(cls, messenger: Messenger) -> LoopbackConnection:
        """The near end of a new pair."""
        near, far = cls(messenger), cls(messenger)
        near.other, far.other = far, near
        return near

    @property
    def peer_addr(self) -> EntityAddr:  # type: ignore[override]
        """Our own address."""
        return self.messenger.addr

    @property
    def my_addr(self) -> EntityAddr:  # type: ignore[override]
        """Our own address, on either end."""
        return self.messenger.addr

    @property
    def is_connected(self) -> bool:
        """Always, until the messenger shuts down."""
        return not self.messenger.closed

    @property
    def failed(self) -> bool:
        """When the messenger has shut down."""
        return self.messenger.closed

    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """Deliver to the other end, in the next turn of the loop."""
        m = to_message(m, data)
        run = self.messenger.holder()
        if run is None or self.messenger.closed:
            return self._send_now(m)
        run.hold(lambda: self._send_now(m), m.size)
        return True

    def _send_now(self, m: Message) -> bool:
        if self.messenger.closed:
            return False
        self.messenger.sender.sign(m)
        asyncio.get_running_loop().call_soon(self.messenger.to_ourselves, self.other, m)
        return True

    def mark_down(self) -> None:
        """Nothing to end."""

    def mark_disposable(self) -> None:
        """Nothing to lose."""

    def send_keepalive(self) -> None:
        """Nobody to ask."""
