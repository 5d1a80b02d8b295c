"""A peer that sends what it is told, byte by byte: for tests of what strangers do to a server."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

from mpmsgr.wire.address import ADDR_SIZE, EntityAddr, split_address
from mpmsgr.wire.features import SUPPORTED
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import EntityType
from mpmsgr.wire.v1.handshake import (
    BANNER,
    CONNECT_SIZE,
    REPLY_SIZE,
    Connect,
    HandshakeBuffer,
    Reply,
)
from mpmsgr.wire.v1.tags import Tag

_RST = struct.pack("ii", 1, 0)
HELLO_SIZE = len(BANNER) + 2 * ADDR_SIZE


class RawPeer:
    """A TCP connection to *address*, ``HOST:PORT``; a context manager.

    nonce: of the address it announces. port: its own, by which the server's log names it.
    """

    def __init__(self, address: str, nonce: int = 1) -> None:
        host, port, _ = split_address(address)
        self.nonce = nonce
        self.sock = socket.create_connection((host, port), timeout=10)
        self.port: int = self.sock.getsockname()[1]

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send; that the server has hung up already is no error here."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def read(self, size: int) -> bytes:
        """Exactly *size* bytes."""
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            assert more, f"the server hung up after {data!r}"
            data += more
        return data

    def read_to_end(self) -> bytes:
        """Everything until the server hangs up."""
        data = b""
        try:
            while more := self.sock.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        return data

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self.sock.close()

    # the handshake

    def hello(self) -> bytes:
        """Banner and address, as a client sends them."""
        return BANNER + EntityAddr(nonce=self.nonce).encode()

    def connect(self, **changes: int) -> bytes:
        """The proposal of a new client session."""
        fields: dict[str, Any] = {
            "features": SUPPORTED,
            "host_type": int(EntityType.CLIENT),
            "global_seq": 1,
            "connect_seq": 0,
            "protocol_version": 0,
        }
        return Connect(**{**fields, **changes}).encode()

    def handshake(self, tag: Tag = Tag.READY, **changes: int) -> Reply:
        """Open a session, or an earlier one again (*tag* SEQ); the server's reply."""
        self.send(self.hello() + self.connect(**changes))
        self.read(HELLO_SIZE)
        buf = HandshakeBuffer(Limits())
        buf.feed(self.read(REPLY_SIZE))
        reply = buf.read_reply()
        assert reply is not None
        assert reply.tag == tag, reply
        if tag == Tag.SEQ:
            self.read(8)
            self.send(bytes(8))  # we got nothing so far
        return reply


def with_authorizer_length(connect: bytes, length: int) -> bytes:
    """*connect* claiming an authorizer of so many bytes."""
    at = CONNECT_SIZE - 5
    return connect[:at] + struct.pack("<I", length) + connect[at + 4 :]


def tls_hello() -> bytes:
    """What a TLS client says first."""
    out = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.test")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()
