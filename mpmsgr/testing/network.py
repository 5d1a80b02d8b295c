"""A network in memory: what is written arrives in the loop's next turn, at the same instant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mpmsgr.wire.crc import Bytes

if TYPE_CHECKING:
    from mpmsgr.testing.cut import Cut

Factory = Callable[[], asyncio.BufferedProtocol]
Name = tuple[str, int]

#: Where clients come from.
_CLIENT_HOST, _FIRST_PORT = "192.0.2.1", 40000


class Network:
    """Who listens, by address; connections between protocols of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listeners: dict[Name, Factory] = {}
        self._ends: list[End] = []
        self._port = _FIRST_PORT

    def listen(self, host: str, port: int, factory: Factory) -> None:
        """Connections to there get a protocol of *factory*."""
        self._listeners[host, port] = factory

    def connect(
        self, factory: Factory, host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BufferedProtocol]:
        """A connection to there. Raises ConnectionRefusedError."""
        listener = self._listeners.get((host, port))
        if listener is None:
            raise ConnectionRefusedError(111, f"nobody listens on {host}:{port}")
        self._port += 1
        here, there = (_CLIENT_HOST, self._port), (host, port)
        near = End(self._loop, factory(), here, there)
        far = End(self._loop, listener(), there, here)
        near.other, far.other = far, near
        self._ends = [end for end in self._ends if not end.is_closing()] + [near]
        for end in (far, near):
            end.protocol.connection_made(end)
        return near, near.protocol

    def end_of(self, protocol: object) -> End | None:
        """The client's end that has *protocol*, if it is connected."""
        ends = (end for end in self._ends if not end.is_closing())
        return next((end for end in ends if end.protocol is protocol), None)


class End(asyncio.Transport):
    """One end of a connection: what is written goes to *other*'s protocol.

    cut: what counts the bytes that may still be written, if anything does.
    """

    other: End

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BufferedProtocol,
        own: Name,
        peer: Name,
    ) -> None:
        super().__init__({"sockname": own, "peername": peer})
        self.protocol = protocol
        self.cut: Cut | None = None
        self._loop = loop
        self._arrived = bytearray()
        self._paused = self._closed = self._ended = False
        self._peer_closed = False

    # asyncio's transport

    def write(self, data: Bytes) -> None:
        """See asyncio."""
        if self._closed:
            return
        if self.cut is not None:
            data = data[: self.cut.left]
            self.cut.left -= len(data)
        self.other.arrive(data)
        if self.cut is not None and not self.cut.left:
            self.break_off()

    def writelines(self, parts: Iterable[Bytes]) -> None:
        """See asyncio."""
        self.write(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        """Nothing is kept here."""
        return 0

    def pause_reading(self) -> None:
        """See asyncio."""
        self._paused = True

    def resume_reading(self) -> None:
        """See asyncio."""
        self._paused = False
        self._loop.call_soon(self._deliver)

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._closed

    def close(self) -> None:
        """The other end reads what was written, then its end."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._end)
            self._loop.call_soon(self.other.peer_closed)

    def abort(self) -> None:
        """The same: nothing waits to be written."""
        self.close()

    # the other end

    def arrive(self, data: Bytes) -> None:
        """*data* was written to us."""
        self._arrived += data
        self._loop.call_soon(self._deliver)

    def peer_closed(self) -> None:
        """Nothing more will come."""
        self._peer_closed = True
        self._deliver()

    def break_off(self) -> None:
        """The connection is gone, in the midst of what we write; that arrives."""
        cut, self.cut = self.cut, None
        self.close()
        if cut is not None:
            cut.is_done()

    def _deliver(self) -> None:
        while self._arrived and not self._paused and not self._closed:
            room = memoryview(self.protocol.get_buffer(-1))
            size = min(len(room), len(self._arrived))
            room[:size] = self._arrived[:size]
            del self._arrived[:size]
            self.protocol.buffer_updated(size)
        if self._peer_closed and not self._arrived:
            self._closed = True
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.protocol.connection_lost(None)
