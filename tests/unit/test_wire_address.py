"""Addresses: both encodings, the order that decides races, the text form (wire spec §4)."""

from __future__ import annotations

import pytest

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import (
    ADDR_SIZE,
    AF_INET,
    AF_INET6,
    AF_NONE,
    TYPE_ANY,
    TYPE_LEGACY,
    TYPE_MSGR2,
    TYPE_NONE,
    EntityAddr,
    decode_vector,
    encode_vector,
    split_address,
    split_bind,
)

V4 = EntityAddr.of("127.0.0.1", 6800, 12345)
V6 = EntityAddr.of("::1", 6801, 7)
LINK_LOCAL = EntityAddr.of("fe80::1", 6801, 7)._replace(scope=3, flowinfo=b"\1\2\3\4")
BLANK = EntityAddr()

V4_BYTES = bytes.fromhex("00000000 39300000 0002 1a90 7f000001 00000000") + bytes(116)
V6_BYTES = (
    bytes.fromhex("00000000 07000000 000a 1a91 00000000")
    + bytes.fromhex("00000000000000000000000000000001 00000000")
    + bytes(100)
)


# legacy encoding, §4 and §17


@pytest.mark.parametrize(
    ("addr", "encoded"),
    [(V4, V4_BYTES), (V6, V6_BYTES), (BLANK, bytes(136))],
    ids=["IPv4", "IPv6", "blank"],
)
def test_legacy_bytes(addr: EntityAddr, encoded: bytes) -> None:
    assert addr.encode() == encoded
    assert len(encoded) == ADDR_SIZE == 136
    assert EntityAddr.decode(encoded) == addr
    assert EntityAddr.decode(b"??" + encoded, 2) == addr


def test_legacy_ipv6_flowinfo_and_scope() -> None:
    encoded = LINK_LOCAL.encode()
    assert encoded[12:16] == b"\1\2\3\4"  # as in memory
    assert encoded[32:36] == b"\3\0\0\0"  # little-endian
    assert EntityAddr.decode(encoded) == LINK_LOCAL


@pytest.mark.parametrize("addr", [V4, V6], ids=["IPv4", "IPv6"])
def test_legacy_ignores_what_the_family_does_not_use(addr: EntityAddr) -> None:
    used = 16 if addr.family == AF_INET else 36
    assert EntityAddr.decode(addr.encode()[:used].ljust(136, b"\xff")) == addr


def test_legacy_without_family_keeps_port_and_nonce() -> None:
    addr = EntityAddr(port=6800, nonce=9)
    assert EntityAddr.decode(addr.encode()) == addr
    assert addr.is_blank_ip


@pytest.mark.parametrize(
    ("encoded", "field", "value", "offset"),
    [
        (b"\1" + bytes(135), "address.marker", 1, 0),
        (bytes(8) + b"\2\0" + bytes(126), "address.family", 0x0200, 8),
        (bytes(8) + b"\0\1" + bytes(126), "address.family", 1, 8),
        (bytes(135), "address.length", 135, 0),
    ],
)
def test_legacy_errors(encoded: bytes, field: str, value: int, offset: int) -> None:
    for shift in (0, 5):
        with pytest.raises(ProtocolError) as caught:
            EntityAddr.decode(bytes(shift) + encoded, shift)
        err = caught.value
        assert (err.field, err.value, err.offset) == (field, value, offset + shift)
        assert err.fault == "peer"


# versioned encoding, §4.3


@pytest.mark.parametrize(
    ("addr", "encoded"),
    [
        (V4, "01 01 01 1c000000 01000000 39300000 10000000 0200 1a90 7f000001 0000000000000000"),
        (
            V6,
            "01 01 01 28000000 01000000 07000000 1c000000 0a00 1a91 00000000"
            "00000000000000000000000000000001 00000000",
        ),
        (
            BLANK._replace(type=TYPE_NONE),
            "01 01 01 28000000 00000000 00000000 1c000000" + "00" * 28,
        ),
        (
            V4._replace(type=TYPE_MSGR2, port=3300, nonce=0),
            "01 01 01 1c000000 02000000 00000000 10000000 0200 0ce4 7f000001 0000000000000000",
        ),
    ],
    ids=["IPv4", "IPv6", "blank", "msgr2"],
)
def test_versioned_bytes(addr: EntityAddr, encoded: str) -> None:
    wanted = bytes.fromhex(encoded)
    assert addr.encode_versioned() == wanted
    assert EntityAddr.decode_versioned(wanted) == (addr, len(wanted))
    assert EntityAddr.decode_versioned(b"??" + wanted + b"!", 2) == (addr, len(wanted) + 2)


def test_versioned_accepts_legacy_by_its_marker() -> None:
    assert EntityAddr.decode_versioned(V4_BYTES + b"more") == (V4, 136)


