"""The frame parser under any chunking and any damage: same frames, one kind of error, no waste."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import EntityAddr, decode_vector
from mpmsgr.wire.authorizer import NoneAuthorizer
from mpmsgr.wire.crc import crc32c
from mpmsgr.wire.features import MSG_AUTH, NOSRCADDR, SUPPORTED
from mpmsgr.wire.limits import MIB, Limits
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1 import parser as parser_module
from mpmsgr.wire.v1.frames import CLOSE, KEEPALIVE, encode_ack, encode_keepalive2
from mpmsgr.wire.v1.handshake import HandshakeBuffer
from mpmsgr.wire.v1.parcel import decode_raw
from mpmsgr.wire.v1.parser import Claim, Frame, FrameParser
from tests.streams import message_frame, parse, with_length

LIMITS = Limits(max_front=2000, max_middle=2000, max_data=20000)
U16 = st.integers(0, (1 << 16) - 1)
U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
FEATURES = st.sampled_from([SUPPORTED, NOSRCADDR, MSG_AUTH, 0])

short = st.binary(max_size=40)
parts = st.one_of(short, short.map(lambda part: part * 50))
messages = st.builds(
    Message,
    U16,
    parts,
    parts,
    st.one_of(parts, st.binary(min_size=1, max_size=40).map(lambda part: part * 500)),
    tid=U64,
    priority=U16,
    version=U16,
    compat_version=U16,
    data_off=U16,
)
control_frames = st.one_of(
    st.just(CLOSE),
    st.just(KEEPALIVE),
    U64.map(encode_ack),
    st.tuples(U32, U32).map(encode_keepalive2),
)
sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=8)


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, list[bytes]]:
    """Features, and frames written with them; some messages without data crc, some aborted."""
    features = draw(FEATURES)
    frames = []
    for item in draw(st.lists(st.one_of(messages, control_frames), max_size=8)):
        if isinstance(item, bytes):
            frames.append(item)
            continue
        frame = message_frame(item, draw(U64), features, crc_data=draw(st.booleans()))
        aborted = draw(st.sampled_from([False, False, False, True]))
        frames.append(frame[:-1] + b"\0" if aborted else frame)
    return features, frames


def one_by_one(features: int, frames: list[bytes]) -> list[Frame]:
    """What each frame gives when it is all a parser is ever fed."""
    return [got for frame in frames for got in FrameParser(LIMITS, features).feed(frame)]


@pytest.fixture(autouse=True, scope="module")
def _small_messages_land_too() -> Iterator[None]:
    # 256, 32 and 4 KiB in use; the logic does not depend on them.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser_module, "_LARGE", 1000)
        patch.setattr(parser_module, "_LAND_ABOVE", 60)
        patch.setattr(parser_module, "_SLICE_BELOW", 80)
        yield


# any chunking


@settings(max_examples=300)
@given(streams(), sizes, st.booleans())
def test_any_chunking_gives_the_same_frames(
    stream: tuple[int, list[bytes]], sizes: list[int], land: bool
) -> None:
    features, sent = stream
    reader = FrameParser(LIMITS, features)
    frames, err = parse(reader, b"".join(sent), sizes, land=land)
    assert err is None
    assert frames == one_by_one(features, sent)
    assert reader.buffered == 0
    assert reader.aborted + len(frames) == len(sent)


@given(streams(), sizes, st.booleans())
def test_raw_is_bytes_unless_the_message_is_large(
    stream: tuple[int, list[bytes]], sizes: list[int], land: bool
) -> None:
    features, sent = stream
    frames, _ = parse(FrameParser(LIMITS, features), b"".join(sent), sizes, land=land)
    for _, _, raw in frames:
        assert raw is None or type(raw) is bytes or len(raw) >= 1000


@given(messages, FEATURES, U64, sizes)
def test_a_message_arrives_as_it_was_sent(
    m: Message, features: int, seq: int, sizes: list[int]
) -> None:
    reader = FrameParser(LIMITS, features)
    frames, _ = parse(reader, message_frame(m, seq, features), sizes)
    ((_, number, raw),) = frames
    assert raw is not None
    got = decode_raw(raw)
    assert number == got.seq == seq
    assert (got.front, got.middle, got.data) == (m.front, m.middle, m.data)
    assert (got.type, got.tid, got.version, got.data_off) == (m.type, m.tid, m.version, m.data_off)
    assert got.priority == (m.priority or 127)


# places


class Owner:
    """Gives places for claims, or none, as it draws; one in turn, from the last answer on."""

    def __init__(self, answers: list[bool]) -> None:
        self._answers = answers
        self.given: list[memoryview] = []

    def place(self, claim: Claim) -> memoryview | None:
        assert 53 <= claim.lead <= claim.size - 21
        self._answers.append(self._answers.pop(0))
        if not self._answers[-1]:
            return None
        self.given.append(memoryview(bytearray(claim.size)))
        return self.given[-1]


owners = st.lists(st.booleans(), min_size=1, max_size=5).map(Owner)
thresholds = st.one_of(st.integers(1, 300), st.integers(1000, 20000))


@settings(max_examples=300)
@given(streams(), sizes, st.booleans(), owners, thresholds)
def test_places_change_nothing(
    stream: tuple[int, list[bytes]], sizes: list[int], land: bool, owner: Owner, above: int
) -> None:
    features, sent = stream
    reader = FrameParser(LIMITS, features, claims_above=above)
    frames, err = parse(reader, b"".join(sent), sizes, land=land, place=owner.place)
    assert err is None
    assert frames == one_by_one(features, sent)
    assert reader.buffered == 0
    assert reader.aborted + len(frames) == len(sent)
    raws = [raw for _, _, raw in frames]
    in_place = [any(raw is view for raw in raws) for view in owner.given]
    assert in_place.count(False) <= reader.aborted
    assert all(len(view) > above for view in owner.given)


@given(messages, U64, st.integers(54, 20000), owners)
def test_a_long_message_that_is_cut_anywhere_gets_its_place(
    m: Message, seq: int, cut: int, owner: Owner
) -> None:
    frame = message_frame(m, seq)
    reader = FrameParser(LIMITS, SUPPORTED, claims_above=54)
    frames, _ = parse(reader, frame, [min(cut, len(frame) - 1), 20000], place=owner.place)
    assert [raw for _, _, raw in frames] == [frame[1:]]
    for view in owner.given:
        assert frames[0][2] is view


# any damage


def damage(draw: st.DrawFn, stream: bytes) -> bytes:
    """Flip, replace, insert or remove a few bytes; or cut the end off."""
    data = bytearray(stream)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "replace", "insert", "remove", "cut"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "replace":
            data[at : at + 8] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 8))]
        else:
            del data[at:]
    return bytes(data)


@settings(max_examples=300)
@given(st.data(), streams(), sizes, st.booleans(), st.booleans(), st.sampled_from([0, 60, 1000]))
def test_damage_is_a_protocol_error_or_an_incomplete_frame(
    data: st.DataObject,
    stream: tuple[int, list[bytes]],
    sizes: list[int],
    land: bool,
    checks: bool,
    above: int,
) -> None:
    features, sent = stream
    damaged = data.draw(st.composite(damage)(b"".join(sent)))

    def read(sizes: list[int], land: bool, above: int = 0) -> tuple[list[Frame], object, int]:
        reader = FrameParser(
            LIMITS, features, check_header=checks, check_data=checks, claims_above=above
        )
        place = Owner([True, True, False]).place
        frames, err = parse(reader, damaged, sizes, land=land, place=place)
        if err is None:
            return frames, None, reader.buffered
        assert 0 <= (err.offset or 0) < len(damaged)
        return frames, (err.field, err.value, err.allowed, err.offset, err.fault), 0

    assert read(sizes, land, above) == read([len(damaged) or 1], False)


@given(st.binary(max_size=400), FEATURES, sizes)
def test_noise_is_a_protocol_error_or_an_incomplete_frame(
    noise: bytes, features: int, sizes: list[int]
) -> None:
    reader = FrameParser(LIMITS, features, check_header=False)
    parse(reader, noise, sizes)  # ProtocolError is caught there, nothing else is
    assert reader.buffered <= len(noise)


def fault_of(call: Callable[[], object]) -> ProtocolError | None:
    """The ProtocolError that *call* raises; anything else is not caught."""
    try:
        call()
    except ProtocolError as err:
        return err
    return None


HANDSHAKE_READERS: list[Callable[[HandshakeBuffer], object]] = [
    HandshakeBuffer.read_banner,
    HandshakeBuffer.read_address,
    HandshakeBuffer.read_connect,
    HandshakeBuffer.read_reply,
    HandshakeBuffer.read_seq,
]


@given(st.binary(max_size=300), st.sampled_from(HANDSHAKE_READERS))
def test_noise_in_a_handshake(noise: bytes, read: Callable[[HandshakeBuffer], object]) -> None:
    buf = HandshakeBuffer(Limits(max_authorizer=100))
    buf.feed(noise)
    err = fault_of(lambda: read(buf))
    if err is not None:
        assert err.offset is not None
        assert err.offset < len(noise)


VERSIONED = EntityAddr.of("127.0.0.1", 6800, 7).encode_versioned()
VALID = [
    (EntityAddr.decode, EntityAddr.of("::1", 6800, 7).encode()),
    (EntityAddr.decode_versioned, VERSIONED),
    (decode_vector, b"\2\2\0\0\0" + VERSIONED * 2),
    (NoneAuthorizer.decode, NoneAuthorizer(8, "é").encode()),
]


@given(st.data(), st.sampled_from(VALID))
def test_noise_in_addresses_and_authorizers(
    data: st.DataObject, valid: tuple[Callable[[bytes], object], bytes]
) -> None:
    decode, encoded = valid
    noise = data.draw(st.binary(max_size=200) | st.composite(damage)(encoded))
    err = fault_of(lambda: decode(noise))
    assert err is None or err.offset is not None


@given(st.text(max_size=40) | st.text("[]:/.-0123456789abcdefv%", max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for read in (EntityAddr.parse, EntityName.parse):
        with suppress(ValueError):
            assert read(text)


addresses = st.one_of(
    st.tuples(st.ip_addresses().map(str), U16, U32).map(lambda a: EntityAddr.of(*a)),
    st.tuples(U16, U32).map(lambda a: EntityAddr(port=a[0], nonce=a[1])),
)


@given(addresses, addresses)
def test_addresses_survive_every_form(a: EntityAddr, b: EntityAddr) -> None:
    assert EntityAddr.decode(a.encode()) == a
    assert EntityAddr.parse(str(a)) == a
    assert (a.sort_key() == b.sort_key()) == (a == b)
    if a.family:
        assert EntityAddr.decode_versioned(a.encode_versioned())[0] == a


# no waste


@pytest.fixture
def _in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that are in use."""
    monkeypatch.setattr(parser_module, "_LARGE", 256 * 1024)
    monkeypatch.setattr(parser_module, "_LAND_ABOVE", 32 * 1024)
    monkeypatch.setattr(parser_module, "_SLICE_BELOW", 4096)


