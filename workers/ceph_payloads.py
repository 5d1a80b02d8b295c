"""Payloads of the messages between a Ceph client and a monitor: bytes <-> values, nothing else.

Read from and written as Ceph 16.2 does it (little-endian; a string is u32 length + bytes).
Every decode raises ProtocolError, with the offset in the payload, for bytes that end early or hold
what the encoding does not allow; bytes behind the known fields are ignored, as Ceph does.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import EntityAddr, decode_vector, encode_vector
from mpmsgr.wire.crc import Bytes

PING = 2
MON_MAP = 4
MON_GET_MAP = 5  # empty payload, answered by MON_MAP
MON_SUBSCRIBE = 15
AUTH = 17
AUTH_REPLY = 18
MON_COMMAND = 50
MON_COMMAND_ACK = 51
CONFIG = 62

AUTH_NONE, AUTH_CEPHX = 1, 2

#: What every message of the monitor's service starts with: u64 version, s16 mon (-1), u64 tid.
PAXOS = struct.pack("<QhQ", 0, -1, 0)


class Reader:
    """Takes fields off *buf*, each checked against the bytes that are left.

    *base* is where *buf* starts in the payload, for the offsets in errors.
    """

    def __init__(self, buf: Bytes, base: int = 0) -> None:
        self.buf, self.base = bytes(buf), base
        self.at = 0

    @property
    def offset(self) -> int:
        """Position of the next byte in the payload."""
        return self.base + self.at

    def take(self, size: int, what: str) -> bytes:
        """The next *size* bytes; *what* names them in the error."""
        end = self.at + size
        if end > len(self.buf):
            allowed = f"at most the {len(self.buf) - self.at} bytes left"
            raise ProtocolError(what, f"{size} bytes", allowed, offset=self.offset)
        taken = self.buf[self.at : end]
        self.at = end
        return taken

    def number(self, code: str, what: str) -> int:
        """One integer of struct's format character *code*."""
        packed = struct.Struct(f"<{code}")
        (value,) = packed.unpack(self.take(packed.size, what))
        return int(value)

    def blob(self, what: str) -> bytes:
        """A u32 length and its bytes."""
        return self.take(self.number("I", what), what)

    def string(self, what: str) -> str:
        """A blob as text."""
        start = self.offset + 4
        try:
            return self.blob(what).decode()
        except UnicodeDecodeError as err:
            raise ProtocolError(what, err.object, "UTF-8 text", offset=start) from None

    def nested(self, what: str) -> Reader:
        """A reader of the next blob."""
        base = self.offset + 4
        return Reader(self.blob(what), base)

    def strings(self, what: str) -> tuple[str, ...]:
        """A u32 count and so many strings."""
        return tuple(self.string(what) for _ in range(self.number("I", what)))

    def versioned(self, what: str, oldest: int, known: int) -> Reader:
        """The body of a structure: u8 version, u8 oldest reader, u32 length, then the body.

        The version must be at least *oldest*, and a reader of version *known* must suffice.
        """
        start = self.offset
        version, compat = self.number("B", what), self.number("B", what)
        if version < oldest or compat > known:
            found = f"version {version} for readers of {compat} or newer"
            raise ProtocolError(what, found, f"versions {oldest} to {known}", offset=start)
        return self.nested(what)


