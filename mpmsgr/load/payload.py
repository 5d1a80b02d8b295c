"""The bytes of requests: encoded once, sent many times, and different from one to the next."""

from __future__ import annotations

import random

from mpmsgr.load.plan import LoadPlan
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import PRIO_DEFAULT, Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import (
    FOOTER_SIZE,
    HEADER_SIZE,
    Parcel,
    decode_raw,
    encode_parts,
)

_SHIFT = 7
_CLIENT_SHIFT = 31
_KNOWN_BY = 16
_MANY, _FEW = 509, 4
_MEMORY = 16 << 20


class Bodies:
    """The bodies (payload and footer) that the requests of one process take turns in.

    `lengths` are those of front, middle and data. An echo is asked with bytes in all three parts;
    other types get a few bytes in front, to know the reply by, and everything else in data. There
    are as many bodies as fit into 16 MiB, 4 to 509.
    """

    def __init__(self, plan: LoadPlan) -> None:
        size = plan.size
        middle = size // 4 if plan.echo else 0
        front = size - 2 * middle if plan.echo else min(size, _KNOWN_BY)
        self.lengths = (front, middle, size - front - middle)
        number = max(_FEW, min(_MANY, _MEMORY // (size + 1)))
        block = noise(size)
        self._bodies = [self._encode(block, i * _SHIFT) for i in range(number)]

    def of(self, client: int, tid: int) -> bytes:
        """The body of request *tid* of *client*.

        It depends on both, so that the reply to another request is seen as corrupted.
        """
        return self._bodies[(client * _CLIENT_SHIFT + tid) % len(self._bodies)]

    def _encode(self, block: bytes, at: int) -> bytes:
        parts = []
        for length in self.lengths:
            parts.append(block[at : at + length])
            at += length
        return b"".join(encode_parts(Message(0, *parts), EntityName(0))[1])


class Requests:
    """The requests of one client and the replies they want; number *tid* is always the same.

    Replies are compared as they lie in the raw message: encoding and decoding each one would cost
    as much as the server that is to be loaded.
    """

    def __init__(self, plan: LoadPlan, client: int, bodies: Bodies) -> None:
        self._client = client
        self._echo = plan.echo
        self._bodies = bodies
        parts = map(bytes, bodies.lengths)
        head, _ = encode_parts(Message(plan.type, *parts), EntityName.parse(f"client.{client}"))
        self._head = head[8:]  # all but the tid
        self._size = plan.size + FOOTER_SIZE

    def parcels(self, tids: range) -> list[Parcel]:
        """Requests *tids*, ready to be sent."""
        client, body_of, head, size = self._client, self._bodies.of, self._head, self._size
        return [
            Parcel(tid.to_bytes(8, "little") + head, (body_of(client, tid),), PRIO_DEFAULT, size)
            for tid in tids
        ]

    def intact(self, tid: int, lengths: tuple[int, ...], raw: Bytes) -> bool:
        """Does raw reply *raw*, of parts with these *lengths*, belong to request *tid*?

        An echo brings all parts back; other handlers bring the request's front in middle.
        """
        asked = self._bodies.of(self._client, tid)
        if not self._echo:
            return bytes(decode_raw(raw).middle) == asked[: self._bodies.lengths[0]]
        if lengths != self._bodies.lengths:
            return False
        if type(raw) is not bytes:
            raw = bytes(raw)  # comparing a view takes an object per byte
        # The footer is mostly equal too; where a peer has other flags the payload counts.
        return raw.startswith(asked, HEADER_SIZE) or (
            raw[HEADER_SIZE:-FOOTER_SIZE] == asked[:-FOOTER_SIZE]
        )


def noise(size: int) -> bytes:
    """The block that windows of *size* bytes come from; equal in every process."""
    return random.Random(size).randbytes(size + _MANY * _SHIFT)