@pytest.mark.usefixtures("_in_use")
@pytest.mark.parametrize(("front", "data"), [(16 * MIB, 0), (0, 64 * MIB), (16 * MIB, 64 * MIB)])
def test_a_claimed_length_costs_nothing(front: int, data: int) -> None:
    header = with_length(with_length(message_frame(Message(2)), 22, front), 30, data)[:54]
    more = bytes(64 * 1024)
    tracemalloc.start()
    try:
        readers = [FrameParser(Limits(), SUPPORTED) for _ in range(10)]
        before, _ = tracemalloc.get_traced_memory()
        for reader in readers:
            reader.feed(header)
            assert reader.landing() is None
        after, peak = tracemalloc.get_traced_memory()
        assert after - before < 10 * 1024
        assert peak - before < 10 * 1024
        for reader in readers:
            reader.feed(more)
            view = reader.landing()
            assert view is not None
            view.release()
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 10 * 2.2 * len(more) + len(more)
    finally:
        tracemalloc.stop()


class Touched:
    """Counts the bytes the parser copies (slices, appends, conversions) or takes the crc of."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.nbytes = 0

        def slice_of(buf: Any, key: Any) -> Any:
            base: Any = super(type(buf), buf)
            part = base.__getitem__(key)
            return self.count(type(buf)(part)) if isinstance(key, slice) else part

        def append(buf: Any, more: Any) -> Any:
            return bytearray.__iadd__(buf, self.count(more))

        methods = {"__getitem__": slice_of, "__iadd__": append}
        array: Any = type("CountedArray", (bytearray,), methods)
        self.bytes: Any = type("CountedBytes", (bytes,), {"__getitem__": slice_of})
        replaced = {
            "bytes": lambda data: self.count(bytes(data)),
            "bytearray": lambda data=b"": self.count(array(data)),
            "crc32c": lambda data, seed: crc32c(self.count(data), seed),
        }
        for name, function in replaced.items():
            patch.setattr(parser_module, name, function, raising=False)

    def count(self, part: Any) -> Any:
        self.nbytes += len(part)
        return part


@pytest.mark.usefixtures("_in_use")
@pytest.mark.parametrize("chunk", [1, 50, 1000, 65536, 1 << 22])
@pytest.mark.parametrize(
    "stream",
    [
        b"".join(message_frame(Message(2, b"x" * 64), seq) for seq in range(500)),
        message_frame(Message(2, b"front", data=bytes(200 * 1024))) * 2,
        encode_ack(7) * 5000,
    ],
    ids=["small", "bulk", "acks"],
)
def test_work_is_linear(stream: bytes, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = Touched(monkeypatch)
    reader = FrameParser(Limits(), SUPPORTED)
    frames = 0
    for at in range(0, len(stream), chunk):
        frames += len(reader.feed(touched.bytes(stream[at : at + chunk])))
    assert frames
    # Appended to the partial frame, made bytes, made the raw message, its crc (the header's twice),
    # and what is left of a chunk behind a completed frame.
    assert touched.nbytes < 6 * len(stream)


@pytest.mark.usefixtures("_in_use")
@pytest.mark.parametrize("size", [70_000, MIB])
def test_a_message_in_its_place_is_read_once_for_its_crc(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = Touched(monkeypatch)
    frame = message_frame(Message(2, b"front", data=bytes(size)))
    reader = FrameParser(Limits(), SUPPORTED, claims_above=1000)
    assert reader.feed(touched.bytes(frame[:200])) == []
    reader.land(memoryview(bytearray(len(frame) - 1)))
    with reader.landing() or memoryview(b"") as rest:
        rest[:] = frame[200:]
    assert len(reader.landed(len(frame) - 200)) == 1
    assert touched.nbytes < size + 500  # what was fed is kept, and the header's crc taken twice


@pytest.mark.usefixtures("_in_use")
def test_landing_doubles() -> None:
    frame = message_frame(Message(2, data=bytes(32 * MIB)))
    reader = FrameParser(Limits(), SUPPORTED)
    reader.feed(frame[: 64 * 1024])
    at, rooms = 64 * 1024, []
    while (view := reader.landing()) is not None:
        rooms.append(len(view))
        view[:] = frame[at : at + len(view)]
        at += len(view)
        view.release()
        reader.landed(rooms[-1])
    assert rooms[:3] == [64 * 1024, 128 * 1024, 256 * 1024]
    assert len(rooms) <= 10
    assert len(reader.feed(frame[at:])) == 1


@pytest.mark.usefixtures("_in_use")
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=5), st.integers(1, 3))
def test_large_messages_in_any_chunking(sizes: list[int], count: int) -> None:
    m = Message(2, b"front", data=bytes(range(256)) * 2500)
    stream = b"".join(message_frame(m, seq) + KEEPALIVE for seq in range(count))
    reader = FrameParser(Limits(), SUPPORTED)
    frames, err = parse(reader, stream, [*sizes, 5000], land=True)
    assert err is None
    assert [tag for tag, _, _ in frames] == [7, 9] * count
    raws = b"".join(b"\7" + bytes(raw) + KEEPALIVE for _, _, raw in frames if raw)
    assert raws == stream
