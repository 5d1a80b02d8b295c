"""Carries the bytes of an endpoint over blocking sockets, one step at a time.

The endpoint's clock stands still, a wanted connection is made when the test says so, and every
handshake is read along: what was proposed, and what was answered to it.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from mpmsgr.session.actions import Close, Deliver, Dial, Event, EventKind, Fault, Flush, Write
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.pipe import Pipe
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.handshake import Connect, HandshakeBuffer, Reply
from mpmsgr.wire.v1.parcel import decode_raw
from mpmsgr.wire.v1.tags import Tag

WAIT_S = 10.0
_OPENED = (Tag.READY, Tag.SEQ)


class Handshake:
    """A handshake read along, from either side: connects, replies, the two in_seq of SEQ."""

    def __init__(self) -> None:
        self.connects: list[Connect] = []
        self.replies: list[Reply] = []
        self.server_in_seq: int | None = None
        self.client_in_seq: int | None = None
        self._client, self._server = HandshakeBuffer(Limits()), HandshakeBuffer(Limits())
        self._reading = [self._read_client(), self._read_server()]

    @property
    def tags(self) -> list[str]:
        """What the server answered, in order."""
        return [Tag(reply.tag).name for reply in self.replies]

    def client_sent(self, data: bytes) -> None:
        """The next bytes of the side that called."""
        self._client.feed(data)
        self._read()

    def server_sent(self, data: bytes) -> None:
        """The next bytes of the side that was called."""
        self._server.feed(data)
        self._read()

    def _read(self) -> None:
        for reader in self._reading:
            next(reader)

    def _read_client(self) -> Iterator[None]:
        while self._client.read_banner() is None:
            yield
        while self._client.read_address() is None:
            yield
        while True:
            if self.replies and self.replies[-1].tag in _OPENED:
                break
            if (connect := self._client.read_connect()) is None:
                yield
            else:
                self.connects.append(connect)
        while self.replies[-1].tag == Tag.SEQ and self.client_in_seq is None:
            self.client_in_seq = self._client.read_seq()
            yield
        while True:
            yield

    def _read_server(self) -> Iterator[None]:
        while self._server.read_banner() is None:
            yield
        for _ in ("its own address", "the one it sees"):
            while self._server.read_address() is None:
                yield
        while not (self.replies and self.replies[-1].tag in _OPENED):
            if (reply := self._server.read_reply()) is None:
                yield
            else:
                self.replies.append(reply)
        while self.replies[-1].tag == Tag.SEQ and self.server_in_seq is None:
            self.server_in_seq = self._server.read_seq()
            yield
        while True:
            yield


class Link(NamedTuple):
    """A socket and its pipe. The handshake is the same object for as long as the link lives."""

    pipe: Pipe
    socket: socket.socket
    handshake: Handshake

    @property
    def is_open(self) -> bool:
        return not self.pipe.closed and self.pipe.established is not None


class Carrier:
    """The sockets of *endpoint*, and what came of its actions, in a context.

    listener: where its address is, if peers are to call it; dials: connections that it wants;
    messages, events, faults: what it delivered, announced and complained about, in order.
    """

    def __init__(self, endpoint: Endpoint, listener: socket.socket | None = None) -> None:
        self.endpoint, self.listener = endpoint, listener
        self.dials: list[Dial] = []
        self.links: dict[Pipe, Link] = {}
        self.messages: list[Message] = []
        self.events: list[Event] = []
        self.faults: list[Fault] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for link in self.links.values():
            link.socket.close()

    def happened(self, kind: EventKind) -> int:
        return sum(event.kind is kind for event in self.events)

    # steps

    def dial(self) -> Link:
        """Make the one connection that the endpoint wants."""
        self.run()
        (dial,) = [dial for dial in self.dials if not dial.pipe.closed]
        self.dials.clear()
        sock = socket.create_connection((dial.host, dial.port), WAIT_S)
        link = self._link(dial.pipe, sock)
        self.endpoint.dialled(dial.pipe, EntityAddr.from_socket(sock.getpeername()), 0.0)
        self.run()
        return link

    def called(self) -> socket.socket:
        """Wait for a peer to call; nothing is said to it yet."""
        assert self.listener is not None
        self.listener.settimeout(WAIT_S)
        return self.listener.accept()[0]

    def answer(self, sock: socket.socket) -> Link:
        """Give a caller to the endpoint."""
        sock.settimeout(WAIT_S)
        peer = EntityAddr.from_socket(sock.getpeername())
        pipe = self.endpoint.accept(peer, self.endpoint.addr, 0.0)
        link = self._link(pipe, sock)
        self.run()
        return link

    def cut(self, link: Link) -> None:
        """Lose the socket of *link*, on both sides."""
        self._drop(link)
        self.endpoint.lost(link.pipe, "cut", 0.0)
        self.run()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Carry bytes until *condition* is true."""
        deadline = time.monotonic() + WAIT_S
        self.run()
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not within {WAIT_S:g} s: {what}; {self.faults} {self.events}"
            self._carry(left)

    def run(self) -> None:
        """Do what the endpoint wants, but for connections and timers."""
        while actions := self.endpoint.take():
            for action in actions:
                if isinstance(action, Dial):
                    self.dials.append(action)
                elif isinstance(action, Write):
                    self._write(action.pipe, action.data)
                elif isinstance(action, Flush):
                    self._write(action.pipe, b"".join(action.pipe.output(0.0)))
                elif isinstance(action, Close):
                    self._drop(self.links.get(action.pipe))
                elif isinstance(action, Deliver):
                    self.messages += map(decode_raw, action.raws)
                elif isinstance(action, Event):
                    self.events.append(action)
                elif isinstance(action, Fault):
                    self.faults.append(action)

    def _link(self, pipe: Pipe, sock: socket.socket) -> Link:
        link = self.links[pipe] = Link(pipe, sock, Handshake())
        return link

    def _drop(self, link: Link | None) -> None:
        if link is not None:
            self.links.pop(link.pipe, None)
            link.socket.close()

    def _carry(self, timeout_s: float) -> None:
        links = {link.socket: link for link in self.links.values()}
        for sock in select.select(list(links), [], [], timeout_s)[0]:
            if sock.fileno() >= 0:
                self._read(links[sock])

    def _read(self, link: Link) -> None:
        try:
            data = link.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.cut(link)
            return
        if link.pipe.incoming:
            link.handshake.client_sent(data)
        else:
            link.handshake.server_sent(data)
        link.pipe.receive(data, 0.0)
        self.run()

    def _write(self, pipe: Pipe, data: bytes) -> None:
        link = self.links.get(pipe)
        if link is None:
            return
        if pipe.incoming:
            link.handshake.server_sent(data)
        else:
            link.handshake.client_sent(data)
        link.socket.sendall(data)
