"""What travels on the link: one ZeroMQ frame, one msgpack array, a batch of what was ready.

I/O process -> worker
    [incarnation, [record, ...], more]
    record = [connection id, intro or nil, items or nil]
             [connection id, intro or nil, items, lane id]   of another lane than the connection's
             ["lane", lane id, connection id, state or nil, moved]   the worker has this lane now
             ["forget", lane id]                                     and now no more
        intro   facts of a connection that this worker does not know yet (`Intro`)
        items   in order: messages, as raw bytes (wire/v1/parcel.py) or [offset, length] of the raw
                message in the ingress arena; events (`EventItem`); [attempt, item, timed] of one
                that had begun before, or is timed (1, else 0: are TIMES wanted?);
                nil: begin anew with the lane, what came before it is void.
                nil for all of them: forget the connection, another worker has it now
    more   = nil, or a map
        WELCOME   [[offset, length], ...] of the worker's arena that are still in use
        FREED     [offset, ...] of its arena that are not in use any more
        ANSWERS   [[connection id, raw], ...] replies to requests of handlers; [connection id, tid]
                  where there will be none
        PUSHED    [[token, there and queued], ...] of "push"; if its outbox is full also the peer's
                  address, bytes in the outbox, their limit
        RECALLED  epoch: what came up to the end of this frame and is not begun is void

worker -> I/O process
    [incarnation, generation, kind, payload]
    READY     payload = {ROUTES: {type: handling}, EVERY: [[name, seconds], ...], NUMBER: that of
                         the last item it had, from an earlier I/O process}
    BATCH     payload = [[record, ...], busy time in us, items that wait (waiting.py), their bytes]
              payload = [..., how many have failed since the last batch], if any has
        record = [lane or connection id, items completed, out]
                 [lane or connection id, items completed, out, {...}]
            out   head, body, head, body ... of parcels; a body is bytes, or an array of its parts:
                  bytes, or [INGRESS, offset, length],
                  or [EGRESS, offset, length, offset and length of the slot]
            PUSHES    which of them (0, 1 ...) nobody waits for
            ASKS      an intro is wanted, for what it says of the outbox
            STATE     the lane's state, committed with the last completion
            RETRY     after so many seconds the next item is to be run again
            POISON    [[index among the completed, reason], ...] for quarantine
            TIMES     [[index among the completed, begun, completed], ...] CLOCK_MONOTONIC, ns
            PARK      1: hand out nothing more of the lane, until it is 0
        or, in order with these,
                 ["join", group, connection id]  ["leave", group, connection id]
                 ["group", group, head, body]    ["request", connection id, tid, head, body]
                 ["forgo", connection id, tid]   nobody waits for that reply any more
                 ["push", connection id, token, head, body]      with an answer (PUSHED)
                 ["push", connection id, token]                  only the answer: is it there?
                 ["down", connection id]         mark_down
                 ["disposable", connection id]   mark_disposable
                 ["keepalive", connection id]    send_keepalive
                 ["ended", [offset, ...]]        views of the ingress arena that are gone
    STOPPED   payload = [epoch, number]: nothing from item *number* on was run before RECALLED
    BYE       payload = nil                 nothing more will come

Either side
    [position, length]: the array is in the ring of its direction (ring.py)

incarnation counts I/O processes, generation the workers of a slot; what names another one than the
reader knows is stale and dropped. The worker's ZeroMQ identity is ``slot.generation``. Items have
numbers, counted by both sides in the order they were sent (page.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from mpmsgr.wire.crc import Bytes

READY, BATCH, STOPPED, BYE = range(4)
ROUTES, EVERY, NUMBER = "routes", "every", "number"
WELCOME, FREED, RECALLED = "welcome", "freed", "recalled"
ANSWERS, PUSHED = "answers", "pushed"
PUSHES, ASKS, STATE, RETRY, POISON, TIMES, PARK = range(7)
INGRESS, EGRESS = range(2)

#: Batches longer than this travel in the ring.
RING_ABOVE = 4096


class EventItem(NamedTuple):
    """An event of a connection: its kind (`EventKind.value`), the tids dropped with it."""

    kind: str
    lost: tuple[int, ...] = ()


class Intro(NamedTuple):
    """Facts of a connection. Addresses in text form.

    outbox_full, outbox_bytes: of its policy; full_with: bytes in its outbox while it is full, or 0;
    owner: is the session's lane at this worker?
    """

    peer_type: int
    peer_addr: str
    my_addr: str
    features: int
    lossy: bool
    outbox_full: str
    outbox_bytes: int
    full_with: int
    owner: bool = True


def pack(envelope: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """One frame; *default*: what stands for values that msgpack cannot hold."""
    packed: bytes = msgpack.packb(envelope, default=default)
    return packed


def unpack(frame: Bytes) -> list[Any]:
    """The array of one frame."""
    envelope: list[Any] = msgpack.unpackb(
        frame, use_list=True, strict_map_key=False, max_bin_len=1 << 31, max_array_len=1 << 31
    )
    return envelope


def identity(slot: int, generation: int) -> bytes:
    """ZeroMQ identity of a worker."""
    return b"%d.%d" % (slot, generation)


def parse_identity(text: bytes) -> tuple[int, int]:
    """slot and generation."""
    slot, _, generation = text.partition(b".")
    return int(slot), int(generation)
