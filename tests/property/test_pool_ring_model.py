"""The ring against a model of it: any sizes, any interleaving, many laps."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.pool.ring import RingReader, RingWriter, reset

HEADER = 64

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 80)),
        st.tuples(st.just("read"), st.integers(1, 4)),
    ),
    max_size=100,
)


class Line:
    """A ring and the frames on their way, with what each batch was."""

    def __init__(self, capacity: int) -> None:
        memory = memoryview(bytearray(HEADER + capacity))
        reset(memory)
        self.capacity = capacity
        self.writer, self.reader = RingWriter(memory), RingReader(memory)
        self.frames: deque[tuple[int, bytes]] = deque()
        self.puts = 0

    def put(self, length: int) -> None:
        self.puts += 1
        data = bytes((self.puts * 7 + i) % 256 for i in range(length))
        fits = self.fits(length)
        position = self.writer.put(data)
        assert (position is not None) == fits
        if position is not None:
            self.frames.append((position, data))

    def fits(self, length: int) -> bool:
        """Is there a piece of *length* bytes behind the last batch that no batch lies in?"""
        waiting = [frame for frame in self.frames if frame[1]]
        if not waiting:
            return length <= self.capacity
        first, (last, data) = waiting[0][0], waiting[-1]
        end = last % self.capacity + len(data)
        if first // self.capacity == last // self.capacity:
            return length <= self.capacity - end or length <= first % self.capacity
        return length <= first % self.capacity - end

    def read(self, count: int) -> None:
        """Take up to *count* batches, in order, and give the last one back."""
        batches = [self.frames.popleft() for _ in range(min(count, len(self.frames)))]
        for position, data in batches:
            assert self.reader.take(position, len(data)) == data
        for position, data in batches[-1:]:
            self.reader.done(position, len(data))

    def check_waiting(self) -> None:
        """What is on its way is as it was written."""
        for position, data in self.frames:
            assert self.reader.take(position, len(data)) == data


@given(st.integers(40, 100), steps)
def test_every_batch_is_read_as_it_was_written(capacity: int, steps: list[tuple[str, int]]) -> None:
    line = Line(capacity)
    for kind, argument in steps:
        getattr(line, kind)(argument)
        line.check_waiting()
    line.read(len(line.frames))
    assert line.writer.used == 0
    line.put(capacity)