def test_versioned_without_sockaddr() -> None:
    encoded = bytes.fromhex("010101 0c000000 00000000 05000000 00000000")
    assert EntityAddr.decode_versioned(encoded) == (EntityAddr(nonce=5, type=TYPE_NONE), 19)


def test_versioned_skips_what_a_newer_encoder_appends() -> None:
    encoded = bytearray(V4.encode_versioned() + b"new")
    encoded[3] += 3  # struct_len
    assert EntityAddr.decode_versioned(bytes(encoded)) == (V4, len(encoded))


@pytest.mark.parametrize(
    ("encoded", "field", "value", "offset"),
    [
        ("", "address.length", 0, 0),
        ("01 01 01 1c000000 01000000 39300000 1000", "address.length", 17, 0),
        ("01 01 01 1c000000 01000000 39300000 10000000 0200", "address.length", 21, 0),
        ("03 01 01 0c000000 00000000 00000000 00000000", "address.marker", 3, 0),
        ("01 02 02 0c000000 00000000 00000000 00000000", "address.compat", 2, 2),
        ("01 01 01 0b000000 00000000 00000000 00000000", "address.struct_len", 11, 3),
        ("01 01 01 0e000000 00000000 00000000 03000000 0200", "address.elen", 3, 15),
        ("01 01 01 0d000000 00000000 00000000 01000000 07", "address.elen", 1, 15),
        ("01 01 01 0e000000 00000000 00000000 02000000 0200", "address.elen", 2, 15),
        ("01 01 01 10000000 00000000 00000000 04000000 0900 0000", "address.family", 9, 19),
        ("00" * 135, "address.length", 135, 0),
    ],
)
def test_versioned_errors(encoded: str, field: str, value: int, offset: int) -> None:
    for shift in (0, 3):
        with pytest.raises(ProtocolError) as caught:
            EntityAddr.decode_versioned(bytes(shift) + bytes.fromhex(encoded), shift)
        err = caught.value
        assert (err.field, err.value, err.offset) == (field, value, offset + shift)


def test_vector() -> None:
    addrs = [V4._replace(type=TYPE_MSGR2), V4, V6]
    encoded = encode_vector(addrs)
    assert encoded[:5] == bytes.fromhex("02 03000000")
    assert decode_vector(b"?" + encoded + b"?", 1) == (addrs, len(encoded) + 1)
    assert decode_vector(bytes.fromhex("02 00000000")) == ([], 5)


@pytest.mark.parametrize(
    "single", [V4.encode(), V4.encode_versioned()], ids=["legacy", "versioned"]
)
def test_single_address_in_place_of_a_vector(single: bytes) -> None:
    assert decode_vector(single) == ([V4], len(single))


@pytest.mark.parametrize(
    "encoded", ["", "02 0100", "02 ffffffff", "02 02000000 01", "02 01000000 02"]
)
def test_vector_errors(encoded: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_vector(bytes.fromhex(encoded))
    assert caught.value.field in {"address.length", "address.marker"}


# order and equality, §4.1


def test_sort_key_is_the_reference_key() -> None:
    assert V4.sort_key() == bytes.fromhex("39300000 0200 1a90 7f000001")
    assert LINK_LOCAL.sort_key() == (
        bytes.fromhex("07000000 0a00 1a91 01020304 fe80000000000000 0000000000000001 03000000")
    )


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        # the nonce is compared from its lowest byte
        (EntityAddr.of("9.9.9.9", 9, 0x00000100), EntityAddr.of("1.1.1.1", 1, 0x00000001)),
        # and before everything else
        (EntityAddr.of("9.9.9.9", 9, 1), EntityAddr.of("1.1.1.1", 1, 2)),
        # family before port, in host order
        (EntityAddr.of("1.1.1.1", 9, 1), EntityAddr.of("::1", 1, 1)),
        # the port from its highest byte
        (EntityAddr.of("9.9.9.9", 0x00FF, 1), EntityAddr.of("1.1.1.1", 0x0100, 1)),
        (EntityAddr.of("1.1.1.1", 1, 1), EntityAddr.of("1.1.2.0", 1, 1)),
        (EntityAddr.of("::1", 1, 1), EntityAddr.of("::2", 1, 1)),
        # flowinfo before the ip, scope behind it
        (V6, V6._replace(flowinfo=b"\0\0\0\1")),
        (EntityAddr.of("::2", 1, 1), EntityAddr.of("::1", 1, 1)._replace(flowinfo=b"\1\0\0\0")),
        (LINK_LOCAL, LINK_LOCAL._replace(scope=4)),
        (LINK_LOCAL._replace(scope=0x100), LINK_LOCAL._replace(scope=1)),
    ],
)
def test_order(smaller: EntityAddr, larger: EntityAddr) -> None:
    assert smaller.sort_key() < larger.sort_key()


def test_order_does_not_depend_on_the_type() -> None:
    assert V4.sort_key() == V4._replace(type=TYPE_NONE).sort_key()


