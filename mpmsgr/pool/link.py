"""ZeroMQ sockets on an asyncio loop: raw sockets, their descriptor watched, drained in one go.

The descriptor is edge-triggered: it tells of a change of the socket's events, once. So after every
send and every receive the socket is drained again, or a frame may lie there unseen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import zmq
from zmq.backend import Socket  # pyzmq's own core: its wrapper costs more than the call itself

log = logging.getLogger("mpmsgr.link")

#: How long closing waits for frames that were sent, in milliseconds.
_LINGER_MS = 100

_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
_NOBLOCK, _MORE = int(zmq.NOBLOCK), int(zmq.SNDMORE) | int(zmq.NOBLOCK)
_RCVMORE = int(zmq.RCVMORE)


class Link:
    """One end. *on_frames* is called with the parts of each arrived multipart message."""

    def __init__(self, socket_type: int, on_parts: Callable[[list[bytes]], None]) -> None:
        self._context = zmq.Context(io_threads=1)
        self._socket = Socket(self._context, socket_type)
        self._socket.set(zmq.SNDHWM, 0)  # credits bound what is in it
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.LINGER, _LINGER_MS)
        self._on_parts = on_parts
        self._loop = asyncio.get_running_loop()
        self._fd = int(self._socket.get(zmq.FD))
        self._draining = False
        self._loop.add_reader(self._fd, self.drain)

    @classmethod
    def router(cls, endpoint: str, on_parts: Callable[[list[bytes]], None]) -> Link:
        """The I/O process's end, bound to *endpoint*; on_parts gets [identity, frame]."""
        link = cls(zmq.ROUTER, on_parts)
        link._socket.set(zmq.ROUTER_MANDATORY, 1)
        link._socket.bind(endpoint)
        return link

    @classmethod
    def dealer(
        cls, endpoint: str, identity: bytes, on_parts: Callable[[list[bytes]], None]
    ) -> Link:
        """A worker's end; on_parts gets [frame]."""
        link = cls(zmq.DEALER, on_parts)
        link._socket.set(zmq.IDENTITY, identity)
        link._socket.connect(endpoint)
        return link

    def send(self, frame: bytes) -> None:
        """Send from a worker."""
        self._socket.send(frame, _NOBLOCK)
        self._drain_later()

    def send_to(self, identity: bytes, frame: bytes) -> bool:
        """Send to the worker *identity*; False: it is not connected (any more), or we closed."""
        if self._socket.closed:
            return False
        try:
            self._socket.send(identity, _MORE)
            self._socket.send(frame, _NOBLOCK)
        except zmq.ZMQError as err:
            if err.errno != zmq.EHOSTUNREACH:
                raise
            return False
        self._drain_later()
        return True

    def _drain_later(self) -> None:
        if not self._draining and int(self._socket.get(_EVENTS)) & _POLLIN:
            self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Take everything that has arrived."""
        if self._draining:
            return
        self._draining = True
        socket = self._socket
        try:
            while not socket.closed and int(socket.get(_EVENTS)) & _POLLIN:
                parts = [socket.recv(_NOBLOCK)]
                while socket.get(_RCVMORE):
                    parts.append(socket.recv(_NOBLOCK))
                self._on_parts(parts)
        finally:
            self._draining = False

    def close(self) -> None:
        """Close, after what was sent has left (or the linger time is over)."""
        if not self._socket.closed:
            self._loop.remove_reader(self._fd)
            self._socket.close()
            self._context.term()
