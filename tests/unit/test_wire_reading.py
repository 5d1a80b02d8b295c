"""Frames, read: forms, caps, crcs, aborted messages, what errors name (wire spec §7-§9, §15)."""

from __future__ import annotations

import struct

import pytest

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.crc import raw_crc
from mpmsgr.wire.features import MSG_AUTH, NOSRCADDR, SUPPORTED
from mpmsgr.wire.limits import MIB, Limits
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import decode_raw
from mpmsgr.wire.v1.parser import Frame, FrameParser
from mpmsgr.wire.v1.tags import FRAME_TAGS
from tests.streams import SENDER, message_frame, parse, with_length

SMALL = Limits(max_front=100, max_middle=200, max_data=300)
FORMS = {
    "new": NOSRCADDR | MSG_AUTH,
    "old header": MSG_AUTH,
    "old footer": NOSRCADDR,
    "both old": 0,
}
SAMPLE = Message(0x602, b"hello", b"mid", b"abcdef", tid=7, priority=196, version=3, data_off=16)


def parser(limits: Limits = SMALL, features: int = SUPPORTED, offset: int = 0) -> FrameParser:
    return FrameParser(limits, features, offset=offset)


def broken(data: bytes, features: int = SUPPORTED, offset: int = 0) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        parser(features=features, offset=offset).feed(data)
    assert caught.value.fault == "peer"
    assert caught.value.allowed
    return caught.value


# forms


@pytest.mark.parametrize("features", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_canonical_raw_message(features: int) -> None:
    ((tag, seq, raw),) = parser(features=features).feed(message_frame(SAMPLE, 9, features))
    assert (tag, seq) == (7, 9)
    assert raw is not None
    assert len(raw) == 53 + 14 + 21
    assert raw[53:] == message_frame(SAMPLE, 9)[54:]  # payload and the 21-byte footer
    m = decode_raw(raw)
    assert (m.seq, m.tid, m.type, m.priority) == (9, 7, 0x602, 196)
    assert (m.version, m.data_off, m.src) == (3, 16, SENDER)
    assert (m.front, m.middle, m.data) == (b"hello", b"mid", b"abcdef")
    # the old header has no compat_version: unknown; nor does its crc fit the new one
    if features & NOSRCADDR:
        assert m.compat_version == 3
    else:
        assert raw[45:53] == bytes(8)


def test_signature_and_flags_stay_in_the_raw_footer() -> None:
    signed = message_frame(SAMPLE)[:-9] + struct.pack("<QB", 0x2FC6C7C746DE5757, 5)
    ((_, _, raw),) = parser().feed(signed)
    assert raw == signed[1:]


def test_old_header_fields_behind_the_name_are_ignored() -> None:
    frame = bytearray(message_frame(SAMPLE, 9, MSG_AUTH))
    frame[1 + 45 : 1 + 330] = b"\xee" * 285
    frame[331:335] = raw_crc(frame[1:331]).to_bytes(4, "little")
    ((_, _, raw),) = parser(features=MSG_AUTH).feed(bytes(frame))
    assert raw is not None
    assert decode_raw(raw).src == SENDER


@pytest.mark.parametrize(
    ("sent", "frame"),
    [
        ("06", (6, None, None)),
        ("08 0500000000000000", (8, 5, None)),
        ("08 ffffffffffffffff", (8, (1 << 64) - 1, None)),
        ("09", (9, None, None)),
        ("0e 01000000 02000000", (14, (1, 2), None)),
        ("0f ffffffff ffc99a3b", (15, (0xFFFFFFFF, 999999999), None)),
    ],
)
def test_control_frames(sent: str, frame: Frame) -> None:
    stream = bytes.fromhex(sent)
    for sizes in ([len(stream)], [1], [5]):
        assert parse(parser(), stream * 3, sizes) == ([frame] * 3, None)


# tags


@pytest.mark.parametrize("tag", sorted(set(range(256)) - {int(tag) for tag in FRAME_TAGS}))
def test_other_tags_are_faults(tag: int) -> None:
    err = broken(b"\x09" * 3 + bytes([tag]), offset=1000)
    assert (err.field, err.value, err.offset) == ("tag", tag, 1003)


# caps


@pytest.mark.parametrize(
    ("field", "at", "cap"), [("front_len", 22, 100), ("middle_len", 26, 200), ("data_len", 30, 300)]
)
def test_caps(field: str, at: int, cap: int) -> None:
    empty = message_frame(Message(2))
    header_alone = with_length(empty, at, cap)[:54]
    waiting = parser()
    assert waiting.feed(header_alone) == []
    assert waiting.buffered == 54
    for length in (cap + 1, 0xFFFFFFFF):
        err = broken(b"\x09" + with_length(empty, at, length)[:54], offset=1000)
        assert (err.field, err.value) == (f"header.{field}", length)
        assert (err.allowed, err.offset) == (f"at most {cap}", 1000 + 1 + 1 + at)


@pytest.mark.parametrize("features", FORMS.values(), ids=FORMS)
def test_a_message_as_long_as_the_caps_is_read(features: int) -> None:
    m = Message(2, bytes(100), bytes(200), bytes(300))
    assert len(parser(features=features).feed(message_frame(m, 1, features))) == 1
    err = broken(message_frame(Message(2, bytes(101)), 1, features), features)
    assert (err.field, err.offset) == ("header.front_len", 23)


# crcs


@pytest.mark.parametrize(("features", "header"), [(SUPPORTED, 53), (MSG_AUTH, 334)])
def test_header_crc(features: int, header: int) -> None:
    frame = bytearray(message_frame(SAMPLE, 1, features))
    frame[23] ^= 0x80  # front_len: now above its cap as well
    err = broken(b"\x09" + bytes(frame), features, offset=1000)
    assert (err.field, err.offset) == ("header.crc", 1000 + 1 + 1 + header - 4)
    assert err.value == f"{int.from_bytes(frame[header - 3 : header + 1], 'little'):#010x}"
    assert err.allowed == f"{raw_crc(bytes(frame[1 : header - 3])):#010x}"


@pytest.mark.parametrize("features", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("part", "at", "claimed", "actual"),
    [
        ("front", 0, "0xdf03cd79", raw_crc(b"Hello")),
        ("middle", 5, f"{raw_crc(b'mid'):#010x}", raw_crc(b"Mid")),
        ("data", 8, "0x0496937b", raw_crc(b"Abcdef")),
    ],
)
def test_payload_crcs(features: int, part: str, at: int, claimed: str, actual: int) -> None:
    frame = bytearray(message_frame(SAMPLE, 1, features))
    payload_at = 1 + (53 if features & NOSRCADDR else 334)
    frame[payload_at + at] ^= 0x20
    err = broken(b"\x09" + bytes(frame), features, offset=1000)
    crc_at = payload_at + 14 + ("front", "middle", "data").index(part) * 4
    assert (err.field, err.offset) == (f"footer.{part}_crc", 1000 + 1 + crc_at)
    assert (err.value, err.allowed) == (claimed, f"{actual:#010x}")


def test_crcs_of_empty_parts_are_not_checked() -> None:
    frame = message_frame(Message(2))
    odd = frame[:54] + b"\xff" * 12 + frame[66:]
    assert len(parser().feed(odd)) == 1


def test_nocrc_frees_the_data_crc_alone() -> None:
    frame = bytearray(message_frame(SAMPLE, crc_data=False))
    frame[62:68] = b"ABCDEF"
    ((_, _, raw),) = parser().feed(bytes(frame))
    assert raw is not None
    assert decode_raw(raw).data == b"ABCDEF"
    assert raw[-1] == 3
    frame[54] ^= 1
    assert broken(bytes(frame)).field == "footer.front_crc"


def test_unchecked_crcs() -> None:
    frame = bytearray(message_frame(SAMPLE))
    frame[50:54] = bytes(4)  # header crc
    frame[68:76] = bytes(8)  # front and middle crc: a sender without ms_crc_header
    lenient = FrameParser(SMALL, SUPPORTED, check_header=False)
    assert len(lenient.feed(bytes(frame))) == 1
    frame[62] ^= 1
    with pytest.raises(ProtocolError, match=r"footer\.data_crc"):
        lenient.feed(bytes(frame))
    blind = FrameParser(SMALL, SUPPORTED, check_header=False, check_data=False)
    assert len(blind.feed(bytes(frame))) == 1


# aborted messages


@pytest.mark.parametrize("features", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("flags", [0, 2, 4, 6])
def test_aborted_messages_are_dropped_and_counted(features: int, flags: int) -> None:
    frame = message_frame(SAMPLE, 1, features)
    aborted = frame[:-14] + b"\xee" * 13 + bytes([flags])  # crcs never hold: it was zero-filled
    reader = parser(features=features)
    frames, err = parse(reader, aborted + b"\x09" + aborted + frame, [37])
    assert err is None
    assert [tag for tag, _, _ in frames] == [9, 7]
    assert reader.aborted == 2


# errors and the frames before them


@pytest.mark.parametrize("sizes", [[1], [7], [100], [10000]])
def test_frames_before_the_fault_are_kept(sizes: list[int]) -> None:
    good = message_frame(SAMPLE, 1) + b"\x09" + message_frame(SAMPLE, 2)
    bad = bytearray(message_frame(SAMPLE, 3))
    bad[54] ^= 1
    reader = parser(offset=50)
    frames, err = parse(reader, good + bytes(bad) + message_frame(SAMPLE, 4), sizes)
    assert [(tag, value) for tag, value, _ in frames] == [(7, 1), (9, None), (7, 2)]
    assert err is not None
    assert (err.field, err.offset) == ("footer.front_crc", 50 + len(good) + 54 + 14)


def test_incomplete_frames_wait() -> None:
    frame = message_frame(SAMPLE)
    for size in range(len(frame)):
        reader = parser()
        assert reader.feed(frame[:size]) == []
        assert reader.feed(b"") == []
        assert reader.buffered == size
        assert reader.feed(frame[size:] + b"\x08") == [(7, 1, frame[1:])]
        assert reader.buffered == 1


# large messages, received in place

BULK = bytes(range(256)) * (MIB // 256)


def test_small_messages_never_land() -> None:
    reader = parser(Limits())
    reader.feed(message_frame(Message(2, data=BULK[: 200 * 1024]))[: 100 * 1024])
    assert reader.landing() is None


def test_a_large_message_lands_in_its_own_buffer() -> None:
    frame = message_frame(Message(2, b"front", data=BULK))
    reader = parser(Limits())
    frames = reader.feed(b"\x09" + frame[:65536])
    assert frames == [(9, None, None)]
    at = 65536
    while (view := reader.landing()) is not None:
        size = len(view)
        view[:] = frame[at : at + size]
        frames += reader.landed(size)  # the view still held, as inside an event loop's read
        view.release()
        at += size
    frames += reader.feed(frame[at:] + b"\x09")
    assert [tag for tag, _, _ in frames] == [9, 7, 9]
    raw = frames[1][2]
    assert isinstance(raw, memoryview)
    assert raw.readonly
    assert raw == frame[1:]
    assert decode_raw(raw).data == BULK


def test_a_large_message_is_checked_like_any_other() -> None:
    frame = bytearray(message_frame(Message(2, b"front", data=BULK)))
    frame[-22] ^= 1
    reader = parser(Limits(), offset=1000)
    frames, err = parse(reader, bytes(frame), [65536, 65536], land=True)
    assert frames == []
    assert err is not None
    assert (err.field, err.offset) == ("footer.data_crc", 1000 + len(frame) - 13)


@pytest.mark.parametrize("features", FORMS.values(), ids=FORMS)
def test_large_messages_of_every_form(features: int) -> None:
    m = Message(2, b"front", data=BULK)
    frames, err = parse(
        parser(Limits(), features), message_frame(m, 1, features), [65536], land=True
    )
    assert err is None
    raw = frames[0][2]
    assert raw is not None
    assert decode_raw(raw).data == BULK
