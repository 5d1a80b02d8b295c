"""What workers are told of connections and lanes before they get messages of them."""

from __future__ import annotations

from collections.abc import Mapping

from mpmsgr.dispatch.lanes import Worker
from mpmsgr.pool.envelope import Intro
from mpmsgr.pool.items import PoolLane, SessionLane
from mpmsgr.pool.seat import Seat


class Introductions:
    """Tells the workers in *seats*."""

    def __init__(self, seats: Mapping[Worker, Seat]) -> None:
        self._seats = seats

    def session(self, lane: SessionLane, seat: Seat) -> Intro | None:
        """The worker of *seat* has the lane from now on: what its next record is to say."""
        before = lane.known_to
        if before is not None and before in self._seats:
            self._seats[before].add((lane.id, None, None))
        if lane.also_known_to is not None:
            lane.also_known_to.discard(seat.worker)
        intro = _intro(lane, seat)
        if not (lane.state or lane.homeless or before):
            lane.known_to = seat.worker
            return intro
        seat.add((lane.id, intro, []))
        self._lane(lane, lane.id, seat)
        return None

    def shared(self, lane: PoolLane, owner: SessionLane, seat: Seat) -> Intro | None:
        """The worker of *seat* gets a message of *owner* in another lane, *lane*."""
        if lane.known_to is not seat.worker and not lane.once:
            self._lane(lane, owner.id, seat)
        knows = owner.also_known_to
        if owner.known_to is seat.worker or (knows and seat.worker in knows):
            return None
        owner.also_known_to = {seat.worker, *(w for w in knows or () if w in self._seats)}
        return _intro(owner, seat)

    def _lane(self, lane: PoolLane, con_id: int, seat: Seat) -> None:
        before, lane.known_to = lane.known_to, seat.worker
        if before is not None and before in self._seats and not isinstance(lane, SessionLane):
            self._seats[before].add(("forget", lane.id))
        moved = lane.homeless or before is not None
        seat.add(("lane", lane.id, con_id, lane.state or None, moved))
        lane.homeless = False

    def renew(self, lane: SessionLane) -> None:
        """The facts of *lane* have changed: tell the worker that has them."""
        if lane.known_to is not None and lane.known_to in self._seats and not lane.over:
            seat = self._seats[lane.known_to]
            seat.add((lane.id, _intro(lane, seat), []))

    def forget(self, lane: PoolLane) -> None:
        """*lane* is no more: tell who knows it."""
        knows, lane.known_to = {lane.known_to}, None
        if isinstance(lane, SessionLane):
            knows |= lane.also_known_to or set()
            lane.also_known_to = None
        last = (lane.id, None, None) if isinstance(lane, SessionLane) else ("forget", lane.id)
        for worker in knows:
            if worker is not None and worker in self._seats:
                self._seats[worker].add(last)


def _intro(lane: SessionLane, seat: Seat) -> Intro:
    session = lane.session
    policy = session.policy
    return Intro(
        session.peer_type,
        str(session.peer_addr),
        str(session.handshake.own if session.handshake else ""),
        session.features,
        session.lossy,
        policy.outbox_full,
        policy.outbox_bytes,
        session.outbox.nbytes if session.full else 0,
        lane.worker is seat.worker,
    )
