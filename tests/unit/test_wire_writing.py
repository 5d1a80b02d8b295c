"""Messages and control frames, written (wire spec §7, §8, §11, §17)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes, raw_crc
from mpmsgr.wire.features import MSG_AUTH, NOSRCADDR, SUPPORTED
from mpmsgr.wire.message import (
    ERROR_REPLY,
    FIRST_APPLICATION_TYPE,
    PRIO_DEFAULT,
    PRIO_HIGH,
    PRIO_HIGHEST,
    PRIO_LOW,
    Message,
)
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.frames import (
    CLOSE,
    KEEPALIVE,
    encode_ack,
    encode_keepalive2,
    encode_keepalive2_ack,
    message_writer,
    write_messages,
)
from mpmsgr.wire.v1.parcel import (
    FOOTER_SIZE,
    HEADER_SIZE,
    OLD_FOOTER,
    Parcel,
    decode_raw,
    encode_parcel,
    raw_ids,
)

CLIENT = EntityName(8, 4242)
PEER = EntityAddr.of("127.0.0.1", 6800, 12345)

PING = Message(2)
PING_HEADER = bytes.fromhex(
    "0100000000000000 0000000000000000 0200 7f00 0100 00000000 00000000 00000000 0000"
    "089210000000000000 0100 0000 b5987865"
)
DATA_PING = Message(0x602, b"hello", data=b"abcdef", tid=7)
DATA_PING_HEADER = bytes.fromhex(
    "0200000000000000 0700000000000000 0206 7f00 0100 05000000 00000000 06000000 0000"
    "089210000000000000 0100 0000 ab73e73d"
)
DATA_PING_FOOTER = bytes.fromhex("79cd03df 00000000 7b939604 0000000000000000 01")


def written(parcel: Parcel, seq: int, features: int = SUPPORTED) -> bytes:
    out: list[Bytes] = []
    message_writer(features, PEER)(out, [parcel], seq)
    return b"".join(out)


# control frames


def test_control_frames() -> None:
    assert encode_ack(5) == bytes.fromhex("08 0500000000000000")
    assert encode_keepalive2((1, 2)) == bytes.fromhex("0e 01000000 02000000")
    assert encode_keepalive2_ack((1, 2)) == bytes.fromhex("0f 01000000 02000000")
    assert bytes([9]) == KEEPALIVE
    assert bytes([6]) == CLOSE


# messages in the new form


def test_sizes() -> None:
    assert (HEADER_SIZE, FOOTER_SIZE, OLD_FOOTER.size) == (53, 21, 13)


def test_ping() -> None:
    frame = written(encode_parcel(PING, CLIENT), 1)
    assert frame == b"\x07" + PING_HEADER + bytes(20) + b"\x01"


def test_message_with_front_and_data() -> None:
    frame = written(encode_parcel(DATA_PING, CLIENT), 2)
    assert frame == b"\x07" + DATA_PING_HEADER + b"helloabcdef" + DATA_PING_FOOTER


def test_a_parcel_is_written_again_with_another_seq() -> None:
    parcel = encode_parcel(PING, CLIENT)
    assert written(parcel, 9)[1:9] == bytes.fromhex("0900000000000000")
    assert written(parcel, 1) == b"\x07" + PING_HEADER + bytes(20) + b"\x01"


def test_every_field_has_its_place() -> None:
    m = Message(
        0x1122,
        b"f",
        b"mm",
        b"ddd",
        tid=0x0102030405060708,
        priority=0x3344,
        version=0x5566,
        compat_version=0x7788,
        data_off=0x99AA,
    )
    header = written(encode_parcel(m, EntityName(1, -2)), 0x1111111111111111)[1:54]
    assert header[:49] == bytes.fromhex(
        "1111111111111111 0807060504030201 2211 4433 6655 01000000 02000000 03000000 aa99"
        "01feffffffffffffff 8877 0000"
    )
    assert header[49:] == raw_crc(header[:49]).to_bytes(4, "little")


def test_priorities_and_types() -> None:
    assert (PRIO_LOW, PRIO_DEFAULT, PRIO_HIGH, PRIO_HIGHEST) == (64, 127, 196, 255)
    assert (ERROR_REPLY, FIRST_APPLICATION_TYPE) == (0x8000, 0x8001)


def test_unset_priority_and_compat_version_are_replaced() -> None:
    parcel = encode_parcel(Message(2, version=8), CLIENT)
    assert parcel.priority == 127
    header = written(parcel, 1)[1:54]
    assert (header[18:20], header[45:47]) == (b"\x7f\0", b"\x08\0")


def test_without_data_crc_the_flag_says_so() -> None:
    frame = written(encode_parcel(DATA_PING, CLIENT, crc_data=False), 2)
    assert frame[-21:] == bytes.fromhex("79cd03df 00000000 00000000 0000000000000000 03")
    assert frame[:-21] == b"\x07" + DATA_PING_HEADER + b"helloabcdef"


@pytest.mark.parametrize(
    "sizes", [(0, 0, 0), (5, 0, 6), (1, 2, 3), (0, 9, 0), (40000, 0, 9), (9, 9, 70000)]
)
def test_parts_are_sent_in_order_joined_or_not(sizes: tuple[int, int, int]) -> None:
    front, middle, data = (bytes([i]) * size for i, size in enumerate(sizes, 1))
    parcel = encode_parcel(Message(2, front, middle, data), CLIENT)
    crcs = b"".join(raw_crc(part).to_bytes(4, "little") for part in (front, middle, data))
    body = front + middle + data + crcs + bytes(8) + b"\x01"
    assert written(parcel, 1)[54:] == body
    assert parcel.size == len(body)


def test_large_parts_are_not_copied() -> None:
    data = bytes(100_000)
    assert encode_parcel(Message(2, b"f", data=data), CLIENT).body[1] is data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_parts_are_any_bytes(kind: type[bytes | bytearray | memoryview]) -> None:
    m = Message(0x602, kind(b"hello"), kind(b""), kind(b"abcdef"), tid=7)
    frame = written(encode_parcel(m, CLIENT), 2)
    assert frame == b"\x07" + DATA_PING_HEADER + b"helloabcdef" + DATA_PING_FOOTER


@pytest.mark.parametrize("count", [10, 10_000])
def test_a_view_of_wider_items_is_refused(count: int) -> None:
    wide = memoryview(bytes(4 * count)).cast("I")
    with pytest.raises(ValueError, match="cast it to 'B'"):
        encode_parcel(Message(2, data=wide), CLIENT)


@pytest.mark.parametrize(
    ("wrong", "field", "bits"),
    [
        ({"type": 1 << 16}, "type", 16),
        ({"type": -1}, "type", 16),
        ({"type": "ping"}, "type", 16),
        ({"tid": 1 << 64}, "tid", 64),
        ({"priority": 1 << 16}, "priority", 16),
        ({"version": 1 << 16}, "version", 16),
        ({"compat_version": -3}, "compat_version", 16),
        ({"data_off": 1 << 16}, "data_off", 16),
    ],
)
def test_what_does_not_fit_is_named(wrong: dict[str, Any], field: str, bits: int) -> None:
    m = Message(**{"type": 2, **wrong})
    with pytest.raises(ValueError, match=f"message {field} is .*: must be an unsigned {bits}-bit"):
        encode_parcel(m, CLIENT)


@pytest.mark.parametrize("source", [EntityName(256, 0), EntityName(8, 1 << 63)])
def test_a_source_that_does_not_fit_is_named(source: EntityName) -> None:
    with pytest.raises(ValueError, match="message source is "):
        encode_parcel(PING, source)


# old forms


def test_old_header() -> None:
    frame = written(encode_parcel(DATA_PING, CLIENT), 2, MSG_AUTH)
    header = frame[1:335]
    assert frame[335:] == b"helloabcdef" + DATA_PING_FOOTER
    assert header[:36] == DATA_PING_HEADER[:36]
    instance = bytes.fromhex("08 9210000000000000") + PEER.encode()
    assert len(instance) == 145
    assert header[36:181] == instance  # the peer's address, as in the reference
    assert header[181:326] == instance
    assert header[326:330] == bytes(4)
    assert header[330:] == raw_crc(header[:330]).to_bytes(4, "little")


@pytest.mark.parametrize("size", [6, 70000])
def test_old_footer(size: int) -> None:
    data = b"d" * size
    frame = written(encode_parcel(Message(0x602, b"hello", data=data), CLIENT), 2, NOSRCADDR)
    assert frame[54:-13] == b"hello" + data
    assert frame[-13:] == struct.pack("<IIIB", 0xDF03CD79, 0, raw_crc(data), 1)


def test_both_old_forms() -> None:
    assert len(written(encode_parcel(DATA_PING, CLIENT), 2, 0)) == 1 + 334 + 11 + 13


def test_the_new_forms_need_no_closure() -> None:
    assert message_writer(SUPPORTED, PEER) is write_messages
    assert message_writer(NOSRCADDR | MSG_AUTH, PEER) is write_messages


# a parcel and a raw message, read


def test_parcel_properties() -> None:
    parcel = encode_parcel(Message(0x602, b"hello", tid=1 << 63, priority=196), CLIENT)
    assert (parcel.tid, parcel.type, parcel.priority, parcel.seq) == (1 << 63, 0x602, 196, 0)


def test_raw_message() -> None:
    raw = DATA_PING_HEADER + b"helloabcdef" + DATA_PING_FOOTER
    m = decode_raw(raw, nonce=12345)
    assert (m.front, m.middle, m.data) == (b"hello", b"", b"abcdef")
    assert (m.seq, m.tid, m.type, m.priority) == (2, 7, 0x602, 127)
    assert (m.version, m.compat_version, m.data_off) == (1, 1, 0)
    assert m.src == CLIENT
    assert m.message_id == ("client.4242", 12345, 7)
    assert raw_ids(raw) == (2, 7, 0x602, 127)


def test_data_of_a_raw_view_is_a_view() -> None:
    raw = memoryview(DATA_PING_HEADER + b"helloabcdef" + DATA_PING_FOOTER)
    m = decode_raw(raw)
    assert (type(m.front), type(m.middle), type(m.data)) == (bytes, bytes, memoryview)
    assert (m.front, m.data) == (b"hello", b"abcdef")


def test_reply_answers_tid_priority_and_type() -> None:
    asked = Message(0x8001, b"?", tid=7, priority=196)
    reply = asked.reply(b"!", data=b"d")
    assert (reply.type, reply.tid, reply.priority) == (0x8001, 7, 196)
    assert (reply.front, reply.middle, reply.data, reply.size) == (b"!", b"", b"d", 2)
    assert asked.reply(type=ERROR_REPLY).type == 0x8000


@pytest.mark.parametrize("part", ["front", "middle", "data"])
@pytest.mark.parametrize("size", [100, 40_000])
def test_a_parcel_stays_as_it_was_encoded(part: str, size: int) -> None:
    """It is sent, and sent again, when its owner has long put something else into his buffer."""
    buffer = bytearray(b"x" * size)
    parcel = encode_parcel(Message(0x8001, **{part: buffer}), EntityName(8, 1))  # type: ignore[arg-type]
    with memoryview(bytes(buffer)) as view:
        other = encode_parcel(Message(0x8001, **{part: view}), EntityName(8, 1))  # type: ignore[arg-type]
    buffer[:] = b"y" * size
    assert b"".join(parcel.body).startswith(b"x" * size)
    assert b"".join(other.body) == b"".join(parcel.body)


def test_what_cannot_be_written_to_is_not_copied() -> None:
    data = memoryview(bytes(1 << 20))
    body = encode_parcel(Message(0x8001, data=data), EntityName(8, 1)).body
    assert isinstance(body[0], memoryview)
    assert body[0].obj is data.obj