def test_equality_includes_the_nonce() -> None:
    assert EntityAddr.of("127.0.0.1", 6800, 12345) == V4
    assert V4._replace(nonce=1) != V4


# blank addresses, §4.2


@pytest.mark.parametrize(
    ("addr", "blank"),
    [
        (EntityAddr.of("0.0.0.0", 6800, 1), True),
        (EntityAddr.of("::", 6800, 1), True),
        (BLANK, True),
        (V4, False),
        (V6, False),
    ],
)
def test_blank_ip(addr: EntityAddr, blank: bool) -> None:
    assert addr.is_blank_ip is blank


def test_ip_of_another() -> None:
    announced = EntityAddr.of("0.0.0.0", 6800, 5)
    seen = EntityAddr.from_socket(("fe80::1%eth0", 40000, 0, 3))
    filled = announced.with_ip_of(seen)
    assert (filled.family, filled.host, filled.scope) == (AF_INET6, "fe80::1", 3)
    assert (filled.port, filled.nonce) == (6800, 5)


def test_from_socket() -> None:
    assert EntityAddr.from_socket(("127.0.0.1", 6800), 12345) == V4
    assert EntityAddr.from_socket(("::1", 6801, 0, 0), 7) == V6


# text, §4.4


@pytest.mark.parametrize(
    ("text", "addr"),
    [
        ("127.0.0.1:6800/12345", V4),
        ("[::1]:6801/7", V6),
        ("-", BLANK),
        (":6800/9", EntityAddr(port=6800, nonce=9)),
    ],
)
def test_text(text: str, addr: EntityAddr) -> None:
    assert str(addr) == text
    assert EntityAddr.parse(text) == addr


@pytest.mark.parametrize(
    ("text", "addr"),
    [
        ("127.0.0.1", V4._replace(port=0, nonce=0)),
        ("127.0.0.1:6800", V4._replace(nonce=0)),
        ("127.0.0.1/12345", V4._replace(port=0)),
        ("[::1]", V6._replace(port=0, nonce=0)),
        ("legacy:127.0.0.1:6800/12345", V4),
        ("v1:[::1]:6801/7", V6),
        ("v2:127.0.0.1:6800/12345", V4._replace(type=TYPE_MSGR2)),
        ("any:127.0.0.1:6800/12345", V4._replace(type=TYPE_ANY)),
        ("v1:-", BLANK),
        (" 127.0.0.1:6800/12345 ", V4),
        ("[fe80::1%3]:1/2", EntityAddr(AF_INET6, LINK_LOCAL.ip, 1, 2, scope=3)),
    ],
)
def test_text_read(text: str, addr: EntityAddr) -> None:
    assert EntityAddr.parse(text) == addr


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("localhost:6800", "'localhost' is no IPv4 or IPv6 address"),
        ("127.0.0.1:65536", "port '65536'"),
        ("127.0.0.1:-1", "port '-1'"),
        ("127.0.0.1:6800/4294967296", "nonce '4294967296'"),
        ("127.0.0.1:6800/x", "nonce 'x'"),
        ("127.0.0.1:6800/", "nonce ''"),
        ("::1:6801", "IPv6 must be written"),
        ("[::1:6801", "IPv6 must be [ip]:port"),
        ("[::1]6801", "IPv6 must be [ip]:port"),
    ],
)
def test_text_errors_name_text_and_part(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^address") as caught:
        EntityAddr.parse(text)
    assert repr(text) in str(caught.value)
    assert part in str(caught.value)


def test_split_keeps_host_names_and_a_missing_nonce() -> None:
    assert split_address("v1:ceph.example:6789") == ("ceph.example", 6789, None)
    assert split_address("svc/0") == ("svc", 0, 0)


def test_family_numbers_are_those_of_linux() -> None:
    assert (AF_NONE, AF_INET, AF_INET6) == (0, 2, 10)
    assert (TYPE_NONE, TYPE_LEGACY, TYPE_MSGR2, TYPE_ANY) == (0, 1, 2, 3)


# where to listen


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("127.0.0.1:6800", ("127.0.0.1", 6800, 6800)),
        ("127.0.0.1:6800-7300", ("127.0.0.1", 6800, 7300)),
        ("[::1]:0", ("::1", 0, 0)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1, 1)),
        ("localhost:65535", ("localhost", 65535, 65535)),
        ("::1:0", None),
        ("[127.0.0.1]:1", None),
        ("gate-1.example.org:1", ("gate-1.example.org", 1, 1)),
        ("-gate:1", None),
        ("a b:1", None),
        ("127.0.0.1:", None),
        (":6800", None),
        ("127.0.0.1:65536", None),
        ("127.0.0.1:7300-6800", None),
        ("127.0.0.1:0-5", None),
        ("127.0.0.1:-5", None),
        ("127.0.0.256:1", None),
    ],
)
def test_split_bind(text: str, split: tuple[str, int, int] | None) -> None:
    assert split_bind(text) == split
