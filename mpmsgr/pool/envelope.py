"""What travels on the link: one ZeroMQ frame, one msgpack array, a batch of what was ready.

I/O process -> worker
    [incarnation, [record, ...]]
    record = [connection id, intro or nil, items or nil]
        intro   facts of a connection that this worker does not know yet (`Intro`)
        items   messages (raw bytes: wire/v1/parcel.py) and events (arrays: `EventItem`), in
                order; nil: forget the connection, another worker has it now

worker -> I/O process
    [incarnation, generation, kind, payload]
    READY   payload = nil                 the worker takes batches
    BATCH   payload = [record, ...]       record = [connection id, items completed, out,
                                                    pushes, asks]
        out     head, body, head, body ... of parcels; a body is bytes or an array of them
        pushes  which of them (0, 1 ...) nobody waits for
        asks    is an intro wanted, for what it says of the outbox? Both are left out when there
                are no pushes
    DOWN    payload = [connection id, ...]  mark_down
    BYE     payload = nil                 nothing more will come

incarnation counts I/O processes, generation the workers of a slot; what names another one than the
reader knows is stale and dropped. The worker's ZeroMQ identity is ``slot.generation``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from mpmsgr.wire.crc import Bytes

READY, BATCH, DOWN, BYE = range(4)

OutRecord = tuple[int, int, list[Any]] | tuple[int, int, list[Any], list[int], bool]


class EventItem(NamedTuple):
    """An event of a connection: its kind (`EventKind.value`), the tids dropped with it."""

    kind: str
    lost: tuple[int, ...] = ()


class Intro(NamedTuple):
    """Facts of a connection. Addresses in text form.

    outbox_full, outbox_bytes: of its policy; full_with: bytes in its outbox while it is full, or 0.
    """

    peer_type: int
    peer_addr: str
    my_addr: str
    features: int
    lossy: bool
    outbox_full: str
    outbox_bytes: int
    full_with: int


InItem = Bytes | EventItem
InRecord = tuple[int, Intro | None, list[InItem] | None]


def pack(envelope: tuple[Any, ...]) -> bytes:
    """One frame."""
    packed: bytes = msgpack.packb(envelope)
    return packed


def unpack(frame: bytes) -> list[Any]:
    """The array of one frame."""
    envelope: list[Any] = msgpack.unpackb(
        frame, use_list=True, max_bin_len=1 << 31, max_array_len=1 << 31
    )
    return envelope


def identity(slot: int, generation: int) -> bytes:
    """ZeroMQ identity of a worker."""
    return b"%d.%d" % (slot, generation)


def parse_identity(text: bytes) -> tuple[int, int]:
    """slot and generation."""
    slot, _, generation = text.partition(b".")
    return int(slot), int(generation)
