"""A peer socket: bytes in through one shared buffer, bytes out once per loop turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from mpmsgr.messenger.tcp_info import read_tcp_info
from mpmsgr.session.pipe import Pipe
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes

if TYPE_CHECKING:
    from mpmsgr.messenger.driver import Driver

#: Above this a buffer is handed over as it is; smaller ones are joined into one write.
_SEPARATE = 16384


class PipeTransport(asyncio.BufferedProtocol):
    """The socket of one pipe. *pipe* is None until an accepted socket is connected."""

    __slots__ = (
        "_driver",
        "_landing",
        "_pipe",
        "_read_paused",
        "_transport",
        "_write_paused",
    )

    def __init__(self, driver: Driver, pipe: Pipe | None) -> None:
        self._driver = driver
        self._pipe = pipe
        self._transport: asyncio.Transport | None = None
        self._landing = False
        self._write_paused = False
        self._read_paused = False
        if pipe is not None:
            pipe.handle = self

    @property
    def write_paused(self) -> bool:
        """Does the peer read too slowly? Nothing more is taken from the session then."""
        return self._write_paused

    @property
    def has_unsent(self) -> bool:
        """Are there bytes that the kernel has not taken yet?"""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TCP connection is there: tell the endpoint."""
        self._transport = cast(asyncio.Transport, transport)
        self._driver.transport_made(self)
        peername = transport.get_extra_info("peername")
        if peername is None:  # the peer has reset the connection already
            self.abort()
            return
        peer = EntityAddr.from_socket(peername)
        if self._pipe is None:
            own = EntityAddr.from_socket(transport.get_extra_info("sockname"))
            self._pipe = self._driver.accepted(self, peer, own)
        else:
            self._driver.dialled(self._pipe, peer)
        self._transport = self._driver.wrap(self._transport, self._pipe)
        if self._pipe.closed:
            self.close()

    def get_buffer(self, sizehint: int) -> Bytes:
        """The shared buffer, or the place where a large message is being received."""
        landing = self._pipe.landing() if self._pipe is not None else None
        self._landing = landing is not None
        return self._driver.receive_buffer(self._pipe) if landing is None else landing

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        assert self._pipe is not None
        if self._landing:
            self._driver.landed(self._pipe, nbytes)
        else:
            self._driver.received(self._pipe, bytes(self._driver.buffer[:nbytes]))

    def eof_received(self) -> bool:
        """The peer will send no more: there is nothing left to say to it either."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._transport = None
        self._driver.transport_gone(self)
        if self._pipe is not None:
            cause = f"socket error: {exc}" if exc else "the peer closed the socket"
            self._driver.socket_lost(self._pipe, cause)
            self._pipe.handle = None

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self._write_paused = True
        if self._pipe is not None:
            self._driver.write_paused(self._pipe, True)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._write_paused = False
        if self._pipe is not None:
            self._driver.write_paused(self._pipe, False)

    def tcp_info(self) -> dict[str, int]:
        """What the kernel says of the connection; see `read_tcp_info`."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return {} if sock is None else read_tcp_info(sock)

    # what the driver calls

    def write(self, data: bytes) -> None:
        """Write *data*."""
        if self._transport is not None:
            self._transport.write(data)

    def write_all(self, parts: list[Bytes]) -> None:
        """Write *parts* in order, joined unless they are large."""
        if self._transport is None:
            return
        if max(map(len, parts)) <= _SEPARATE:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(_join_small(parts))

    def pause_reading(self) -> None:
        """Leave further bytes to the kernel."""
        if self._transport is not None and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None and self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


def _join_small(parts: list[Bytes]) -> list[Bytes]:
    """Runs of small parts joined, large ones left alone."""
    out: list[Bytes] = []
    run: list[Bytes] = []
    for part in parts:
        if len(part) <= _SEPARATE:
            run.append(part)
            continue
        if run:
            out.append(b"".join(run))
            run = []
        out.append(part)
    if run:
        out.append(b"".join(run))
    return out
