"""Lean HTTP/1.1 clients: prebuilt requests over plain sockets, one epoll loop, every reply checked.

A connection carries one request at a time: servers do not work off pipelined requests together, and
nobody sends them. A client with 16 requests in flight is therefore 16 keep-alive connections.
"""

from __future__ import annotations

import resource
import select
import socket
from collections.abc import Iterator

_HEAD_LIMIT = 4096
_HEAD_END = b"\r\n\r\n"
_TIMEOUT_S = 30


class HttpClients:
    """*clients* times *in_flight* connections, driven by one thread.

    Every reply must be the body that was asked with.
    """

    def __init__(self, address: tuple[str, int], clients: int, in_flight: int, size: int) -> None:
        _allow_many_descriptors()
        self._size = size
        self._filler = bytes(range(256)) * (size // 256 + 1)
        self._head = (
            f"POST / HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Length: {size}\r\n\r\n"
        ).encode()
        self._epoll = select.epoll()
        self._clients = [
            [_Connection(address, size, len(self._head)) for _ in range(in_flight)]
            for _ in range(clients)
        ]
        self._connections = {c.fileno(): c for client in self._clients for c in client}
        for fd in self._connections:
            self._epoll.register(fd, select.EPOLLIN)

    def drive(self, requests: int) -> int:
        """Make *requests* round trips per client; returns how many there were in all."""
        wanted = [self._request(serial) for serial in range(requests)]
        for client in self._clients:
            queue = iter(wanted)
            for connection in client:
                connection.begin(queue)
                self._flush(connection)
        total = left = requests * len(self._clients)
        while left:
            ready = self._epoll.poll(_TIMEOUT_S)
            if not ready:
                raise TimeoutError(f"no reply for {_TIMEOUT_S} s")
            for fd, events in ready:
                connection = self._connections[fd]
                if events & ~select.EPOLLOUT:
                    left -= connection.read()
                self._flush(connection)
        return total

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._epoll.close()

    def _request(self, serial: int) -> bytes:
        return self._head + (serial.to_bytes(8, "little") + self._filler)[: self._size]

    def _flush(self, connection: _Connection) -> None:
        flushed = connection.flush()
        if flushed != connection.watching_reads_only:
            connection.watching_reads_only = flushed
            mask = select.EPOLLIN if flushed else select.EPOLLIN | select.EPOLLOUT
            self._epoll.modify(connection.fileno(), mask)


class _Connection:
    """One keep-alive connection with at most one request unanswered."""

    def __init__(self, address: tuple[str, int], size: int, head: int) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._size, self._asked_at = size, head
        self._length = b"\r\ncontent-length: %d\r\n" % size
        self._in = bytearray(_HEAD_LIMIT + size)
        self._filled = self._body_at = 0
        self._request = self._out = memoryview(b"")
        self.watching_reads_only = True

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def begin(self, queue: Iterator[bytes]) -> None:
        """Make the requests of *queue*, which the connections of a client share."""
        self._queue = queue
        self._ask()

    def read(self) -> bool:
        """Take what has arrived; True if that completes the reply, and the next request is up."""
        received = self._socket.recv_into(memoryview(self._in)[self._filled :])
        if not received:
            raise ConnectionError("the server closed the connection")
        self._filled += received
        self._body_at = self._body_at or self._find_body()
        if not self._body_at or self._filled < self._body_at + self._size:
            return False
        self._check_body()
        self._ask()
        return True

    def flush(self) -> bool:
        """Write what is left of the request; False if some of it has to wait."""
        while self._out:
            try:
                self._out = self._out[self._socket.send(self._out) :]
            except BlockingIOError:
                return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _ask(self) -> None:
        self._request = memoryview(next(self._queue, b""))
        self._out = self._request
        self._filled = self._body_at = 0

    def _find_body(self) -> int:
        """Where the reply's body begins, 0 before that is known; checks status and length."""
        end = self._in.find(_HEAD_END, 0, min(self._filled, _HEAD_LIMIT))
        if end < 0:
            return 0
        head = bytes(self._in[: end + 2]).lower()
        if not head.startswith(b"http/1.1 200 ") or self._length not in head:
            raise RuntimeError(f"not the reply that is due: {head!r}")
        return end + len(_HEAD_END)

    def _check_body(self) -> None:
        """Every byte of it, and nothing after it; the request must have left before."""
        if not self._request or self._out:
            raise RuntimeError("a reply that nobody asked for")
        asked = self._request[self._asked_at :]
        if self._filled != self._body_at + self._size or not self._in.startswith(
            asked, self._body_at
        ):
            raise RuntimeError("the reply's body is not what was sent")


def _allow_many_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
