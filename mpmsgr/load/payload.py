"""The bytes of requests: cheap to make, and different from one request to the next."""

from __future__ import annotations

import random

Parts = tuple[bytes, bytes, bytes]
"""front, middle, data of one message."""

_SHIFTS = 4093
_KNOWN_BY = 16


class Payloads:
    """Requests of one client as windows into one block of noise.

    A window's place depends on client and serial, so that the reply to another request, or
    another client, is seen as corrupted. An echo is asked with bytes in all three parts; other
    types get a few bytes in front, to know the reply by, and everything else in data.
    """

    def __init__(self, size: int, client: int, *, echo: bool, block: bytes) -> None:
        self._size = size
        self._start = client * 1201
        self._block = block
        middle = size // 4 if echo else 0
        self._front_end = size - 2 * middle if echo else min(size, _KNOWN_BY)
        self._middle_end = self._front_end + middle

    def parts(self, serial: int) -> Parts:
        """Front, middle and data of request number *serial*."""
        at = (self._start + serial * 7) % _SHIFTS
        block, front_end, middle_end = self._block, at + self._front_end, at + self._middle_end
        return block[at:front_end], block[front_end:middle_end], block[middle_end : at + self._size]


def noise(size: int) -> bytes:
    """The block all windows of *size* bytes come from; equal in every process."""
    return random.Random(size).randbytes(size + _SHIFTS)
