"""What lanes of the pool hold: messages and events, in the forms they take in the I/O process.

bytes        a raw message that travels in the frame
Placed       a raw message in the ingress arena (ingress.py)
EventItem    an event (envelope.py)
Timed        one of the first two, whose way is timed (stages.py)
Addressed    one of these, in a lane that several connections share
Again        one of these, that is handed out again (dispatch/attempts.py)
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.attempts import Again
from mpmsgr.dispatch.lanes import Lane
from mpmsgr.pool.envelope import EventItem
from mpmsgr.pool.ingress import Placed
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import PRIO_HIGHEST
from mpmsgr.wire.v1.parcel import raw_ids

if TYPE_CHECKING:
    from mpmsgr.dispatch.lanes import Worker
    from mpmsgr.pool.fast import FastConnection

#: Why a lane is held: its session's outbox is full; a message is to be run again later; its worker
#: has more of it than the handler that waits there.
FULL, LATER, PARKED = 1, 2, 4


class PoolLane(Lane[Any]):
    """A lane of the pool. state: what is committed, b"" = nothing; known_to: the worker that was
    told of it (it may be gone); holds: FULL, LATER, PARKED, several or 0; once: it is that of one
    message; over: nothing more will come.
    """

    __slots__ = ("holds", "known_to", "over", "state")

    once = False

    def __init__(self, id_: int) -> None:
        super().__init__(id_)
        self.state = b""
        self.known_to: Worker | None = None
        self.holds = 0
        self.over = self.once


class SessionLane(PoolLane):
    """The lane of one session, and what is known of its connection.

    also_known_to: workers that were told of the connection without having its lane; fast: what fast
    dispatchers got as the connection; accept_waits: the event that says that its peer connected
    waits, and nothing was handed out since; farewell: the one that says that it is over, while
    messages wait; held_count, held_bytes: while its session is full, of what waits in it; requests:
    tid and worker of handlers' requests; None: nobody waits for that reply any more.
    """

    __slots__ = (
        "accept_waits",
        "also_known_to",
        "farewell",
        "fast",
        "held_bytes",
        "held_count",
        "requests",
        "session",
    )

    def __init__(self, session: Session) -> None:
        super().__init__(session.id)
        self.session = session
        self.urgent = session.policy.urgent
        self.also_known_to: set[Worker] | None = None
        self.held_count = self.held_bytes = 0
        self.accept_waits = False
        self.farewell: EventItem | None = None
        self.fast: FastConnection | None = None
        self.requests: dict[int, Worker | None] | None = None

    @property
    def is_unheard_of(self) -> bool:
        """Does nothing wait but the event that its peer connected, and no worker knows of it?"""
        told = self.known_to or self.also_known_to or self.homeless or self.inflight
        return not told and self.accept_waits and self.waiting_count == 1

    @property
    def is_awaited(self) -> bool:
        """Does a handler wait for a reply of its peer, with not too much waiting already?"""
        awaited = self.requests and any(self.requests.values())
        return bool(awaited) and self.waiting_bytes <= self.session.held_limit


class KeyLane(PoolLane):
    """The lane of a key."""


class OnceLane(PoolLane):
    """The lane of one message without an order."""

    once = True


class Timed:
    """*item*, which came at *came* and left for its worker at *left*, CLOCK_MONOTONIC in ns."""

    __slots__ = ("came", "item", "left")

    def __init__(self, item: bytes | Placed, came: int) -> None:
        self.item, self.came, self.left = item, came, 0

    def __len__(self) -> int:
        return len(self.item)


class Addressed:
    """*item* of the session of *lane*, in whatever lane it is.

    prefix: where it counts as handled, for a session whose acks wait for that.
    """

    __slots__ = ("item", "lane", "prefix")

    def __init__(self, lane: SessionLane, item: bytes | Placed | Timed) -> None:
        self.lane, self.item = lane, item
        self.prefix = lane.session.handled

    def __len__(self) -> int:
        return len(self.item)


def owner_of(lane: Lane[Any], item: Any) -> SessionLane | None:
    """Whose message *item* of *lane* is; None: nobody's."""
    addressed = item.item if isinstance(item, Again) else item
    if isinstance(addressed, Addressed):
        return addressed.lane
    return lane if isinstance(lane, SessionLane) else None


def superseded(waiting: list[Any], reset: EventItem) -> tuple[list[Any], list[Any], EventItem]:
    """What stays of *waiting* when the peer began anew; what does not; and *reset*, which says so.

    Messages go. So does an event of that kind which was never begun, and what followed on it: one
    reset says as much as many.
    """
    events = [item for item in waiting if raw_of(item) is None]
    kinds = [item.kind if isinstance(item, EventItem) else "" for item in events]
    at = kinds.index(reset.kind) if reset.kind in kinds else len(events)
    gone = events[at:]
    lost = (tid for item in gone if isinstance(item, EventItem) for tid in item.lost)
    messages = [item for item in waiting if raw_of(item) is not None]
    return events[:at], messages + gone, EventItem(reset.kind, (*lost, *reset.lost))


def attempt_of(item: Any) -> int:
    """How often *item* was begun."""
    return item.attempt if isinstance(item, Again) else 1


def raw_of(item: Any) -> Bytes | None:
    """The raw message in *item*; None: it is an event."""
    if type(item) is bytes:
        return item
    if isinstance(item, Again | Addressed | Timed):
        return raw_of(item.item)
    if isinstance(item, Placed):
        return item.view
    return None


def placed_of(item: Any) -> Placed | None:
    """What of *item* is in the arena."""
    if isinstance(item, Again | Addressed | Timed):
        return placed_of(item.item)
    return item if isinstance(item, Placed) else None


def timed_of(item: Any) -> Timed | None:
    """What of *item* is timed: nothing of one that had begun before."""
    inner = item.item if isinstance(item, Addressed) else item
    return inner if isinstance(inner, Timed) else None


def urgency(item: Any) -> tuple[int, int]:
    """Priority and cost of an item that has to wait (dispatch spec §4.1)."""
    raw = raw_of(item)
    return (PRIO_HIGHEST, 0) if raw is None else (raw_ids(raw)[3], len(raw))


def as_wire(item: Any) -> Any:
    """What the envelope says of *item*, where msgpack cannot hold it as it is: it leaves now."""
    if isinstance(item, Placed):
        return [item.offset, len(item)]
    if isinstance(item, Addressed):
        inner = item.item  # msgpack asks once per value: not again for what it gets here
        return inner if isinstance(inner, bytes) else as_wire(inner)
    if isinstance(item, Again):
        return [item.attempt, _bare(item.item), 0]
    if isinstance(item, Timed):
        item.left = monotonic_ns()
        return [1, item.item, 1]
    raise TypeError(f"{item!r} does not travel")


def _bare(item: Any) -> Any:
    """The message or event in *item*, which is not Again."""
    while isinstance(item, Addressed | Timed):
        item = item.item
    return item
