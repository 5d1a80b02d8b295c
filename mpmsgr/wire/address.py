"""Entity addresses: legacy and versioned encoding, order, text (wire spec §4)."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from mpmsgr.errors import ProtocolError

AF_NONE, AF_INET, AF_INET6 = 0, 2, 10  # Linux's numbers, whatever the host's are
ADDR_SIZE = 136
TYPE_NONE, TYPE_LEGACY, TYPE_MSGR2, TYPE_ANY = 0, 1, 2, 3

_LEGACY = struct.Struct("<II")
_FAMILY_PORT = struct.Struct(">HH")
_SCOPE = struct.Struct("<I")
_VERSIONED = struct.Struct("<BBBIIII")  # marker, v, compat, struct_len, type, nonce, elen
_ELEN = {AF_INET: 16, AF_INET6: 28}
_PREFIXES = {"legacy": TYPE_LEGACY, "v1": TYPE_LEGACY, "v2": TYPE_MSGR2, "any": TYPE_ANY}
_HOST_NAME = re.compile(r"(?=.*[A-Za-z])\w([\w.-]*\w)?", re.ASCII)
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class EntityAddr(NamedTuple):
    """Where an endpoint is: family (Linux number), ip (4 or 16 bytes), port, and its nonce.

    flowinfo (4 raw bytes) and scope belong to IPv6. *type* never reaches a legacy encoding.
    Equality is equality of all fields, the nonce included.
    """

    family: int = AF_NONE
    ip: bytes = b""
    port: int = 0
    nonce: int = 0
    flowinfo: bytes = bytes(4)
    scope: int = 0
    type: int = TYPE_LEGACY

    @classmethod
    def of(cls, host: str, port: int, nonce: int = 0) -> EntityAddr:
        """Address of a literal IPv4 or IPv6 *host*. Raises ValueError for anything else."""
        literal, _, zone = host.partition("%")
        ip = ipaddress.ip_address(literal)
        family = AF_INET if ip.version == 4 else AF_INET6
        return cls(family, ip.packed, port, nonce, scope=int(zone) if zone.isdecimal() else 0)

    @classmethod
    def from_socket(cls, name: Sequence[object], nonce: int = 0) -> EntityAddr:
        """Address of what getsockname() or getpeername() returned."""
        host, port = name[0], name[1]
        assert isinstance(host, str)
        assert isinstance(port, int)
        addr = cls.of(host.partition("%")[0], port, nonce)
        if len(name) == 4:
            assert isinstance(name[3], int)
            addr = addr._replace(scope=name[3])
        return addr

    @property
    def host(self) -> str:
        """The ip in text, ``""`` when there is none."""
        return str(ipaddress.ip_address(self.ip)) if self.ip else ""

    @property
    def is_blank_ip(self) -> bool:
        """True for 0.0.0.0, ::, or no family: the ip is unknown (spec §4.2)."""
        return self.family not in _ELEN or not any(self.ip)

    def with_ip_of(self, other: EntityAddr) -> EntityAddr:
        """Family and ip of *other*; own port and nonce."""
        return other._replace(port=self.port, nonce=self.nonce)

    def sort_key(self) -> bytes:
        """Bytes whose order is the reference's address order (spec §4.1); decides races."""
        place = struct.pack("<IH", self.nonce, self.family) + struct.pack(">H", self.port)
        return place + self._ip_part()

    # legacy encoding

    def encode(self) -> bytes:
        """The 136 legacy bytes (type 0, family big-endian)."""
        head = _LEGACY.pack(0, self.nonce) + _FAMILY_PORT.pack(self.family, self.port)
        return (head + self._ip_part()).ljust(ADDR_SIZE, b"\0")

    def _ip_part(self) -> bytes:
        if self.family == AF_INET6:
            return self.flowinfo + self.ip + _SCOPE.pack(self.scope)
        return self.ip

    @classmethod
    def decode(cls, buf: bytes, offset: int = 0) -> EntityAddr:
        """Read 136 legacy bytes at *offset*; unused bytes are ignored.

        Raises ProtocolError for bytes that end early, a marker other than 0, or a family that is
        neither IPv4, IPv6 nor 0.
        """
        _need(buf, offset, ADDR_SIZE)
        kind, nonce = _LEGACY.unpack_from(buf, offset)
        if kind & 0xFF:
            raise ProtocolError("address.marker", kind & 0xFF, "0 (legacy encoding)", offset=offset)
        family, port = _FAMILY_PORT.unpack_from(buf, offset + 8)
        return cls._from_sockaddr(family, port, buf, offset + 12, nonce, TYPE_LEGACY, offset + 8)

    @classmethod
    def _from_sockaddr(
        cls, family: int, port: int, buf: bytes, at: int, nonce: int, kind: int, family_at: int
    ) -> EntityAddr:
        if family == AF_INET:
            return cls(family, bytes(buf[at : at + 4]), port, nonce, type=kind)
        if family == AF_INET6:
            (scope,) = _SCOPE.unpack_from(buf, at + 20)
            flow, ip = bytes(buf[at : at + 4]), bytes(buf[at + 4 : at + 20])
            return cls(family, ip, port, nonce, flow, scope, kind)
        if family == AF_NONE:
            return cls(port=port, nonce=nonce, type=kind)
        raise ProtocolError("address.family", family, "2 (IPv4), 10 (IPv6) or 0", offset=family_at)

    # versioned encoding (payloads only)

    def encode_versioned(self) -> bytes:
        """The versioned encoding of feature MSG_ADDR2 (spec §4.3)."""
        if self.family in _ELEN:
            elen = _ELEN[self.family]
            sockaddr = struct.pack("<H", self.family) + struct.pack(">H", self.port)
            sockaddr = (sockaddr + self._ip_part()).ljust(elen, b"\0")
        else:
            elen, sockaddr = 28, bytes(28)
        return _VERSIONED.pack(1, 1, 1, 12 + elen, self.type, self.nonce, elen) + sockaddr

    @classmethod
    def decode_versioned(cls, buf: bytes, offset: int = 0) -> tuple[EntityAddr, int]:
        """Read a versioned (marker 1) or legacy (marker 0) address; return it and the end offset.

        Raises ProtocolError when the bytes end early, or for a marker, version or length that
        cannot be read.
        """
        if buf[offset : offset + 1] == b"\0":
            return cls.decode(buf, offset), offset + ADDR_SIZE
        _need(buf, offset, _VERSIONED.size)
        marker, _v, compat, length, kind, nonce, elen = _VERSIONED.unpack_from(buf, offset)
        if marker != 1:
            raise ProtocolError("address.marker", marker, "0 or 1", offset=offset)
        if compat > 1:
            raise ProtocolError("address.compat", compat, "1", offset=offset + 2)
        if length < 12:
            raise ProtocolError("address.struct_len", length, "12 or more", offset=offset + 3)
        _need(buf, offset, 7 + length)
        end, at = offset + 7 + length, offset + _VERSIONED.size
        if elen > length - 12:
            raise ProtocolError("address.elen", elen, f"at most {length - 12}", offset=at - 4)
        if elen == 0:
            return cls(nonce=nonce, type=kind), end
        family = int.from_bytes(buf[at : at + 2], "little")
        least = _ELEN.get(family, 2)
        if elen < least:
            raise ProtocolError("address.elen", elen, f"{least} or more", offset=at - 4)
        port = int.from_bytes(buf[at + 2 : at + 4], "big")
        return cls._from_sockaddr(family, port, buf, at + 4, nonce, kind, at), end

    # text

    def __str__(self) -> str:
        """``ip:port/nonce``, IPv6 in brackets, blank as ``-``."""
        if self.family not in _ELEN:
            return "-" if not (self.port or self.nonce) else f":{self.port}/{self.nonce}"
        host = f"[{self.host}]" if self.family == AF_INET6 else self.host
        return f"{host}:{self.port}/{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> EntityAddr:
        """Read the text form of a literal address; port and nonce may be missing (0).

        A prefix (``v1:``, ``legacy:``, ``v2:``, ``any:``) gives the type, else it is v1's.
        Raises ValueError naming the part that is wrong. Host names: see `split_address`.
        """
        host, port, nonce = split_address(text)
        kind = _PREFIXES.get(text.strip().partition(":")[0], TYPE_LEGACY)
        if not host:
            return cls(port=port, nonce=nonce or 0, type=kind)
        try:
            return cls.of(host, port, nonce or 0)._replace(type=kind)
        except ValueError:
            raise ValueError(f"address {text!r}: {host!r} is no IPv4 or IPv6 address") from None


