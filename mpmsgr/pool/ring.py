"""Batches in shared memory: one process writes, one other reads, bytes in a ring.

    0        8            64                                                         size
    +--------+------------+-----------------------------------------------------------+
    | done   | unused     |  capacity bytes: batches one after the other, each in one  |
    | u64    |            |  piece; what does not fit before the end starts at 64       |
    +--------+------------+-----------------------------------------------------------+

A position counts bytes since the ring was reset and never goes back; ``position % capacity`` is
where it is in the ring. The ZeroMQ frame of a batch carries its position and length, so the writer
needs no cell for where it stands, and the reader none for what it expects. ``done`` is the position
up to which the reader has read: the only cell, written by the reader alone.

Why the order of writes is safe:
* the bytes of a batch are stored before its frame is sent, and read after that was received: the
  frame's way through the kernel orders the two for us;
* ``done`` is stored after the last byte of the batch was read. It is one aligned 8-byte store and
  load (memoryview copies a "Q" item with one memcpy of its size), so the writer sees the old value
  or the new one, never half of each; an old one only makes the ring look fuller. On x86-64 no store
  overtakes an earlier load. Machines that allow it do so within some hundred instructions, and
  between the reader's last look and ``done`` lie thousands: it has unpacked the batch by then.

A reader that dies leaves ``done`` behind, a writer that dies leaves a batch nobody heard of:
`reset` starts the ring anew for the next generation, when the other end is surely dead.
"""

from __future__ import annotations

from mpmsgr.wire.crc import Bytes

_HEADER = 64  # a cache line: the reader's stores do not disturb the first batch


def reset(memory: memoryview) -> None:
    """An empty ring. Both ends start anew after it; none of the old ones may still use *memory*."""
    memory[:_HEADER] = bytes(_HEADER)


class RingWriter:
    """The writing end of the ring in *memory*, which `reset` has prepared. Never blocks."""

    def __init__(self, memory: memoryview) -> None:
        self._done = memory[:_HEADER].cast("Q")
        self._bytes = memory[_HEADER:]
        self._capacity = _capacity(memory)
        self._position = 0  # where the next batch may start
        self._oldest = 0  # no batch before it waits to be read

    def put(self, data: Bytes) -> int | None:
        """Copy *data* into the ring: its position, for the frame; None if there is no room.

        An empty ring has room for its whole capacity. There is none while the reader claims to have
        read what was never written.
        """
        start, length = self._position, len(data)
        offset = start % self._capacity
        if offset + length > self._capacity:  # in one piece: leave the end unused
            start += self._capacity - offset
            offset = 0
        done = self._done[0]
        if done > self._position:
            return None
        # Nothing waits to be read: then the unused end takes no room either.
        oldest = start if done == self._position else max(done, self._oldest)
        if start + length - oldest > self._capacity:
            return None
        self._bytes[offset : offset + length] = data
        self._position, self._oldest = start + length, oldest
        return start

    @property
    def used(self) -> int:
        """Bytes written and not read yet, with the unused ends between them."""
        return self._position - max(self._done[0], self._oldest)


class RingReader:
    """The reading end of the ring in *memory*; frames are taken in the order they arrive."""

    def __init__(self, memory: memoryview) -> None:
        self._done = memory[:_HEADER].cast("Q")
        self._bytes = memory[_HEADER:].toreadonly()
        self._capacity = _capacity(memory)

    def take(self, position: int, length: int) -> memoryview:
        """The batch a frame announced. Its bytes may change once `done` was called.

        Raises ValueError if no writer of this ring can have said that.
        """
        offset = position % self._capacity
        if position < self._done[0] or not 0 <= length <= self._capacity - offset:
            raise ValueError(f"{length} bytes at {position} of a ring of {self._capacity}")
        return self._bytes[offset : offset + length]

    def done(self, position: int, length: int) -> None:
        """Give back this batch and every one before it, taken or skipped."""
        end = position + length
        if end > self._done[0]:
            self._done[0] = end


def _capacity(memory: memoryview) -> int:
    capacity = memory.nbytes - _HEADER
    if capacity < 1:
        raise ValueError(f"no ring fits into {memory.nbytes} bytes")
    return capacity
