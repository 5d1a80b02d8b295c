"""The ring, batch by batch: places, a full ring, its end, and what must not be believed."""

from __future__ import annotations

import pytest

from mpmsgr.pool.ring import RingReader, RingWriter, reset

HEADER = 64
CAPACITY = 100


@pytest.fixture
def memory() -> memoryview:
    memory = memoryview(bytearray(b"\xff" * (HEADER + CAPACITY)))
    reset(memory)
    return memory


@pytest.fixture
def writer(memory: memoryview) -> RingWriter:
    return RingWriter(memory)


@pytest.fixture
def reader(memory: memoryview) -> RingReader:
    return RingReader(memory)


def put(writer: RingWriter, data: bytes) -> tuple[int, int]:
    """The frame of a batch that fits."""
    position = writer.put(data)
    assert position is not None
    return position, len(data)


def set_done(memory: memoryview, position: int) -> None:
    memory[:8].cast("Q")[0] = position


@pytest.mark.parametrize("data", [b"batch", bytearray(b"batch"), memoryview(b"batch"), b""])
def test_a_batch_arrives(
    writer: RingWriter, reader: RingReader, data: bytes | bytearray | memoryview
) -> None:
    position = writer.put(data)
    assert position == 0
    assert reader.take(position, len(data)) == data


def test_batches_lie_one_after_the_other(memory: memoryview, writer: RingWriter) -> None:
    assert [writer.put(b"abc"), writer.put(b"defgh"), writer.put(b"i")] == [0, 3, 8]
    assert bytes(memory[HEADER : HEADER + 9]) == b"abcdefghi"


def test_taken_batches_are_not_for_writing(writer: RingWriter, reader: RingReader) -> None:
    assert reader.take(*put(writer, b"abc")).readonly


def test_a_full_ring_takes_nothing_and_overwrites_nothing(
    memory: memoryview, writer: RingWriter, reader: RingReader
) -> None:
    first, second = put(writer, b"a" * 60), put(writer, b"b" * 40)
    before = bytes(memory)
    assert writer.used == CAPACITY
    assert writer.put(b"c") is None
    assert bytes(memory) == before
    reader.done(*first)
    assert reader.take(*put(writer, b"c" * 60)) == b"c" * 60
    assert reader.take(*second) == b"b" * 40


def test_what_does_not_fit_before_the_end_starts_anew(
    memory: memoryview, writer: RingWriter, reader: RingReader
) -> None:
    reader.done(*put(writer, b"a" * 50))
    put(writer, b"b" * 30)
    assert writer.put(b"c" * 30) == CAPACITY
    assert bytes(memory[HEADER : HEADER + 30]) == b"c" * 30
    assert writer.used == 30 + 20 + 30
    assert writer.put(b"d" * 21) is None


@pytest.mark.parametrize("read", range(0, CAPACITY, 7))
def test_an_empty_ring_takes_its_capacity(
    writer: RingWriter, reader: RingReader, read: int
) -> None:
    reader.done(*put(writer, b"a" * read))
    frame = put(writer, b"b" * CAPACITY)
    assert reader.take(*frame) == b"b" * CAPACITY
    assert writer.put(b"c") is None
    reader.done(*frame)
    assert writer.used == 0


def test_the_unused_end_before_such_a_batch_is_room_too(
    writer: RingWriter, reader: RingReader
) -> None:
    reader.done(*put(writer, b"a" * 50))
    frames = [put(writer, b"b" * 60), put(writer, b"c" * 30), put(writer, b"d" * 10)]
    assert (frames[0][0], writer.used) == (CAPACITY, CAPACITY)
    assert writer.put(b"e") is None
    assert [bytes(reader.take(*frame)) for frame in frames] == [b"b" * 60, b"c" * 30, b"d" * 10]


def test_nothing_larger_than_the_ring(writer: RingWriter) -> None:
    assert writer.put(b"a" * (CAPACITY + 1)) is None
    assert writer.used == 0


def test_a_later_done_is_for_the_earlier_ones_too(writer: RingWriter, reader: RingReader) -> None:
    frames = [put(writer, bytes([number]) * 25) for number in range(4)]
    reader.done(*frames[2])
    assert writer.used == 25
    reader.done(*frames[0])
    assert writer.used == 25
    put(writer, b"x" * 75)
    assert reader.take(*frames[3]) == b"\3" * 25


def test_what_was_given_back_cannot_be_taken(writer: RingWriter, reader: RingReader) -> None:
    frame = put(writer, b"abc")
    reader.done(*frame)
    with pytest.raises(ValueError, match="3 bytes at 0"):
        reader.take(*frame)


@pytest.mark.parametrize(
    ("position", "length"),
    [(0, CAPACITY + 1), (0, -1), (CAPACITY - 1, 2), (5 * CAPACITY + 40, 61), (-CAPACITY, 1)],
)
def test_frames_that_no_writer_sends(reader: RingReader, position: int, length: int) -> None:
    with pytest.raises(ValueError, match="of a ring of 100"):
        reader.take(position, length)


@pytest.mark.parametrize("ahead", [1, 20, CAPACITY, 1 << 62])
def test_a_reader_ahead_of_the_writer_is_not_believed(
    memory: memoryview, writer: RingWriter, ahead: int
) -> None:
    put(writer, b"a" * 80)
    set_done(memory, 80 + ahead)
    before = bytes(memory)
    assert [writer.put(b"b" * length) for length in (0, 10, 50, 100)] == [None] * 4
    assert bytes(memory) == before
    set_done(memory, 80)
    assert writer.put(b"b") == 80


def test_a_new_generation_starts_from_nothing(
    memory: memoryview, writer: RingWriter, reader: RingReader
) -> None:
    for _ in range(5):
        reader.done(*put(writer, b"a" * 70))
    put(writer, b"a" * 70)
    reset(memory)
    new = RingWriter(memory)
    frame = put(new, b"b" * CAPACITY)
    assert frame[0] == 0
    assert RingReader(memory).take(*frame) == b"b" * CAPACITY


@pytest.mark.parametrize("end", [RingWriter, RingReader])
def test_a_memory_too_small(end: type[RingWriter] | type[RingReader]) -> None:
    with pytest.raises(ValueError, match="no ring fits into 64 bytes"):
        end(memoryview(bytearray(HEADER)))
