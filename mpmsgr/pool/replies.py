"""What workers send, on its way to the peers: replies, pushes, requests of handlers, groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from mpmsgr.dispatch.lanes import Worker
from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.groups import Groups
from mpmsgr.pool.envelope import ASKS, INGRESS, PUSHES
from mpmsgr.pool.ingress import Ingress
from mpmsgr.pool.items import PoolLane, SessionLane
from mpmsgr.pool.seat import Seat
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.v1.parcel import Parcel

#: So many replies to requests that nobody waits for any more are kept away, per connection.
_LATE = 1024


class Replies:
    """Queues for the sessions of *lanes* (by id) what workers send; *renew_intro*: tell the worker
    of a lane how full its outbox is.
    """

    def __init__(
        self,
        driver: Driver,
        ingress: Ingress | None,
        lanes: Mapping[int, PoolLane],
        renew_intro: Callable[[SessionLane], None],
    ) -> None:
        self.groups = Groups()
        self.pushes_dropped = 0
        self._driver = driver
        self._ingress = ingress
        self._lanes = lanes
        self._renew_intro = renew_intro
        self._asking: dict[Worker, set[SessionLane]] = {}
        self._seats: dict[Worker, Seat] = {}  # of those

    def send(self, lane: SessionLane, seat: Seat, out: list[Any], more: Any) -> None:
        """The parcels of a record, for the session of *lane*."""
        if len(out) == 2 and type(out[1]) is bytes:
            parcels = [Parcel.revive(out[0], out[1])]
        elif list in map(type, bodies := out[1::2]):
            parcels = [self._parcel(seat, out[i], out[i + 1]) for i in range(0, len(out), 2)]
        else:
            parcels = [*map(Parcel.revive, out[::2], bodies)]
        if more is not None and PUSHES in more:
            self._send_pushes(lane, seat.worker, parcels, more[PUSHES])
        elif not self._driver.endpoint.send(lane.session, parcels, self._driver.now()):
            self.pushes_dropped += len(parcels)

    def asked(self, lane: SessionLane, worker: Worker, more: Mapping[int, Any]) -> None:
        """Does the worker ask how full the outbox is?"""
        if more.get(ASKS) and lane.known_to is worker:
            self._renew_intro(lane)

    def _parcel(self, seat: Seat, head: bytes, body: Any) -> Parcel:
        """The parcel whose body has parts in an arena."""
        if type(body) is not list:
            return Parcel.revive(head, body)
        parcel = Parcel.revive(head, self._parts(seat, body))
        self._keeps(parcel, body)
        return parcel

    def _keeps(self, parcel: Parcel, body: Any) -> None:
        """What of *body* is in the ingress arena is to be there as long as *parcel*."""
        if self._ingress is None or type(body) is not list:
            return
        for part in body:
            if type(part) is list and part[0] == INGRESS:
                self._ingress.keeps(parcel)
                return

    def _parts(self, seat: Seat, body: list[Any]) -> list[Any]:
        return [self._view(seat, *part) if type(part) is list else part for part in body]

    def _view(self, seat: Seat, arena: int, offset: int, length: int, *slot: int) -> memoryview:
        if arena == INGRESS:
            assert self._ingress is not None
            return self._ingress.view(seat.worker.slot, offset, length)
        assert seat.memory is not None
        return seat.memory.view(offset, length, *slot)

    def _send_pushes(
        self, lane: SessionLane, worker: Worker, parcels: list[Parcel], pushes: list[int]
    ) -> None:
        """Send what came from *worker*, *pushes* (by index) only if the outbox is not full.

        But the worker that has the session keeps to the limit by itself: see `RemoteConnection`.
        """
        for i in pushes:
            parcels[i].push = True
        session, endpoint, now = lane.session, self._driver.endpoint, self._driver.now()
        limited = lane.known_to is not worker or session.policy.outbox_full == "drop_oldest"
        dropped = 0
        for parcel in parcels:
            if limited and parcel.push and not endpoint.admit(session, parcel.size):
                dropped += 1
            elif not endpoint.send(session, [parcel], now):
                self.pushes_dropped += 1
        endpoint.push_dropped(session, dropped)

    # acts

    def join(self, group: str, con_id: int) -> None:
        """The connection is a member from now on, if it is there."""
        lane = self._lanes.get(con_id)
        if isinstance(lane, SessionLane) and not lane.over:
            self.groups.join(group, lane.session)

    def leave(self, group: str, con_id: int) -> None:
        """And no more."""
        lane = self._lanes.get(con_id)
        if isinstance(lane, SessionLane):
            self.groups.leave(group, lane.session)

    def to_group(self, seat: Seat, group: str, head: bytes, body: Any) -> None:
        """A push to every member."""
        parts = self._parts(seat, body) if type(body) is list else body
        for parcel in self.groups.send(self._driver, group, head, parts):
            self._keeps(parcel, body)

    def request(self, seat: Seat, con_id: int, tid: int, head: bytes, body: Any) -> None:
        """A request of a handler: its reply goes to that worker."""
        lane = self._lanes.get(con_id)
        if not isinstance(lane, SessionLane) or lane.over:
            seat.answer([con_id, tid])
            return
        if lane.requests is None:
            lane.requests = {}
        lane.requests[tid] = seat.worker
        self._asking.setdefault(seat.worker, set()).add(lane)
        self._seats[seat.worker] = seat
        if len(lane.requests) > _LATE:
            del lane.requests[next(iter(lane.requests))]
        parcel = self._parcel(seat, head, body)
        self._driver.endpoint.send(lane.session, [parcel], self._driver.now())

    def forgo(self, worker: Worker, con_id: int, tid: int) -> None:
        """*worker* waits for that reply no more: it will be dropped."""
        lane = self._lanes.get(con_id)
        requests = lane.requests if isinstance(lane, SessionLane) else None
        if requests is not None and requests.get(tid) is worker:
            requests[tid] = None

    def push(
        self, seat: Seat, con_id: int, token: int, head: bytes | None = None, body: Any = None
    ) -> None:
        """A push whose sender is to know what becomes of it; without *head*, whether it could."""
        session = self._session(con_id)
        if session is None or head is None:
            seat.pushed([token, session is not None])
            return
        endpoint = self._driver.endpoint
        parcel = self._parcel(seat, head, body)
        parcel.push = True
        if endpoint.admit(session, parcel.size):
            seat.pushed([token, endpoint.send(session, [parcel], self._driver.now())])
        elif session.policy.outbox_full == "drop_oldest":
            endpoint.push_dropped(session, 1)
            seat.pushed([token, True])
        else:
            full = session.outbox.nbytes, session.policy.outbox_bytes
            seat.pushed([token, False, str(session.peer_addr), *full])

    def disposable(self, con_id: int) -> None:
        """The next fault of the connection is final."""
        session = self._session(con_id)
        if session is not None:
            self._driver.endpoint.mark_disposable(session)

    def keepalive(self, con_id: int) -> None:
        """Ask its peer for a sign of life."""
        session = self._session(con_id)
        if session is not None:
            self._driver.endpoint.send_keepalive(session, self._driver.now())

    def _session(self, con_id: int) -> Session | None:
        """The session of a connection that is not over."""
        lane = self._lanes.get(con_id)
        if not isinstance(lane, SessionLane) or lane.over:
            return None
        return None if lane.session.state is State.CLOSED else lane.session

    def unanswered(self, lane: SessionLane, kept: Collection[int] = ()) -> None:
        """The peer of *lane* will not answer the requests it got, but for *kept* tids, which it
        gets again.
        """
        for tid, worker in list((lane.requests or {}).items()):
            if tid not in kept:
                del lane.requests[tid]  # type: ignore[union-attr]
                seat = None if worker is None else self._seats.get(worker)
                if seat is not None:
                    seat.answer([lane.id, tid])
        if not lane.requests:
            for lanes in self._asking.values():
                lanes.discard(lane)

    def worker_lost(self, worker: Worker) -> None:
        """Nobody waits for the replies to the requests of *worker*: they will be dropped."""
        self._seats.pop(worker, None)
        for lane in self._asking.pop(worker, ()):
            requests = lane.requests or {}
            for tid, asker in requests.items():
                if asker is worker:
                    requests[tid] = None