def encode_vector(addrs: Sequence[EntityAddr]) -> bytes:
    """An address vector: marker 2, count, versioned addresses (spec §4.3)."""
    return struct.pack("<BI", 2, len(addrs)) + b"".join(a.encode_versioned() for a in addrs)


def decode_vector(buf: bytes, offset: int = 0) -> tuple[list[EntityAddr], int]:
    """Read an address vector, or the single address that may stand in its place."""
    if buf[offset : offset + 1] != b"\2":
        addr, end = EntityAddr.decode_versioned(buf, offset)
        return [addr], end
    _need(buf, offset, 5)
    (count,) = struct.unpack_from("<I", buf, offset + 1)
    addrs, at = [], offset + 5
    for _ in range(count):
        addr, at = EntityAddr.decode_versioned(buf, at)
        addrs.append(addr)
    return addrs, at


def split_address(text: str) -> tuple[str, int, int | None]:
    """Split ``[v1:]HOST:PORT[/NONCE]`` into host, port (0 if missing), nonce (None if missing).

    The host may be a name. Raises ValueError naming the part that is wrong.
    """
    rest = text.strip()
    prefix, colon, tail = rest.partition(":")
    if colon and prefix in _PREFIXES:
        rest = tail
    if rest == "-":
        return "", 0, None
    rest, slash, nonce = rest.partition("/")
    if slash and not (nonce.isdecimal() and int(nonce) < 1 << 32):
        raise ValueError(f"address {text!r}: nonce {nonce!r} must be a number below 2^32")
    host, port = _split_port(text, rest)
    return host, port, int(nonce) if slash else None


