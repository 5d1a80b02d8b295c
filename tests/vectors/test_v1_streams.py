"""What real Ceph peers sent parses completely, as recorded, and encodes to the same bytes.

Every stream is read in several chunkings: the handshake through `HandshakeBuffer`, what follows
through `FrameParser`. Two of them end where the connection was cut (`TRUNCATED`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.authorizer import PROTOCOL_CEPHX, PROTOCOL_NONE, NoneAuthorizer
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.features import CEPH_PACIFIC
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import type_label
from mpmsgr.wire.v1.frames import (
    CLOSE,
    KEEPALIVE,
    encode_ack,
    encode_keepalive2,
    encode_keepalive2_ack,
    message_writer,
)
from mpmsgr.wire.v1.handshake import (
    BANNER,
    Connect,
    HandshakeBuffer,
    Reply,
    encode_seq,
    encode_server_hello,
)
from mpmsgr.wire.v1.parcel import FOOTER, HEAD, HEADER_SIZE, Parcel, decode_raw, encode_parcel
from mpmsgr.wire.v1.parser import Frame, FrameParser
from mpmsgr.wire.v1.tags import Tag
from tests.streams import chunks

FOLDER = Path(__file__).parent / "v1"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
STREAMS = [(name, side) for name in NAMES for side in ("client", "server")]
CHUNKINGS: dict[str, tuple[int, ...]] = {
    "whole": (1 << 20,),
    "byte by byte": (1,),
    "by 7": (7,),
    "uneven": (1, 54, 8, 1000, 2, 300),
}
Record = dict[str, Any]


class Parsed(NamedTuple):
    """One side of a connection: what was read, and the bytes left at its end."""

    addresses: list[EntityAddr]
    connects: list[Connect]
    replies: list[Reply]
    in_seq: int | None
    frames: list[Frame]
    left: int


@cache
def recorded(name: str) -> Record:
    data: Record = json.loads((FOLDER / f"{name}.json").read_text())
    return data


@cache
def stream(name: str, side: str) -> bytes:
    return (FOLDER / f"{name}.{side}.bin").read_bytes()


def records(name: str, side: str, *kinds: str) -> list[Record]:
    return [record for record in recorded(name)[side] if record["frame"] in kinds]


@cache
def parse_side(name: str, side: str, sizes: tuple[int, ...]) -> Parsed:
    """Read one side the way its receiver would, told by the record how many attempts it took."""
    feed = chunks(stream(name, side), sizes)
    buf = HandshakeBuffer(Limits())

    def read(reader: Callable[[HandshakeBuffer], Any]) -> Any:
        while (value := reader(buf)) is None:
            buf.feed(next(feed))
        return value

    assert read(HandshakeBuffer.read_banner) == BANNER
    server = side == "server"
    attempts = len(records(name, "server", "connect_reply"))
    addresses = [read(HandshakeBuffer.read_address) for _ in range(2 if server else 1)]
    replies = [read(HandshakeBuffer.read_reply) for _ in range(attempts if server else 0)]
    connects = [read(HandshakeBuffer.read_connect) for _ in range(0 if server else attempts)]
    got_seq = bool(records(name, side, "in_seq_after_SEQ"))
    in_seq = read(HandshakeBuffer.read_seq) if got_seq else None
    frames, left = read_frames(buf, feed)
    return Parsed(addresses, connects, replies, in_seq, frames, left)


def read_frames(buf: HandshakeBuffer, feed: Iterator[bytes]) -> tuple[list[Frame], int]:
    # Every peer of these captures offers the same features, so the negotiated set is that set.
    parser = FrameParser(Limits(), CEPH_PACIFIC, offset=buf.offset)
    frames = parser.feed(buf.take_rest())
    for chunk in feed:
        frames += parser.feed(chunk)
    return frames, parser.buffered


def address_of(record: Record) -> EntityAddr:
    assert record["zero_tail"]
    return EntityAddr.of(record["ip"], record["port"], record["nonce"])


def leading_number(text: object) -> int:
    """``8`` of ``"8 (client)"``."""
    return int(str(text).split()[0])


@pytest.fixture(params=list(CHUNKINGS))
def sizes(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return CHUNKINGS[request.param]


def test_every_stream_is_here() -> None:
    assert len(NAMES) == 16
    for name, side in STREAMS:
        assert stream(name, side)


@pytest.mark.parametrize(("name", "side"), STREAMS)
class TestStream:
    """One direction of one captured connection."""

    def test_handshake_fields(self, name: str, side: str, sizes: tuple[int, ...]) -> None:
        parsed = parse_side(name, side, sizes)
        (banner,) = records(name, side, "banner")
        assert banner["text"].encode() == BANNER
        addresses = records(name, side, "addr_self", "addr_peer_as_seen")
        assert parsed.addresses == [address_of(record) for record in addresses]
        for connect, record in zip(parsed.connects, records(name, side, "connect"), strict=True):
            check_connect(connect, record)
        for reply, record in zip(parsed.replies, records(name, side, "connect_reply"), strict=True):
            check_reply(reply, record)
        in_seqs = [record["value"] for record in records(name, side, "in_seq_after_SEQ")]
        assert ([] if parsed.in_seq is None else [parsed.in_seq]) == in_seqs

    def test_frame_fields(self, name: str, side: str, sizes: tuple[int, ...]) -> None:
        parsed = parse_side(name, side, sizes)
        kinds = ("MSG", "ACK", "KEEPALIVE", "KEEPALIVE2", "KEEPALIVE2_ACK", "CLOSE")
        for frame, record in zip(parsed.frames, records(name, side, *kinds), strict=True):
            check_frame(frame, record, stream(name, side))

    def test_ends_where_the_record_ends(self, name: str, side: str, sizes: tuple[int, ...]) -> None:
        cut = records(name, side, "TRUNCATED")
        assert parse_side(name, side, sizes).left == sum(record["len"] for record in cut)

    def test_encodes_to_the_same_bytes(self, name: str, side: str, sizes: tuple[int, ...]) -> None:
        parsed = parse_side(name, side, sizes)
        whole = stream(name, side)
        again = encode_handshake(parsed) + b"".join(map(encode_frame, parsed.frames))
        assert again == whole[: len(whole) - parsed.left]

    def test_messages_encode_from_their_decoded_values(self, name: str, side: str) -> None:
        for tag, seq, raw in parse_side(name, side, CHUNKINGS["whole"]).frames:
            if tag == Tag.MSG:
                assert isinstance(seq, int)
                assert raw is not None
                check_message_made_anew(bytes(raw), seq)


def check_connect(connect: Connect, record: Record) -> None:
    assert connect.features == int(record["features"], 16) == CEPH_PACIFIC
    assert connect.host_type == leading_number(record["host_type"])
    for field in ("global_seq", "connect_seq", "protocol_version", "authorizer_protocol", "flags"):
        assert getattr(connect, field) == record[field]
    assert len(connect.authorizer) == record["authorizer_len"]
    assert connect.authorizer.hex() == record.get("authorizer_hex", "")
    assert connect.lossy == bool(record["flags"] & 1)


def check_reply(reply: Reply, record: Record) -> None:
    assert reply.tag == leading_number(record["tag"])
    assert Tag(reply.tag).name in record["tag"]
    assert reply.features == int(record["features"], 16) == CEPH_PACIFIC
    for field in ("global_seq", "connect_seq", "protocol_version", "flags"):
        assert getattr(reply, field) == record[field]
    assert len(reply.authorizer) == record["authorizer_len"]
    assert reply.authorizer.hex() == record.get("authorizer_hex", "")


def check_frame(frame: Frame, record: Record, whole: bytes) -> None:
    tag, value, raw = frame
    assert tag == record["tag"]
    assert Tag(tag).name == record["frame"]
    if tag == Tag.MSG:
        assert raw is not None
        assert value == record["header"]["seq"]
        assert raw == whole[record["off"] + 1 : record["off"] + record["len"]]
        check_message(bytes(raw), record, whole)
    elif tag == Tag.ACK:
        assert value == record["seq"]
    else:
        assert value == (record["stamp"]["sec"], record["stamp"]["nsec"])


def check_message(raw: bytes, record: Record, whole: bytes) -> None:
    m, header, footer = decode_raw(raw), record["header"], record["footer"]
    for field in ("seq", "tid", "type", "priority", "version", "compat_version", "data_off"):
        assert getattr(m, field) == header[field]
    # the record shows the number unsigned: client.? is 2^64 - 1 there
    assert f"{type_label(m.src.type)}.{m.src.num % (1 << 64)}" == header["src"]
    assert raw[49:53] == int(header["crc"], 16).to_bytes(4, "little")
    for part in ("front", "middle", "data"):
        at, length = record[f"{part}_off"], header[f"{part}_len"]
        assert getattr(m, part) == whole[at : at + length]
        if f"{part}_hex" in record:
            assert getattr(m, part).hex() == record[f"{part}_hex"]
        assert getattr(m, part).hex().startswith(record.get(f"{part}_hex_first_64", ""))
    crcs = [int(footer[f"{part}_crc"], 16) for part in ("front", "middle", "data")]
    sig = int(str(footer["sig"]), 16)
    assert FOOTER.unpack(raw[-FOOTER.size :]) == (*crcs, sig, footer["flags"])
    assert bool(sig) == bool(footer["flags"] & 4)


def check_message_made_anew(raw: bytes, seq: int) -> None:
    """The decoded message, encoded: all bytes but what an encoder decides or a key signs."""
    m = decode_raw(raw)
    header = struct.pack("<Q", seq) + encode_parcel(m, m.src).head
    body = b"".join(encode_parcel(m, m.src).body)
    if m.compat_version == 0:  # a monitor left it unset; an encoder of the reference sets it
        header = header[:45] + bytes(2) + header[47:]
    assert header == raw[: HEADER_SIZE - 4]
    signed = raw[-1] & 4
    kept = len(body) - (9 if signed else 0)  # sig and flags
    assert body[:kept] == raw[HEADER_SIZE : HEADER_SIZE + kept]


# encoding


def encode_handshake(parsed: Parsed) -> bytes:
    if parsed.connects:
        hello = BANNER + parsed.addresses[0].encode()
        hello += b"".join(connect.encode() for connect in parsed.connects)
    else:
        hello = encode_server_hello(*parsed.addresses)
        hello += b"".join(reply.encode() for reply in parsed.replies)
    return hello if parsed.in_seq is None else hello + encode_seq(parsed.in_seq)


def encode_frame(frame: Frame) -> bytes:
    tag, value, raw = frame
    if tag == Tag.MSG:
        assert isinstance(value, int)
        assert raw is not None
        return rewrite(bytes(raw), value)
    if tag == Tag.ACK:
        assert isinstance(value, int)
        return encode_ack(value)
    if isinstance(value, tuple):
        return encode_keepalive2(value) if tag == Tag.KEEPALIVE2 else encode_keepalive2_ack(value)
    return KEEPALIVE if tag == Tag.KEEPALIVE else CLOSE


def rewrite(raw: bytes, seq: int) -> bytes:
    """The frame of a raw message that is passed on: its header crc is computed anew."""
    parcel = Parcel.revive(raw[8 : 8 + HEAD.size], raw[HEADER_SIZE:])
    out: list[Bytes] = []
    message_writer(CEPH_PACIFIC, EntityAddr())(out, [parcel], seq)
    return b"".join(out)


# what the set as a whole holds


def test_authorizers_of_real_clients() -> None:
    seen = set()
    for name in NAMES:
        for connect in parse_side(name, "client", CHUNKINGS["whole"]).connects:
            seen.add(connect.authorizer_protocol)
            if connect.authorizer_protocol == PROTOCOL_NONE:
                claimed = NoneAuthorizer.decode(connect.authorizer)
                assert claimed.type == connect.host_type
                assert claimed.id in {"admin", "0", "1"}
                assert claimed.encode() == connect.authorizer
    assert {PROTOCOL_NONE, PROTOCOL_CEPHX} <= seen


def test_signed_messages_keep_their_signature() -> None:
    signed = 0
    for name, side in STREAMS:
        for tag, _, raw in parse_side(name, side, CHUNKINGS["whole"]).frames:
            if tag == Tag.MSG and raw is not None and raw[-1] & 4:
                signed += 1
                assert any(raw[-9:-1])
    facts = (recorded(name).get("cephx") or {} for name in NAMES)
    assert signed == sum(cephx.get("signed_messages", 0) for cephx in facts) == 75


def test_connection_race_ends_with_wait() -> None:
    (reply,) = parse_side("osd-race-wait", "server", CHUNKINGS["whole"]).replies
    assert (reply.tag, reply.features) == (Tag.WAIT, CEPH_PACIFIC)
