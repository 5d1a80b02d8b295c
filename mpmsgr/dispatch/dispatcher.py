"""The dispatcher: a class of callbacks, every one optional but `dispatch` (dispatch spec §5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handling import DEFAULT, Handling
from mpmsgr.wire.message import Message

#: What a callback may return: a coroutine is awaited before the session's next message.
Result = bool | None | Awaitable[bool | None]


class Task(NamedTuple):
    """*function* is to be called with the `Service`, every *seconds*; *name* is unique."""

    name: str
    seconds: float
    function: Callable[[Service], Any]


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

    def handle_lane_moved(self, con: Connection) -> Result:
        """Called before the first message of a lane that another worker had before.

        What was kept in that worker's memory, `con.priv` too, is not here; `con.state` is.
        """
        return None

    def handling(self, type_: int) -> Handling:
        """How messages of *type_* are to be handled. Asked once per type."""
        return DEFAULT

    def every(self) -> Sequence[Task]:
        """What is to be called regularly, on one worker."""
        return ()

    def on_start(self) -> Awaitable[None] | None:
        """Called once per process of `mpmsgr serve`, before anything else."""
        return None

    def on_stop(self) -> Awaitable[None] | None:
        """Called once per process that called on_start, after everything else."""
        return None
