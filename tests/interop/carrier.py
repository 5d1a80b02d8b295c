"""Carries the bytes of an endpoint over blocking sockets, one step at a time.

The endpoint's clock stands still, a connection it wants is made when the test says so, and every
handshake is read along: what was proposed, and what was answered to it.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from mpmsgr import Message
from mpmsgr.session.actions import (
    Answered,
    Close,
    Deliver,
    Dial,
    Event,
    EventKind,
    Fault,
    Flush,
    Write,
)
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.pipe import Pipe
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.v1.handshake import Connect, HandshakeBuffer, Reply
from mpmsgr.wire.v1.parcel import decode_raw
from mpmsgr.wire.v1.tags import Tag

WAIT_S = 10.0
_NOW = 0.0


class Handshake:
    """A handshake read along: connects and replies, and the in_seq of each side after SEQ."""

    def __init__(self) -> None:
        self.connects: list[Connect] = []
        self.replies: list[Reply] = []
        self.client_in_seq: int | None = None
        self.server_in_seq: int | None = None
        self._client, self._server = HandshakeBuffer(Limits()), HandshakeBuffer(Limits())
        self._readers = (self._read_client(), self._read_server())

    @property
    def tags(self) -> list[str]:
        """What the server answered, in order."""
        return [Tag(reply.tag).name for reply in self.replies]

    @property
    def proposed(self) -> list[int]:
        """The connect_seq of each connect."""
        return [connect.connect_seq for connect in self.connects]

    @property
    def in_seqs(self) -> tuple[int | None, int | None]:
        """What the client had received, and the server; None without SEQ."""
        return self.client_in_seq, self.server_in_seq

    def sent(self, data: bytes, *, by_client: bool) -> None:
        """The next bytes of one side."""
        (self._client if by_client else self._server).feed(data)
        for reader in self._readers:
            next(reader)

    @property
    def _opened_with(self) -> int | None:
        last = self.replies[-1].tag if self.replies else None
        return last if last in (Tag.READY, Tag.SEQ) else None

    def _read_client(self) -> Iterator[None]:
        while self._client.read_banner() is None:
            yield
        while self._client.read_address() is None:
            yield
        while self._opened_with is None:
            if (connect := self._client.read_connect()) is None:
                yield
            else:
                self.connects.append(connect)
        while self._opened_with == Tag.SEQ and self.client_in_seq is None:
            self.client_in_seq = self._client.read_seq()
            yield
        while True:
            yield

    def _read_server(self) -> Iterator[None]:
        while self._server.read_banner() is None:
            yield
        for _ in ("own address", "address seen"):
            while self._server.read_address() is None:
                yield
        while self._opened_with is None:
            if (reply := self._server.read_reply()) is None:
                yield
            else:
                self.replies.append(reply)
        while self._opened_with == Tag.SEQ and self.server_in_seq is None:
            self.server_in_seq = self._server.read_seq()
            yield
        while True:
            yield


class Link(NamedTuple):
    """A pipe of the endpoint, its socket, and the handshake on it."""

    pipe: Pipe
    socket: socket.socket
    handshake: Handshake

    @property
    def is_open(self) -> bool:
        """Is the handshake over, and the socket of use?"""
        return not self.pipe.closed and self.pipe.established is not None


def lost(data: bytes) -> bytes:
    """Nothing arrives."""
    return b""


def garbled(data: bytes) -> bytes:
    """A message whose last payload byte has changed (its footer is 21 bytes)."""
    return data[:-22] + bytes([data[-22] ^ 1]) + data[-21:]


class Carrier:
    """The sockets of *endpoint*, and what came of its actions, in a context.

    listener: where peers can call it; dials: connections that it wants; messages, events, faults:
    what it delivered, announced and complained about, in order; signs_of_life: keepalives that
    were answered.
    """

    def __init__(self, endpoint: Endpoint, listener: socket.socket) -> None:
        self.endpoint, self.listener = endpoint, listener
        self.dials: list[Dial] = []
        self.links: dict[Pipe, Link] = {}
        self.messages: list[Message] = []
        self.events: list[Event] = []
        self.faults: list[Fault] = []
        self.signs_of_life = 0
        self._on_the_way: Callable[[bytes], bytes] = bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for link in list(self.links.values()):
            self._drop(link)
        self.listener.close()

    @property
    def news(self) -> list[EventKind]:
        """The kinds of the events so far."""
        return [event.kind for event in self.events]

    # connections

    def dial(self) -> Link:
        """Make the one connection that the endpoint wants."""
        self.run()
        (dial,) = (dial for dial in self.dials if not dial.pipe.closed)
        self.dials.clear()
        link = self._link(dial.pipe, socket.create_connection((dial.host, dial.port), WAIT_S))
        peer = EntityAddr.from_socket(link.socket.getpeername())
        self.endpoint.dialled(dial.pipe, peer, _NOW)
        self.run()
        return link

    def called(self) -> socket.socket:
        """Wait for a peer to call; nothing is said to it yet."""
        self.listener.settimeout(WAIT_S)
        return self.listener.accept()[0]

    def answer(self, caller: socket.socket) -> Link:
        """Let the endpoint greet a caller."""
        caller.settimeout(WAIT_S)
        peer = EntityAddr.from_socket(caller.getpeername())
        link = self._link(self.endpoint.accept(peer, self.endpoint.addr, _NOW), caller)
        self.run()
        return link

    def wanted(self) -> bool:
        """Does the endpoint want a connection?"""
        self.run()
        return any(not dial.pipe.closed for dial in self.dials)

    def cut(self, link: Link) -> None:
        """Lose the socket of *link*, unread bytes included; both sides notice."""
        self._drop(link)
        self.endpoint.lost(link.pipe, "cut", _NOW)
        self.run()

    def _link(self, pipe: Pipe, sock: socket.socket) -> Link:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = self.links[pipe] = Link(pipe, sock, Handshake())
        return link

    def _drop(self, link: Link) -> None:
        self.links.pop(link.pipe, None)
        link.socket.close()

    # bytes

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Carry bytes until *condition* is true."""
        deadline = time.monotonic() + WAIT_S
        self.run()
        while not condition():
            left = deadline - time.monotonic()
            story = (self.faults, self.news, [link.handshake.tags for link in self.links.values()])
            assert left > 0, f"not within {WAIT_S:g} s: {what}; {story}"
            self._carry(left)

    @contextmanager
    def spoiling(self, spoil: Callable[[bytes], bytes]) -> Iterator[None]:
        """What is written meanwhile arrives as *spoil* makes it; b"" never does."""
        self._on_the_way = spoil
        yield
        self._on_the_way = bytes

    def run(self) -> None:
        """Do what the endpoint wants, but for connections and timers."""
        while actions := self.endpoint.take():
            for action in actions:
                if isinstance(action, Dial):
                    self.dials.append(action)
                elif isinstance(action, Write):
                    self._write(action.pipe, action.data)
                elif isinstance(action, Flush):
                    self._write(action.pipe, b"".join(action.pipe.output(_NOW)))
                elif isinstance(action, Close) and action.pipe in self.links:
                    self._drop(self.links[action.pipe])
                elif isinstance(action, Deliver):
                    self.messages += map(decode_raw, action.raws)
                elif isinstance(action, Event):
                    self.events.append(action)
                elif isinstance(action, Fault):
                    self.faults.append(action)
                elif isinstance(action, Answered):
                    self.signs_of_life += 1

    def _carry(self, timeout_s: float) -> None:
        links = {link.socket: link for link in self.links.values()}
        for sock in select.select(links, [], [], timeout_s)[0]:
            if links[sock].pipe in self.links:
                self._read(links[sock])

    def _read(self, link: Link) -> None:
        try:
            data = link.socket.recv(65536)
        except ConnectionError:
            data = b""
        if data:
            link.handshake.sent(data, by_client=link.pipe.incoming)
            link.pipe.receive(data, _NOW)
            self.run()
        else:
            self.cut(link)

    def _write(self, pipe: Pipe, data: bytes) -> None:
        link = self.links.get(pipe)
        if link is not None and (data := self._on_the_way(data)):
            link.handshake.sent(data, by_client=not pipe.incoming)
            link.socket.sendall(data)