def _split_port(text: str, rest: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(f"address {text!r}: IPv6 must be [ip]:port")
        port = port[1:]
    else:
        host, _, port = rest.partition(":")
        if ":" in port:
            raise ValueError(f"address {text!r}: IPv6 must be written [ip]:port")
    if port and not (port.isdecimal() and int(port) < 65536):
        raise ValueError(f"address {text!r}: port {port!r} must be a number below 65536")
    return host, int(port or 0)


def split_bind(text: str) -> tuple[str, int, int] | None:
    """``HOST:PORT`` or ``HOST:A-B`` (IPv6 in brackets) as host, lowest and highest port.

    None if it is neither.
    """
    host, colon, ports = text.rpartition(":")
    match = _PORTS.fullmatch(ports)
    if not colon or not match or not (host := _bind_host(host)):
        return None
    low = int(match[1])
    high = int(match[2]) if match[2] else low
    ordered = low == high if low == 0 else low <= high
    return (host, low, high) if ordered and high < 65536 else None


def _bind_host(text: str) -> str:
    """The host without brackets, "" if it cannot be one."""
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1] if is_ip(text[1:-1], 6) else ""
    return text if is_ip(text, 4) or _HOST_NAME.fullmatch(text) else ""


def is_ip(text: str, version: int) -> bool:
    """Is it an address of IPv4 (*version* 4) or IPv6 (6)?"""
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _need(buf: bytes, offset: int, size: int) -> None:
    if len(buf) - offset < size:
        raise ProtocolError(
            "address.length", len(buf) - offset, f"{size} bytes or more", offset=offset
        )
