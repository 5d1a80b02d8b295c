"""What an endpoint wants done: plain values, executed by whoever owns the sockets and the clock."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from mpmsgr.wire.crc import Bytes

if TYPE_CHECKING:
    from mpmsgr.session.pipe import Pipe
    from mpmsgr.session.session import Session


class EventKind(Enum):
    """Events of a session for its dispatchers (dispatch spec §4.3)."""

    CONNECT = "connect"
    ACCEPT = "accept"
    REMOTE_RESET = "remote_reset"
    RESET = "reset"
    REFUSED = "refused"


class Dial(NamedTuple):
    """Open a TCP connection for *pipe*; then call `Endpoint.dialled` or `Endpoint.lost`."""

    pipe: Pipe
    host: str
    port: int


class Write(NamedTuple):
    """Write *data* to the socket of *pipe* now (handshake bytes)."""

    pipe: Pipe
    data: bytes


class Flush(NamedTuple):
    """*pipe* has output: call `Pipe.output` before this loop turn ends, once however often told."""

    pipe: Pipe


class FlushSoon(NamedTuple):
    """Only an ack is due: flush within the ack delay, unless something else flushes before."""

    pipe: Pipe


class Close(NamedTuple):
    """Close the socket of *pipe* after what was written; nothing it says counts any more."""

    pipe: Pipe


class Wake(NamedTuple):
    """Call `Endpoint.wake(target, now)` at *at* (seconds of the same clock as `now`)."""

    target: Pipe | Session
    at: float


class Deliver(NamedTuple):
    """*raws* (raw messages, in order) arrived on *session*."""

    session: Session
    raws: list[Bytes]


class Place(NamedTuple):
    """A long message has begun on *pipe*, and is read on once it has a place: `Pipe.land`.

    size: bytes of the raw message; lead: how many of them come before its data.
    """

    pipe: Pipe
    size: int
    lead: int


class Arrived(NamedTuple):
    """The message of the last `Place` is over: whole (then it is in the next Deliver, unless it is
    a repeat), or given up by its sender.
    """

    pipe: Pipe


class StayPaused(NamedTuple):
    """*session* has a new socket, which is not to be read either: see `Session.paused`."""

    session: Session


class Event(NamedTuple):
    """Something happened to *session*; *cause* in words.

    lost: tids that were dropped with it; kept: tids that will be sent again.
    """

    session: Session
    kind: EventKind
    lost: tuple[int, ...] = ()
    cause: str = ""
    kept: tuple[int, ...] = ()


class Answered(NamedTuple):
    """The peer answered a keepalive; `session.last_keepalive_ack` is the stamp it returned."""

    session: Session


class Full(NamedTuple):
    """The outbox of *session* is full (its peer's new requests have to wait), or has room again."""

    session: Session
    full: bool


class Report(NamedTuple):
    """Something about *session* that an operator should read, in words; *kind* names its sort."""

    session: Session
    kind: str
    text: str


class Fault(NamedTuple):
    """*pipe* failed for *cause*: to be logged. *hostile*: the peer broke the protocol.

    kind: what we refused it with, of which many may come one after the other.
    """

    pipe: Pipe
    cause: str
    hostile: bool
    kind: str = ""


SocketAction = Dial | Write | Flush | FlushSoon | Close | Fault
SessionAction = Deliver | Place | Arrived | StayPaused | Event | Answered | Full | Report
Action = SocketAction | SessionAction | Wake
