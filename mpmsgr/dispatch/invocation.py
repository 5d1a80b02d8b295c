"""One callback at work on a message or an event, and what it sends until it completes."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.handling import DEFAULT, Handling
from mpmsgr.dispatch.state import State
from mpmsgr.errors import HandlerError

if TYPE_CHECKING:
    from mpmsgr.dispatch.connection import Connection
    from mpmsgr.dispatch.serial import Serial
    from mpmsgr.wire.message import Message


class Invocation:
    """A callback that runs for *con*, in *lane*; item: the message, or the name of the event.

    number: its number in the worker, 0 elsewhere; handling: what its handler declared; plain: it is
    a function that has done nothing yet but reply; sends: what
    is held, in order, in the form of whoever lets it leave; mark: where in the connection's own
    queue its replies begin, if they are held there; held_bytes: of all that; pushes: bytes of what
    nobody waits for, by connection; is_async: it
    goes on in a task; done: it has completed, what is sent from now on leaves at once; state: that
    of the lane, once it was asked for; change: its new encoding; again_in: seconds until it is to
    run again, if so; cell: in the counters page.
    """

    # Defaults of the class: most of it stays as it is.
    con: Connection
    lane: Serial
    item: Message | str
    number: int
    handling: Handling = DEFAULT
    plain = True
    sends: list[Any] | None = None
    pushes: dict[int, int] | None = None
    mark = -1
    held_bytes = 0
    is_async = False
    done = False
    state: State | None = None
    change: bytes | None = None
    again_in: float | None = None
    cell = -1

    @property
    def holds(self) -> bool:
        """Is what it sends held until it completes?"""
        return not (self.done or self.handling.streaming)

    def hold(self, send: Any, nbytes: int) -> None:
        """Keep *send*, of *nbytes*, until it completes."""
        self.plain = False
        if self.sends is None:
            self.sends = [send]
        else:
            self.sends.append(send)
        self.held_bytes += nbytes

    def hold_push(self, con_id: int, nbytes: int, limit: int) -> int:
        """One more push, of *nbytes*, is held for the connection; returns the bytes of all.

        Raises HandlerError where it is not the only one, and they are more than *limit* (0 = none):
        to wait for room would be to wait for itself.
        """
        self.pushes = self.pushes or {}
        held = self.pushes.get(con_id, 0)
        if held and 0 < limit < held + nbytes:
            text = (
                f"of {nbytes} bytes: the handler holds {held} for that peer already until it"
                f" completes, at most {limit} (outbox_bytes); @handles(streaming=True) sends at"
                " once"
            )
            raise HandlerError("a push", text)
        self.pushes[con_id] = held + nbytes
        return held + nbytes

    def drop_push(self, con_id: int, nbytes: int) -> None:
        """That one is not held, after all."""
        if self.pushes is not None:
            self.pushes[con_id] -= nbytes

    def undo(self) -> None:
        """It failed: nothing of what it sent leaves, the state is as before it."""
        self.sends = self.pushes = None
        self.held_bytes = 0
        if self.state is not None:
            self.state.roll_back()

    def commit_state(self) -> None:
        """Make what it did to the state the state. Raises StateError; then nothing changed."""
        if self.state is not None:
            self.change = self.state.encode()
            if self.change is not None:
                self.state.commit(self.change)


#: The asynchronous callback that runs, in its task and those that it started.
CURRENT: ContextVar[Invocation | None] = ContextVar("mpmsgr_invocation", default=None)
