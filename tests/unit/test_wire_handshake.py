"""The handshake's structures and their buffer (wire spec §2, §3, §6, §17)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.v1.handshake import (
    BANNER,
    CONNECT_SIZE,
    REPLY_SIZE,
    Connect,
    HandshakeBuffer,
    Reply,
    encode_seq,
    encode_server_hello,
)
from mpmsgr.wire.v1.tags import FRAME_TAGS, REPLY_TAGS, Tag

CONNECT = Connect(0x40000800042, 8, 1, 0, 24, flags=1)
CONNECT_BYTES = bytes.fromhex(
    "4200800000040000 08000000 01000000 00000000 18000000"
) + bytes.fromhex("00000000 00000000 01")
REPLY = Reply(Tag.READY, 0x40000800042, 5, 1, 24, flags=1)
REPLY_BYTES = bytes.fromhex("01 4200800000040000 05000000 01000000 18000000 00000000 01")
ADDRESS = EntityAddr.of("127.0.0.1", 6800, 12345)

Read = Callable[[HandshakeBuffer], object]


def buffer(data: bytes = b"", max_authorizer: int = 4096) -> HandshakeBuffer:
    buf = HandshakeBuffer(Limits(max_authorizer=max_authorizer))
    buf.feed(data)
    return buf


# bytes


def test_sizes() -> None:
    assert (len(BANNER), CONNECT_SIZE, REPLY_SIZE) == (9, 33, 26)
    assert bytes.fromhex("63 65 70 68 20 76 30 32 37") == BANNER


def test_connect_bytes() -> None:
    assert CONNECT.encode() == CONNECT_BYTES
    assert len(CONNECT_BYTES) == 33
    assert CONNECT.lossy


def test_reply_bytes() -> None:
    assert REPLY.encode() == REPLY_BYTES
    assert len(REPLY_BYTES) == 26
    assert REPLY.lossy


def test_authorizer_follows_with_its_length() -> None:
    connect = CONNECT._replace(authorizer_protocol=1, authorizer=b"who", flags=0).encode()
    assert connect[24:] == bytes.fromhex("01000000 03000000 00") + b"who"
    reply = REPLY._replace(authorizer=b"you", flags=0).encode()
    assert reply[21:] == bytes.fromhex("03000000 00") + b"you"


def test_server_hello_is_281_bytes() -> None:
    seen = EntityAddr.of("10.0.0.1", 40000)
    hello = encode_server_hello(ADDRESS, seen)
    assert len(hello) == 281
    assert hello == BANNER + ADDRESS.encode() + seen.encode()


def test_seq_is_a_raw_u64() -> None:
    assert encode_seq(0x0102) == bytes.fromhex("0201000000000000")


def test_every_tag_is_a_reply_or_a_frame() -> None:
    assert {int(tag) for tag in REPLY_TAGS} == {1, 2, 3, 4, 5, 10, 11, 12, 13, 16}
    assert {int(tag) for tag in FRAME_TAGS} == {6, 7, 8, 9, 14, 15}


# reading

STRUCTURES: list[tuple[str, bytes, Read, object]] = [
    ("banner", BANNER, HandshakeBuffer.read_banner, BANNER),
    ("address", ADDRESS.encode(), HandshakeBuffer.read_address, ADDRESS),
    ("connect", CONNECT_BYTES, HandshakeBuffer.read_connect, CONNECT),
    (
        "connect with authorizer",
        CONNECT._replace(authorizer=b"a" * 22).encode(),
        HandshakeBuffer.read_connect,
        CONNECT._replace(authorizer=b"a" * 22),
    ),
    ("reply", REPLY_BYTES, HandshakeBuffer.read_reply, REPLY),
    (
        "reply with authorizer",
        REPLY._replace(authorizer=b"a" * 36).encode(),
        HandshakeBuffer.read_reply,
        REPLY._replace(authorizer=b"a" * 36),
    ),
    ("seq", encode_seq(1 << 63), HandshakeBuffer.read_seq, 1 << 63),
]


@pytest.mark.parametrize(
    ("encoded", "read", "value"),
    [row[1:] for row in STRUCTURES],
    ids=[row[0] for row in STRUCTURES],
)
def test_reads_when_the_last_byte_is_there(encoded: bytes, read: Read, value: object) -> None:
    buf = buffer()
    for i in range(len(encoded)):
        assert read(buf) is None
        assert buf.offset == 0
        buf.feed(encoded[i : i + 1])
    buf.feed(b"rest")
    assert read(buf) == value
    assert buf.offset == len(encoded)
    assert buf.take_rest() == b"rest"


def test_reads_one_structure_after_the_other() -> None:
    buf = buffer(BANNER + ADDRESS.encode() + CONNECT_BYTES + encode_seq(41) + b"\x09")
    read = (buf.read_banner(), buf.read_address(), buf.read_connect(), buf.read_seq())
    assert read == (BANNER, ADDRESS, CONNECT, 41)
    assert buf.offset == 9 + 136 + 33 + 8
    assert buf.take_rest() == b"\x09"
    assert buf.take_rest() == b""


# errors


def broken(buf: HandshakeBuffer, read: Read) -> tuple[str, object, int | None, str]:
    with pytest.raises(ProtocolError) as caught:
        read(buf)
    err = caught.value
    assert err.allowed
    return err.field, err.value, err.offset, err.fault


@pytest.mark.parametrize("sent", [b"x", b"ceph v2\n", b"GET / HTTP/1.1\r\n", b"ceph v028"])
def test_wrong_banner_is_known_from_its_first_wrong_byte(sent: bytes) -> None:
    assert broken(buffer(sent), HandshakeBuffer.read_banner) == ("banner", sent[:9], 0, "peer")


def test_wrong_address_names_its_place_in_the_stream() -> None:
    buf = buffer(BANNER + b"\1" + bytes(135))
    buf.read_banner()
    found = broken(buf, HandshakeBuffer.read_address)
    assert found == ("address.marker", 1, 9, "peer")
    buf = buffer(BANNER + bytes(8) + b"\2\0" + bytes(126))
    buf.read_banner()
    found = broken(buf, HandshakeBuffer.read_address)
    assert found == ("address.family", 0x0200, 9 + 8, "peer")


@pytest.mark.parametrize("tag", sorted(set(range(256)) - {int(t) for t in REPLY_TAGS}))
def test_wrong_reply_tag_is_known_from_its_byte(tag: int) -> None:
    buf = buffer(encode_seq(0) + bytes([tag]))
    buf.read_seq()
    assert broken(buf, HandshakeBuffer.read_reply) == ("reply.tag", tag, 8, "peer")


@pytest.mark.parametrize(
    ("fixed", "read", "offset"),
    [
        (CONNECT_BYTES[:28], HandshakeBuffer.read_connect, 28),
        (REPLY_BYTES[:21], HandshakeBuffer.read_reply, 21),
    ],
    ids=["connect", "reply"],
)
def test_authorizer_cap(fixed: bytes, read: Read, offset: int) -> None:
    def claiming(length: int) -> HandshakeBuffer:
        buf = buffer(encode_seq(0) + fixed + length.to_bytes(4, "little") + b"\0", 100)
        buf.read_seq()
        return buf

    assert read(claiming(100)) is None
    for length in (101, 0xFFFFFFFF):
        wanted = ("authorizer_len", length, 8 + offset, "peer")
        assert broken(claiming(length), read) == wanted


def test_an_authorizer_of_the_longest_length_is_read() -> None:
    connect = CONNECT._replace(authorizer=bytes(4096))
    assert buffer(connect.encode()).read_connect() == connect
