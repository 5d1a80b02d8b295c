"""The dispatcher: a class of callbacks, every one optional (dispatch spec §5).

docs/dispatchers.md has all of them on one page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handling import DEFAULT, Handling
from mpmsgr.session.auth import Authorizer, Verification
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.message import Message

#: What a callback may return: a coroutine is awaited before the session's next message.
Result = bool | None | Awaitable[bool | None]


class Task(NamedTuple):
    """*function* is to be called with the `Service`, every *seconds*; *name* is unique."""

    name: str
    seconds: float
    function: Callable[[Service], Any]


class Dispatcher:
    """Override what you need; any callback may be ``async def`` that the I/O process does not call.

    message_types: the types offered to `dispatch`, empty = all; order: dispatchers that a server
    loads are asked in ascending order, and two of them that name the same type need different ones.
    The callbacks of one connection run one after the other, in the order things happened.
    """

    message_types: Collection[int] = ()
    order: int = 0

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

    # In the process that has the sockets, between bytes of peers: quick, and never blocking. With
    # workers that is the I/O process, and only for modules named with --io-module. An `async def`
    # is refused here.

    def can_fast_dispatch_any(self) -> bool:
        """Does it dispatch fast? Asked when it is added; True makes it a member of the fast list.

        Only members are asked for what follows, up to `fast_dispatch`.
        """
        return False

    def handle_fast_connect(self, con: Connection) -> None:
        """Called at the moment a session that we opened is there, before any message of it."""

    def handle_fast_accept(self, con: Connection) -> None:
        """The same of one that the peer opened, which does not know it yet."""

    def fast_preprocess(self, con: Connection, m: Message) -> None:
        """Called with every message that arrives, in the order received, whoever will take it."""

    def can_fast_dispatch(self, m: Message) -> bool:
        """Is *m* for `fast_dispatch`? By default: is it one of `message_types`?

        Asked per message, maybe several times: it must not depend on what changes.
        """
        return m.type in self.message_types

    def fast_dispatch(self, con: Connection, m: Message) -> None:
        """A message arrived that `can_fast_dispatch` claimed: nobody else gets it.

        What is sent leaves at once; an exception is an error reply. It overtakes messages that came
        before it and go to `dispatch`, may come before `handle_accept`, and after `handle_reset`.
        """

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer | None:
        """What we present to a peer of *peer_type*; *force_new* after it was rejected. None: the
        next dispatcher is asked.
        """
        return None

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        """What we present to a peer that answered our authorizer with *challenge*, or None."""
        return None

    def verify_reply(self, peer_type: int, reply: bytes) -> bool | None:
        """Did the server prove with its authorizer *reply* who it is? None: ask the next one."""
        return None

    def verify_authorizer(
        self, peer_addr: EntityAddr, peer_type: int, protocol: int, data: bytes, challenge: bytes
    ) -> Verification | None:
        """Judge what a peer presents, also if it presents nothing (*protocol* 0, no *data*).

        challenge: what this peer was asked on this connection before, b"" = nothing. None: the
        next dispatcher is asked. Where any dispatcher has this callback, a peer that nobody judges
        is refused, and one that makes it raise an exception as well.
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
