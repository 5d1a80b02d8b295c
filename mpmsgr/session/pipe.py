"""One socket of an endpoint, as bytes and nothing else.

A pipe is in one of three stages, each an object of its own: `Connector` (our handshake),
`Acceptor` (the peer's handshake), `Established` (frames).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mpmsgr.errors import HandshakeRefused, ProtocolError
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes

if TYPE_CHECKING:
    from mpmsgr.session.endpoint import Endpoint
    from mpmsgr.session.established import Established
    from mpmsgr.session.session import Session


class Stage(Protocol):
    """What a pipe does with bytes at the moment."""

    def received(self, data: bytes, now: float) -> None:
        """Take the next bytes. Raises ProtocolError or HandshakeRefused: the pipe is finished."""


class Pipe:
    """One TCP connection attempt or accepted socket.

    peer: the socket's other end, once known; session: the one it serves, None while an incoming
    handshake is undecided; incoming: the peer connected; handle: free for the owner of sockets.
    What comes behind the handshake of a session that is not read is held until `read_on`.
    """

    __slots__ = (
        "_held",
        "closed",
        "deadline",
        "endpoint",
        "established",
        "handle",
        "id",
        "incoming",
        "peer",
        "session",
        "stage",
        "wake_at",
    )

    def __init__(self, endpoint: Endpoint, id_: int, *, incoming: bool) -> None:
        self.endpoint = endpoint
        self.id = id_
        self.incoming = incoming
        self.peer = EntityAddr()
        self.session: Session | None = None
        self.stage: Stage | None = None
        self.established: Established | None = None
        self.deadline: float | None = None  # of the handshake
        self.closed = False
        self.handle: object = None
        self.wake_at: float | None = None
        self._held = b""

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the socket; actions collect in the endpoint."""
        if self.closed or self.stage is None:
            return
        if self._held:
            self._held += data
            return
        try:
            self.stage.received(data, now)
        except ProtocolError as err:
            self.endpoint.pipe_failed(self, str(err), now, hostile=True)
        except HandshakeRefused as err:
            kind = err.tag if self.incoming else ""
            self.endpoint.pipe_failed(self, str(err), now, kind=kind)

    def land(self, view: memoryview | None) -> bool:
        """Receive the message for which `Place` was asked into *view*; None: anywhere.

        In one of the old forms it goes anywhere as well. False: none waits for it any more. Raises
        ValueError for a view of another size.
        """
        parser = self.established.parser if self.established is not None else None
        if parser is None or parser.claim is None:
            return False
        if view is None or not parser.can_land:
            parser.decline()
        else:
            parser.land(view)
        return True

    def landing(self) -> memoryview | None:
        """Where the next bytes of a large message should be received, or None: anywhere."""
        return self.established.parser.landing() if self.established else None

    def landed(self, size: int, now: float) -> None:
        """*size* bytes were received into `landing()`."""
        if self.closed or self.established is None:
            return
        try:
            self.established.handle(self.established.parser.landed(size), now)
        except ProtocolError as err:
            self.endpoint.pipe_failed(self, str(err), now, hostile=True)

    def close(self) -> None:
        """Nothing it says counts any more; what came of an incomplete message is dropped.

        At once: timers and transports keep a pipe for a while, and it would keep the place.
        """
        self.closed = True
        self._held = b""
        if self.established is not None:
            self.established.parser.abandon()

    def output(self, now: float) -> list[Bytes]:
        """Buffers to write now, in order; [] when there is nothing or the handshake is not over."""
        return [] if self.closed or self.established is None else self.established.output(now)

    @property
    def has_more(self) -> bool:
        """Did the last `output` leave messages behind because of its budget?"""
        return self.established is not None and not self.closed and not self.established.drained

    def establish(self, stage: Established, rest: bytes, now: float) -> None:
        """The handshake is over; *rest* came behind it."""
        self.stage = self.established = stage
        self.deadline = None
        if stage.session.paused:
            self._held = rest
        elif rest:
            stage.received(rest, now)

    @property
    def holds_something(self) -> bool:
        """Did anything come that is not to be read now?"""
        return bool(self._held)

    def read_on(self, now: float) -> None:
        """Take what was held, unless its session is not to be read again."""
        if self.session is not None and not self.session.paused:
            held, self._held = self._held, b""
            self.receive(held, now)

    def __repr__(self) -> str:
        direction = "from" if self.incoming else "to"
        return f"<Pipe {self.id} {direction} {self.peer}>"
