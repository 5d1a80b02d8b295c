"""The handshake's structures and the buffer they are read from (wire spec §2, §3, §6).

server                                  client
banner 9, own address 136,     ->
client's address as seen 136
                               <-       banner 9, own address 136
                               <-       connect 33 + authorizer      } repeated until the
reply 26 + authorizer          ->                                    } tag is READY or SEQ
u64 in_seq (SEQ only)          ->
                               <-       u64 in_seq (SEQ only)
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import ADDR_SIZE, EntityAddr
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.v1.tags import REPLY_TAGS

BANNER = b"ceph v027"
FLAG_LOSSY = 1

_CONNECT = struct.Struct("<QIIIIIIB")
_REPLY = struct.Struct("<BQIIIIB")
_SEQ = struct.Struct("<Q")
CONNECT_SIZE = _CONNECT.size  # 33
REPLY_SIZE = _REPLY.size  # 26


class Connect(NamedTuple):
    """What a client proposes (spec §6.1), its authorizer bytes included."""

    features: int
    host_type: int
    global_seq: int
    connect_seq: int
    protocol_version: int
    authorizer_protocol: int = 0
    authorizer: bytes = b""
    flags: int = 0

    @property
    def lossy(self) -> bool:
        """The client's policy; informational, the server decides."""
        return bool(self.flags & FLAG_LOSSY)

    def encode(self) -> bytes:
        """33 bytes and the authorizer."""
        fixed = _CONNECT.pack(*self[:6], len(self.authorizer), self.flags)
        return fixed + self.authorizer


class Reply(NamedTuple):
    """What a server answers (spec §6.2), its authorizer reply bytes included."""

    tag: int
    features: int = 0
    global_seq: int = 0
    connect_seq: int = 0
    protocol_version: int = 0
    authorizer: bytes = b""
    flags: int = 0

    @property
    def lossy(self) -> bool:
        """The server's policy: it decides for both sides."""
        return bool(self.flags & FLAG_LOSSY)

    def encode(self) -> bytes:
        """26 bytes and the authorizer reply."""
        fixed = _REPLY.pack(*self[:5], len(self.authorizer), self.flags)
        return fixed + self.authorizer


def encode_server_hello(own: EntityAddr, peer: EntityAddr) -> bytes:
    """What a server sends at once, 281 bytes: banner, *own* address, *peer* as seen."""
    return BANNER + own.encode() + peer.encode()


def encode_seq(seq: int) -> bytes:
    """The raw u64 of the SEQ exchange."""
    return _SEQ.pack(seq)


class HandshakeBuffer:
    """Collects a socket's first bytes and reads structures off their front.

    Every read_* returns None until all its bytes are there. Raises ProtocolError for what breaks
    the protocol, as soon as that can be known. `offset` is the stream position of the next byte.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buf = bytearray()
        self.offset = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Append what the socket delivered."""
        self._buf += data

    def take_rest(self) -> bytes:
        """The bytes behind the handshake: they belong to the frame parser."""
        return self._take(len(self._buf))

    def read_banner(self) -> bytes | None:
        """The 9 bytes of the banner, checked as they come in."""
        got = bytes(self._buf[: len(BANNER)])
        if not BANNER.startswith(got):
            raise ProtocolError("banner", got, repr(BANNER), offset=self.offset)
        return self._take(len(BANNER)) if len(got) == len(BANNER) else None

    def read_address(self) -> EntityAddr | None:
        """A legacy address."""
        if len(self._buf) < ADDR_SIZE:
            return None
        try:
            return EntityAddr.decode(self._take(ADDR_SIZE))
        except ProtocolError as err:
            at = self.offset - ADDR_SIZE + (err.offset or 0)
            raise ProtocolError(err.field, err.value, err.allowed, offset=at) from None

    def read_connect(self) -> Connect | None:
        """A connect structure with its authorizer."""
        if len(self._buf) < CONNECT_SIZE:
            return None
        fixed: tuple[int, int, int, int, int, int, int, int] = _CONNECT.unpack_from(self._buf)
        auth_len, flags = fixed[6:]
        self._check_authorizer(auth_len, 28)
        if len(self._buf) < CONNECT_SIZE + auth_len:
            return None
        self._take(CONNECT_SIZE)
        return Connect(*fixed[:6], self._take(auth_len), flags)

    def read_reply(self) -> Reply | None:
        """A connect reply with its authorizer reply."""
        if self._buf and self._buf[0] not in REPLY_TAGS:
            allowed = "a reply tag (1-5, 10-13, 16)"
            raise ProtocolError("reply.tag", self._buf[0], allowed, offset=self.offset)
        if len(self._buf) < REPLY_SIZE:
            return None
        fixed: tuple[int, int, int, int, int, int, int] = _REPLY.unpack_from(self._buf)
        auth_len, flags = fixed[5:]
        self._check_authorizer(auth_len, 21)
        if len(self._buf) < REPLY_SIZE + auth_len:
            return None
        self._take(REPLY_SIZE)
        return Reply(*fixed[:5], self._take(auth_len), flags)

    def read_seq(self) -> int | None:
        """The raw u64 of the SEQ exchange."""
        if len(self._buf) < _SEQ.size:
            return None
        (seq,) = _SEQ.unpack(self._take(_SEQ.size))
        return int(seq)

    def _check_authorizer(self, length: int, field_offset: int) -> None:
        cap = self._limits.max_authorizer
        if length > cap:
            at = self.offset + field_offset
            raise ProtocolError("authorizer_len", length, f"at most {cap}", offset=at)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buf[:size])
        del self._buf[:size]
        self.offset += size
        return taken
