"""Frames of the link, the long ones through a ring in shared memory (envelope.py, ring.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmsgr.pool.envelope import RING_ABOVE, pack, unpack
from mpmsgr.pool.ring import RingReader, RingWriter
from mpmsgr.wire.crc import Bytes


class Ringed:
    """Packs what goes out over the ring in *outgoing*, unpacks what came over that in *incoming*.

    Without rings everything is in the frames themselves, as what finds a ring full is. default: see
    `envelope.pack`.
    """

    def __init__(
        self,
        outgoing: memoryview | None = None,
        incoming: memoryview | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        self._default = default
        self._writer = None if outgoing is None else RingWriter(outgoing)
        self._reader = None if incoming is None else RingReader(incoming)

    def pack(self, envelope: tuple[Any, ...]) -> bytes:
        """The frame to send."""
        frame = pack(envelope, self._default)
        if self._writer is not None and len(frame) > RING_ABOVE:
            position = self._writer.put(frame)
            if position is not None:
                return pack((position, len(frame)))
        return frame

    def unpack(self, frame: Bytes) -> list[Any]:
        """The array of a frame that arrived."""
        envelope = unpack(frame)
        if len(envelope) == 2 and self._reader is not None:
            position, length = envelope
            envelope = unpack(self._reader.take(position, length))
            self._reader.done(position, length)
        return envelope