def _blob(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _string(text: str) -> bytes:
    return _blob(text.encode())


def _strings(texts: Sequence[str]) -> bytes:
    return struct.pack("<I", len(texts)) + b"".join(map(_string, texts))


def _versioned(version: int, compat: int, body: bytes) -> bytes:
    return struct.pack("<BB", version, compat) + _blob(body)


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH, a client's step of authentication: *payload* belongs to *protocol*.

    The first step has protocol 0, its payload is an `AuthHello`.
    """

    protocol: int
    payload: bytes
    monmap_epoch: int = 0

    @classmethod
    def decode(cls, front: Bytes) -> Auth:
        """Read a front."""
        r = Reader(front)
        r.take(len(PAXOS), "auth.paxos")
        protocol, payload = r.number("I", "auth.protocol"), r.blob("auth.payload")
        return cls(protocol, payload, r.number("I", "auth.monmap_epoch"))

    def encode(self) -> bytes:
        """The front."""
        protocol, epoch = struct.pack("<I", self.protocol), struct.pack("<I", self.monmap_epoch)
        return PAXOS + protocol + _blob(self.payload) + epoch


@dataclass(frozen=True, slots=True)
class AuthHello:
    """First payload of AUTH: the methods a client offers and who it says it is.

    entity_type is a number of `mpmsgr.wire.name.EntityType` or 0, entity_id the text behind the
    dot of ``client.admin``, global_id (u64) 0 or the one it had before.
    """

    methods: tuple[int, ...]
    entity_type: int = 8
    entity_id: str = "admin"
    global_id: int = 0

    @classmethod
    def decode(cls, payload: bytes) -> AuthHello:
        """Read the payload of an AUTH of protocol 0."""
        r = Reader(payload)
        version = r.number("B", "hello.version")
        if version != 1:
            raise ProtocolError("hello.version", version, "1", offset=0)
        count = r.number("I", "hello.methods")
        methods = tuple(r.number("I", "hello.method") for _ in range(count))
        kind, name = r.number("I", "hello.entity_type"), r.string("hello.entity_id")
        return cls(methods, kind, name, r.number("Q", "hello.global_id"))

    def encode(self) -> bytes:
        """The payload."""
        methods = struct.pack(f"<BI{len(self.methods)}I", 1, len(self.methods), *self.methods)
        name = struct.pack("<I", self.entity_type) + _string(self.entity_id)
        return methods + name + struct.pack("<Q", self.global_id)


@dataclass(frozen=True, slots=True)
class AuthReply:
    """AUTH_REPLY: protocol chosen, result (0 or a negative errno), the client's global_id."""

    protocol: int
    result: int
    global_id: int
    payload: bytes = b""
    text: str = ""

    @classmethod
    def decode(cls, front: Bytes) -> AuthReply:
        """Read a front."""
        r = Reader(front)
        protocol, result = r.number("I", "reply.protocol"), r.number("i", "reply.result")
        global_id, payload = r.number("Q", "reply.global_id"), r.blob("reply.payload")
        return cls(protocol, result, global_id, payload, r.string("reply.text"))

    def encode(self) -> bytes:
        """The front."""
        fixed = struct.pack("<IiQ", self.protocol, self.result, self.global_id)
        return fixed + _blob(self.payload) + _string(self.text)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A wish for *what* from version *start* (u64) on; flags bit 0: only once."""

    what: str
    start: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    """MON_SUBSCRIBE (encoding 3): what a client on *host* wants to be told."""

    wishes: tuple[Subscription, ...]
    host: str = ""

    @classmethod
    def decode(cls, front: Bytes) -> Subscribe:
        """Read a front."""
        r = Reader(front)
        wishes = tuple(cls._wish(r) for _ in range(r.number("I", "subscribe.count")))
        return cls(wishes, r.string("subscribe.host"))

    @staticmethod
    def _wish(r: Reader) -> Subscription:
        what, start = r.string("subscribe.what"), r.number("Q", "subscribe.start")
        return Subscription(what, start, r.number("B", "subscribe.flags"))

    def encode(self) -> bytes:
        """The front."""
        wishes = [_string(w.what) + struct.pack("<QB", w.start, w.flags) for w in self.wishes]
        return struct.pack("<I", len(wishes)) + b"".join(wishes) + _string(self.host)


def decode_config(front: Bytes) -> dict[str, str]:
    """Read the front of a CONFIG: option values by name."""
    r = Reader(front)
    count = r.number("I", "config.count")
    return {r.string("config.name"): r.string("config.value") for _ in range(count)}


def encode_config(options: Mapping[str, str]) -> bytes:
    """The front of a CONFIG."""
    pairs = (_string(name) + _string(value) for name, value in options.items())
    return struct.pack("<I", len(options)) + b"".join(pairs)


def decode_text(front: Bytes) -> str:
    """Read the front of a monitor's PING: one string, JSON by convention."""
    return Reader(front).string("ping.text")


def encode_text(text: str) -> bytes:
    """The front of a monitor's PING."""
    return _string(text)


@dataclass(frozen=True, slots=True)
class Command:
    """MON_COMMAND: command lines (JSON objects as text) for the cluster *fsid*."""

    fsid: UUID
    lines: tuple[str, ...]

    @classmethod
    def decode(cls, front: Bytes) -> Command:
        """Read a front."""
        r = Reader(front)
        r.take(len(PAXOS), "command.paxos")
        return cls(UUID(bytes=r.take(16, "command.fsid")), r.strings("command.lines"))

    def encode(self) -> bytes:
        """The front."""
        return PAXOS + self.fsid.bytes + _strings(self.lines)


@dataclass(frozen=True, slots=True)
class CommandAck:
    """MON_COMMAND_ACK: result (0 or a negative errno), a text for stderr, the lines answered.

    The command's output travels in the message's data.
    """

    result: int
    text: str
    lines: tuple[str, ...]

    @classmethod
    def decode(cls, front: Bytes) -> CommandAck:
        """Read a front."""
        r = Reader(front)
        r.take(len(PAXOS), "ack.paxos")
        return cls(r.number("i", "ack.result"), r.string("ack.text"), r.strings("ack.lines"))

    def encode(self) -> bytes:
        """The front."""
        return PAXOS + struct.pack("<i", self.result) + _string(self.text) + _strings(self.lines)


Stamp = tuple[int, int]
"""A time: u32 seconds since 1970, u32 nanoseconds."""


@dataclass(frozen=True, slots=True)
class MonInfo:
    """One monitor of a map: its name and addresses."""

    name: str
    addrs: tuple[EntityAddr, ...]

    @classmethod
    def decode(cls, r: Reader) -> MonInfo:
        """Read a mon_info structure (version 3 or later)."""
        body = r.versioned("mon_info", oldest=3, known=5)
        name = body.string("mon_info.name")
        addrs, body.at = decode_vector(body.buf, body.at)
        return cls(name, tuple(addrs))

    def encode(self) -> bytes:
        """The structure, version 5, with priority 0, weight 0 and no crush location."""
        place = struct.pack("<HHI", 0, 0, 0)
        return _versioned(5, 1, _string(self.name) + encode_vector(self.addrs) + place)


@dataclass(frozen=True, slots=True)
class MonMap:
    """MON_MAP: who the monitors of cluster *fsid* are.

    Covers what a connecting client looks at. The fields behind min_mon_release (election
    strategy, stretch mode) are written as "classic" and "off" and not read.
    """

    fsid: UUID
    mons: tuple[MonInfo, ...]
    epoch: int = 1
    last_changed: Stamp = (0, 0)
    created: Stamp = (0, 0)
    persistent_features: int = 0xFF  # all monitor features of 16.2
    optional_features: int = 0
    ranks: tuple[str, ...] = ()  # none: the mons in their order
    min_mon_release: int = 16

    @classmethod
    def decode(cls, front: Bytes) -> MonMap:
        """Read a front (map version 6 or later).

        A monitor writes version 1 for a peer that does not announce its release's features.
        """
        r = Reader(front).nested("monmap").versioned("monmap", oldest=6, known=9)
        return cls(
            fsid=UUID(bytes=r.take(16, "monmap.fsid")),
            epoch=r.number("I", "monmap.epoch"),
            last_changed=cls._stamp(r, "monmap.last_changed"),
            created=cls._stamp(r, "monmap.created"),
            persistent_features=cls._features(r, "monmap.persistent_features"),
            optional_features=cls._features(r, "monmap.optional_features"),
            mons=cls._mons(r),
            ranks=r.strings("monmap.ranks"),
            min_mon_release=r.number("B", "monmap.min_mon_release") if r.at < len(r.buf) else 0,
        )

    @staticmethod
    def _stamp(r: Reader, what: str) -> Stamp:
        return r.number("I", what), r.number("I", what)

    @staticmethod
    def _features(r: Reader, what: str) -> int:
        return r.versioned(what, oldest=1, known=1).number("Q", what)

    @staticmethod
    def _mons(r: Reader) -> tuple[MonInfo, ...]:
        mons = []
        for _ in range(r.number("I", "monmap.mons")):
            r.string("monmap.mon")
            mons.append(MonInfo.decode(r))
        return tuple(mons)

    def encode(self) -> bytes:
        """The front, map version 9 (readers of 6 and newer)."""
        ranks = self.ranks or tuple(mon.name for mon in self.mons)
        features = (self.persistent_features, self.optional_features)
        body = b"".join(
            (
                self.fsid.bytes,
                struct.pack("<I4I", self.epoch, *self.last_changed, *self.created),
                *(_versioned(1, 1, struct.pack("<Q", mask)) for mask in features),
                struct.pack("<I", len(self.mons)),
                *(_string(mon.name) + mon.encode() for mon in self.mons),
                _strings(ranks),
                struct.pack("<B", self.min_mon_release),
                # removed ranks, strategy 1 (classic), disallowed leaders,
                # stretch mode, tiebreaker, monitors stretched down
                struct.pack("<IBIBII", 0, 1, 0, 0, 0, 0),
            )
        )
        return _blob(_versioned(9, 6, body))
