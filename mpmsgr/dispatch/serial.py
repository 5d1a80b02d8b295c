"""The callbacks of one lane where they run: one after the other."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.state import State

if TYPE_CHECKING:
    from mpmsgr.dispatch.connection import Connection
    from mpmsgr.wire.message import Message

#: Why a lane's items wait: an asynchronous callback of it runs; they are not to be handled now;
#: they come again later, and are to be dropped until then.
RUNNING, HELD, STOPPED = 1, 2, 4

#: What waits: whose it is, a message or the name of an event, its number.
Waiting = tuple["Connection", "Message | str", int]


class Serial:
    """What waits behind a callback. blocked: RUNNING, HELD, STOPPED or several of them, or 0.

    id: of the lane; state: what its handlers keep, once one asked for it.
    """

    __slots__ = ("blocked", "id", "state", "waiting")

    def __init__(self, id_: int = 0) -> None:
        self.id = id_
        self.blocked = 0
        self.waiting: deque[Waiting] = deque()
        self.state: State | None = None

    def state_of(self, limit: int) -> State:
        """Its state, of *limit* bytes at most."""
        if self.state is None:
            self.state = State(limit=limit)
        return self.state

    @property
    def is_kept(self) -> bool:
        """Is there anything of it, a message or a state?"""
        return bool(self.blocked or self.waiting or (self.state and self.state.packed))

    def take_waiting(self) -> list[Any]:
        """What waits, which then does so no more."""
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting
