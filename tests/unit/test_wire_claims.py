"""Long messages received straight into a place that their owner gives (`FrameParser.claim`)."""

from __future__ import annotations

import gc
import weakref

import pytest

from mpmsgr.wire.features import MSG_AUTH, NOSRCADDR, SUPPORTED
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.frames import KEEPALIVE, encode_ack
from mpmsgr.wire.v1.parcel import decode_raw, is_resent, raw_ids
from mpmsgr.wire.v1.parser import Claim, Frame, FrameParser
from tests.streams import answer_claim, chunks, message_frame, parse

LONG = Message(0x8001, b"front", b"mid", bytes(range(256)) * 4, tid=7, priority=196)
SHORT = Message(0x8001, b"front", data=b"data")
SIZE = 53 + 8 + 1024 + 21
ABOVE = 500


class Memory(bytearray):
    """A place whose end can be noticed."""


def parser(
    features: int = SUPPORTED, above: int = ABOVE, limits: Limits | None = None
) -> FrameParser:
    return FrameParser(limits or Limits(), features, claims_above=above)


def claiming(frame: bytes, size: int = 100) -> FrameParser:
    """A parser that was fed the first *size* bytes of *frame*, and claims."""
    reader = parser()
    assert reader.feed(frame[:size]) == []
    assert reader.claim is not None
    return reader


def receive(reader: FrameParser, data: bytes, step: int) -> list[Frame]:
    """Receive *data* through `landing`, *step* bytes at a time."""
    frames: list[Frame] = []
    for piece in chunks(data, [step]):
        view = reader.landing()
        assert view is not None
        view[: len(piece)] = piece
        frames += reader.landed(len(piece))
    return frames


# the claim


@pytest.mark.parametrize("fed", [54, 55, 62, 63, 1000, SIZE])
def test_a_claim_names_the_size_and_what_comes_before_the_data(fed: int) -> None:
    reader = claiming(message_frame(LONG), fed)
    assert reader.claim == Claim(size=SIZE, lead=53 + 8)
    assert reader.landing() is None, "nothing may be read before it is answered"
    assert reader.buffered == fed


def test_nothing_is_received_before_an_answer_not_even_of_the_largest() -> None:
    reader = claiming(message_frame(Message(2, data=bytes(1 << 20))), 64 * 1024)
    assert reader.landing() is None


def test_there_is_none_before_the_header_is_whole() -> None:
    frame = message_frame(LONG)
    reader = parser()
    for at in range(53):
        reader.feed(frame[at : at + 1])
        assert reader.claim is None
    reader.feed(frame[53:54])
    assert reader.claim is not None


@pytest.mark.parametrize("cut", [20, 60])
def test_a_message_that_is_whole_already_has_none(cut: int) -> None:
    frame = message_frame(LONG)
    reader = parser()
    frames = reader.feed(frame[:20]) if cut == 20 else []
    frames += reader.feed(frame[20 if cut == 20 else 0 :] + KEEPALIVE)
    assert reader.claim is None
    assert [(tag, type(raw)) for tag, _, raw in frames] == [(7, bytes), (9, type(None))]


def test_the_threshold_is_the_length_of_the_raw_message() -> None:
    frame = message_frame(LONG)
    for above, claims in [(SIZE, False), (SIZE - 1, True), (0, False)]:
        reader = parser(above=above)
        reader.feed(frame[:100])
        assert (reader.claim is not None) is claims


@pytest.mark.parametrize("features", [0, NOSRCADDR, MSG_AUTH])
def test_old_forms_have_to_be_converted_so_they_can_only_be_declined(features: int) -> None:
    reader = parser(features)
    frame = message_frame(LONG, 1, features)
    reader.feed(frame[:400])
    assert reader.claim is not None
    assert not reader.can_land
    reader.decline()
    ((_, _, raw),) = reader.feed(frame[400:])
    assert type(raw) is bytes


def test_a_bad_header_claims_nothing() -> None:
    damaged = bytearray(message_frame(LONG))
    damaged[30] ^= 1
    reader = parser()
    _, err = parse(reader, bytes(damaged[:100]), [100])
    assert err is not None
    assert err.field == "header.crc"
    assert reader.claim is None


def test_a_length_beyond_the_caps_claims_nothing() -> None:
    reader = parser(limits=Limits(max_data=1023))
    _, err = parse(reader, message_frame(LONG)[:100], [100])
    assert err is not None
    assert err.field == "header.data_len"
    assert reader.claim is None


def test_feeding_on_without_an_answer_is_a_bug() -> None:
    reader = claiming(message_frame(LONG))
    with pytest.raises(AssertionError, match="claim"):
        reader.feed(b"more")


# landed


@pytest.mark.parametrize("fed", [54, 55, 61, 62, 500, SIZE])
@pytest.mark.parametrize("step", [1, 7, 400, 2000])
def test_a_landed_message_is_the_very_view_that_was_given(fed: int, step: int) -> None:
    frame = message_frame(LONG, 9)
    reader = claiming(frame, fed)
    memory = bytearray(SIZE)
    view = memoryview(memory)
    reader.land(view)
    assert reader.claim is None
    place = reader.landing()
    assert place is not None
    assert len(place) == SIZE + 1 - fed, "to its end, and not a byte of the next one"
    ((tag, seq, raw),) = receive(reader, frame[fed:], step)
    assert (tag, seq) == (7, 9)
    assert raw is view
    assert memory == frame[1:]
    assert reader.buffered == 0
    assert reader.landing() is None
    assert reader.feed(KEEPALIVE) == [(9, None, None)]


def test_what_reads_raw_messages_reads_views() -> None:
    frame = message_frame(LONG, 9)
    reader = claiming(frame)
    reader.land(memoryview(bytearray(SIZE)))
    ((_, _, raw),) = receive(reader, frame[100:], 5000)
    assert raw is not None
    assert raw_ids(raw) == (9, 7, 0x8001, 196)
    assert not is_resent(raw)
    m = decode_raw(raw)
    assert (m.front, m.middle, m.data) == (LONG.front, LONG.middle, LONG.data)
    assert type(m.front) is type(m.middle) is bytes
    assert isinstance(m.data, memoryview)


def test_bytes_that_lie_somewhere_else_land_as_well() -> None:
    frame = message_frame(LONG, 9)
    reader = claiming(frame)
    view = memoryview(bytearray(SIZE))
    reader.land(view)
    assert reader.feed(frame[100:300]) == []
    first, second = reader.feed(frame[300:] + encode_ack(3))
    assert first[2] is view
    assert view == frame[1:]
    assert second == (8, 3, None)


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_place_of_another_size_is_refused(size: int) -> None:
    reader = claiming(message_frame(LONG))
    with pytest.raises(ValueError, match=f"{size} bytes, {SIZE} were claimed"):
        reader.land(memoryview(bytearray(size)))
    assert reader.claim is not None


def test_short_fronts_are_landed_too() -> None:
    """Their way through the parser is another one."""
    m = Message(2, bytes(600))
    frame = message_frame(m, 4)
    reader = claiming(frame)
    view = memoryview(bytearray(len(frame) - 1))
    reader.land(view)
    ((_, seq, raw),) = receive(reader, frame[100:], 100)
    assert seq == 4
    assert raw is view


@pytest.mark.parametrize(
    ("at", "field", "crc_at"),
    [(54, "front", SIZE - 20), (60, "middle", SIZE - 16), (70, "data", SIZE - 12)],
)
def test_a_wrong_crc_is_found_in_place(at: int, field: str, crc_at: int) -> None:
    damaged = bytearray(message_frame(LONG))
    damaged[at] ^= 1
    reader = FrameParser(Limits(), SUPPORTED, offset=1000, claims_above=ABOVE)
    stream = message_frame(SHORT) + bytes(damaged)
    frames, err = parse(
        reader, stream, [300], land=True, place=lambda claim: memoryview(bytearray(claim.size))
    )
    assert [tag for tag, _, _ in frames] == [7]
    assert err is not None
    assert err.field == f"footer.{field}_crc"
    assert err.offset == 1000 + len(message_frame(SHORT)) + crc_at


def test_offsets_after_a_landed_message_are_right() -> None:
    frame = message_frame(LONG)
    reader = claiming(frame)
    reader.land(memoryview(bytearray(SIZE)))
    receive(reader, frame[100:], 5000)
    _, err = parse(reader, KEEPALIVE + b"\xff", [2])
    assert err is not None
    assert (err.field, err.offset) == ("tag", len(frame) + 1)


def test_an_aborted_message_leaves_its_place() -> None:
    frame = message_frame(LONG)[:-1] + b"\0"
    reader = claiming(frame)
    memory = Memory(SIZE)
    gone = weakref.ref(memory)
    reader.land(memoryview(memory))
    del memory
    assert receive(reader, frame[100:], 5000) == []
    assert reader.aborted == 1
    gc.collect()
    assert gone() is None
    assert reader.feed(KEEPALIVE) == [(9, None, None)]


# declined


def test_a_declined_message_is_received_as_if_nobody_had_asked() -> None:
    frame = message_frame(LONG)
    reader = claiming(frame)
    reader.decline()
    assert reader.claim is None
    ((_, _, raw),) = reader.feed(frame[100:])
    assert type(raw) is bytes
    assert raw == frame[1:]


def test_a_declined_large_one_lands_in_memory_of_its_own() -> None:
    m = Message(2, data=bytes(1 << 20))
    frame = message_frame(m)
    reader = claiming(frame, 64 * 1024)
    reader.decline()
    view = reader.landing()
    assert view is not None
    assert len(view) == 64 * 1024, "it grows with what really came"
    view.release()
    ((_, _, raw),) = reader.feed(frame[64 * 1024 :])
    assert raw == frame[1:]


# the end of a connection


def test_an_abandoned_message_leaves_its_place() -> None:
    frame = message_frame(LONG)
    reader = claiming(frame)
    memory = Memory(SIZE)
    gone = weakref.ref(memory)
    reader.land(memoryview(memory))
    del memory
    receive(reader, frame[100:200], 100)
    gc.collect()
    assert gone() is not None
    reader.abandon()
    assert gone() is None
    assert reader.buffered == 0
    assert reader.landing() is None


def test_an_abandoned_claim_is_none() -> None:
    reader = claiming(message_frame(LONG))
    reader.abandon()
    assert reader.claim is None
    assert reader.buffered == 0


# what is expected


def landed(reader: FrameParser, seq: int = 1) -> None:
    frame = message_frame(LONG, seq)
    assert reader.feed(frame[:100]) == []
    answer_claim(reader, memoryview(bytearray(SIZE)))
    assert len(receive(reader, frame[100:], 5000)) == 1


def test_after_a_landed_message_another_one_is_expected() -> None:
    reader = parser()
    reader.feed(message_frame(SHORT))
    assert not reader.expects_large
    landed(reader)
    assert reader.expects_large
    reader.feed(encode_ack(1) + KEEPALIVE)
    assert reader.expects_large, "acks say nothing about messages"
    landed(reader, 2)
    assert reader.expects_large
    reader.feed(message_frame(SHORT, 3))
    assert not reader.expects_large


def test_after_a_declined_one_none_is_expected() -> None:
    reader = parser()
    landed(reader)
    reader.feed(message_frame(LONG, 2)[:100])
    reader.decline()
    assert not reader.expects_large
