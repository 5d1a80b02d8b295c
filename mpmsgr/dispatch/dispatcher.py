"""The dispatcher: a class of callbacks, every one optional but `dispatch` (dispatch spec §5)."""

from __future__ import annotations

from collections.abc import Awaitable, Collection

from mpmsgr.dispatch.connection import Connection
from mpmsgr.wire.message import Message

#: What a callback may return: a coroutine is awaited before the session's next message.
Result = bool | None | Awaitable[bool | None]


class Dispatcher:
    """Override what you need; any callback may be ``async def``.

    message_types: the types offered to `dispatch`, empty = all. The callbacks of one connection
    run one after the other, in the order things happened.
    """

    message_types: Collection[int] = ()

    def dispatch(self, con: Connection, m: Message) -> Result:
        """A message arrived. Only False passes it on to the next dispatcher."""
        return False

    def handle_connect(self, con: Connection) -> Result:
        """Called when a session that we opened is there, also after each reconnect."""
        return None

    def handle_accept(self, con: Connection) -> Result:
        """Called when a session that the peer opened is there, also after each reconnect."""
        return None

    def handle_reset(self, con: Connection) -> Result:
        """Called when the session is over; *con* is dead. True stops the chain."""
        return None

    def handle_remote_reset(self, con: Connection) -> Result:
        """Called when the peer lost the session: both queues were dropped, *con* goes on."""
        return None

    def handle_refused(self, con: Connection) -> Result:
        """Called when a connection was refused; it is tried again. True stops the chain."""
        return None

    def on_start(self) -> Awaitable[None] | None:
        """Called once per process of `mpmsgr serve`, before anything else."""
        return None

    def on_stop(self) -> Awaitable[None] | None:
        """Called once per process that called on_start, after everything else."""
        return None
