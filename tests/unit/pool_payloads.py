"""Large payloads, and clients that do not take theirs."""

from __future__ import annotations

from random import Random
from typing import Any

from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.wire.v1.parcel import Parcel
from tests.unit.pool_under_test import Pool

MIB = 1 << 20
#: More than one read of a socket brings, so that it lands where it belongs.
LARGE = 600_000


def payload(size: int, seed: int = 0) -> bytes:
    """Bytes of which no part repeats."""
    return Random(seed).randbytes(size)


class Deaf:
    """Makes a client read nothing, so that what it was sent stays unacknowledged."""

    def __init__(self, *cons: MessengerConnection) -> None:
        self.cons = cons

    def __enter__(self) -> None:
        for con in self.cons:
            handle: Any = con.session.pipe.handle  # type: ignore[union-attr]
            handle.pause_reading()

    def __exit__(self, *exc: object) -> None:
        for con in self.cons:
            handle: Any = con.session.pipe.handle  # type: ignore[union-attr]
            handle.resume_reading()


def unacknowledged(p: Pool, con: MessengerConnection | None = None) -> list[Parcel]:
    """What was sent or is to be sent to the client of *con*."""
    box = p.lane(con).session.outbox
    return [*box.sent, *(parcel for queue in box._queues.values() for parcel in queue)]


def large_parts(parcels: list[Parcel]) -> list[Any]:
    """Of what was sent: what is too long to travel in a frame."""
    return [part for parcel in parcels for part in parcel.body if len(part) > 60_000]
