"""The pool's front in the I/O process: a sink that hands sessions' messages to workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.lanes import Lane, Lanes, Worker
from mpmsgr.dispatch.payload import error_reply, wants_error
from mpmsgr.messenger.driver import Driver
from mpmsgr.pool.envelope import (
    BATCH,
    BYE,
    DOWN,
    READY,
    EventItem,
    InItem,
    InRecord,
    Intro,
    OutRecord,
    identity,
    pack,
    parse_identity,
    unpack,
)
from mpmsgr.pool.link import Link
from mpmsgr.session.actions import Event, EventKind
from mpmsgr.session.session import Pause, Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.v1.parcel import Parcel, encode_parcel, raw_ids

log = logging.getLogger("mpmsgr.pool")


class SessionLane(Lane[InItem]):
    """The lane of one session.

    known_to: the worker that has its facts; over: it ended; held_bytes: while it is held, of the
    messages that wait in it.
    """

    __slots__ = ("held_bytes", "known_to", "over", "session")

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.held_bytes = 0
        self.known_to: Worker | None = None
        self.over = False


class PoolFront:
    """Sink of the I/O process's messenger.

    incarnation: of this I/O process; credit: messages a worker may hold; dispatch_bytes: messages
    held here and in workers, above which sessions that bring more are not read.
    """

    def __init__(
        self, endpoint: str, incarnation: int, *, credit: int, dispatch_bytes: int
    ) -> None:
        self._incarnation = incarnation
        self._credit = credit
        self._limit = dispatch_bytes
        self._lanes: Lanes[InItem] = Lanes()
        self._newest: dict[int, int] = {}  # by slot: the generation that came last, or died last
        self._by_id: dict[int, SessionLane] = {}
        self._batches: dict[Worker, list[InRecord]] = {}
        self._bytes = self._items = 0
        self._paused: set[Session] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()
        self._link = Link.router(endpoint, self._received)
        self._driver: Driver
        self.pushes_dropped = 0

    def attach(self, driver: Driver) -> None:
        """Replies leave through *driver*."""
        self._driver = driver

    # sink

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """See `Sink`."""
        lane = session.connection or self._new_lane(session)
        self._add(lane, raws)  # type: ignore[arg-type]
        if lane.held:
            self._hold(lane, raws)
        elif self._bytes > self._limit:
            self._paused.add(session)
            self._driver.pause_reading(session, Pause.DISPATCH)

    def full(self, session: Session, full: bool) -> None:
        """See `Sink`."""
        lane: SessionLane | None = session.connection
        if lane is None or lane.held == session.full:  # by now
            return
        lane.held = session.full
        self._renew_intro(lane)
        if lane.held:
            self._paused.discard(session)
            self._driver.resume_reading(session, Pause.DISPATCH)
            self._hold(lane, lane.waiting)
        else:
            self._hold_no_more(lane)
        self._pump()

    def _hold(self, lane: SessionLane, items: Sequence[InItem]) -> None:
        """*items* wait for the acks that empty a full session's outbox.

        It is read on, since those acks are behind its requests; and what waits has a limit of its
        own, so that one peer that reads no replies does not stop all the others.
        """
        size = sum(map(len, items))
        lane.held_bytes += size
        self._bytes -= size
        session = lane.session
        if lane.held_bytes > session.held_limit:
            self._driver.endpoint.overrun(session, self._driver.now())

    def _hold_no_more(self, lane: SessionLane) -> None:
        self._bytes += lane.held_bytes
        lane.held_bytes = 0

    def event(self, event: Event) -> None:
        """See `Sink`."""
        session = event.session
        lane: SessionLane = session.connection or self._new_lane(session)
        if event.kind is EventKind.ACCEPT:
            self._renew_intro(lane)
        if event.kind is EventKind.RESET:
            lane.over = True
            self._paused.discard(session)
        if event.kind is EventKind.REMOTE_RESET or (lane.over and session.lossy):
            self._discard(lane)  # discard_queue of the spec (§8, §10)
        self._add(lane, [EventItem(event.kind.value, event.lost)])

    def _discard(self, lane: SessionLane) -> None:
        """Forget messages of an ended session that no worker has; events stay."""
        self._hold_no_more(lane)
        waiting = self._lanes.take_waiting(lane)
        events = [item for item in waiting if isinstance(item, EventItem)]
        self._forget([item for item in waiting if not isinstance(item, EventItem)])
        if events:
            self._lanes.wait(lane, events)

    async def drain(self) -> None:
        """See `Sink`."""
        await self._idle.wait()

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    # handing out

    def _new_lane(self, session: Session) -> SessionLane:
        lane = session.connection = SessionLane(session)
        self._by_id[session.id] = lane
        return lane

    def _add(self, lane: SessionLane, items: list[InItem]) -> None:
        self._bytes += sum(map(len, items))
        self._items += len(items)
        if self._idle.is_set():
            self._idle.clear()
        if lane.waiting or self._lanes.place(lane) is None:
            self._lanes.wait(lane, items)
        else:
            self._hand_out(lane, items)

    def _hand_out(self, lane: SessionLane, items: list[InItem]) -> None:
        self._lanes.hand_out(lane, items)
        worker = lane.worker
        assert worker is not None
        intro = None if lane.known_to is worker else self._introduce(lane, worker)
        self._batch(worker).append((lane.session.id, intro, items))

    def _batch(self, worker: Worker) -> list[InRecord]:
        if not self._batches:
            self._loop.call_soon(self._flush)
        batch = self._batches.get(worker)
        if batch is None:
            batch = self._batches[worker] = []
        return batch

    def _introduce(self, lane: SessionLane, worker: Worker) -> Intro:
        before, lane.known_to = lane.known_to, worker
        session = lane.session
        if before is not None and self._lanes.workers.get(before.slot) is before:
            self._batch(before).append((session.id, None, None))
        return self._intro(session)

    def _renew_intro(self, lane: SessionLane) -> None:
        """The facts of *lane* have changed: tell the worker that has them."""
        if lane.known_to is not None and not lane.over:
            self._batch(lane.known_to).append((lane.session.id, self._intro(lane.session), []))

    @staticmethod
    def _intro(session: Session) -> Intro:
        own = session.handshake.own if session.handshake else ""
        policy = session.policy
        return Intro(
            session.peer_type,
            str(session.peer_addr),
            str(own),
            session.features,
            session.lossy,
            policy.outbox_full,
            policy.outbox_bytes,
            session.outbox.nbytes if session.full else 0,
        )

    def _flush(self) -> None:
        """Once per loop turn: one frame for each worker that gets something."""
        batches, self._batches = self._batches, {}
        for worker, records in batches.items():
            # A worker that cannot be reached is dead: `worker_lost` deals with what it held.
            name = identity(worker.slot, worker.generation)
            self._link.send_to(name, pack((self._incarnation, records)))

    # what workers say

    def _received(self, parts: list[bytes]) -> None:
        slot, generation = parse_identity(parts[0])
        incarnation, said_generation, kind, payload = unpack(parts[1])
        if incarnation != self._incarnation or said_generation != generation:
            return
        if kind == READY:
            self._ready(slot, generation)
            return
        worker = self._lanes.workers.get(slot)
        if worker is None or worker.generation != generation:
            return  # declared dead before this arrived
        if kind == BATCH:
            self._completed(worker, payload)
        elif kind == DOWN:
            self._mark_down(payload)
        elif kind == BYE:
            self.worker_lost(slot, generation, "it said goodbye")

    def _ready(self, slot: int, generation: int) -> None:
        """A worker takes batches. Its death may be known here before this arrives, or that of the
        one before it not yet: the supervisor tells on another channel.
        """
        if generation <= self._newest.get(slot, 0):
            return
        before = self._lanes.workers.get(slot)
        if before is not None:
            self.worker_lost(slot, before.generation, "another one took its place")
        log.debug("worker %d, generation %d: ready", slot, generation)
        self._newest[slot] = generation
        worker = self._lanes.ready(slot, generation, self._credit)
        self._batch(worker)  # even an empty one: by it the worker knows that it is known here
        self._pump()

    def _completed(self, worker: Worker, records: list[OutRecord]) -> None:
        endpoint, now = self._driver.endpoint, self._driver.now()
        revive = Parcel.revive
        more: list[Any]  # the rest, where there are pushes
        for con_id, count, out, *more in records:
            lane = self._by_id.get(con_id)
            if lane is None:
                self.pushes_dropped += len(out) // 2
                continue
            if count:
                done = self._lanes.completed(lane, count)
                self._forget(done)
                if lane.over and not lane.inflight and not lane.waiting:
                    self._remove(lane)
            if more:
                self._send_pushes(lane, worker, out, *more)
            elif out:
                parcels = list(map(revive, out[::2], out[1::2]))
                if not endpoint.send(lane.session, parcels, now):
                    self.pushes_dropped += len(parcels)
        self._driver.run()
        self._pump()

    def _send_pushes(
        self, lane: SessionLane, worker: Worker, out: list[Any], pushes: list[int], asks: bool
    ) -> None:
        """Send what came from *worker*, *pushes* (by index) only if the outbox is not full.

        But the worker that has the session keeps to the limit by itself: see `RemoteConnection`.
        """
        parcels = [Parcel.revive(out[i], out[i + 1]) for i in range(0, len(out), 2)]
        for i in pushes:
            parcels[i].push = True
        session, endpoint, now = lane.session, self._driver.endpoint, self._driver.now()
        knows = lane.known_to is worker
        limited = not knows or session.policy.outbox_full == "drop_oldest"
        dropped = 0
        for parcel in parcels:
            if limited and parcel.push and not endpoint.admit(session, parcel.size):
                dropped += 1
            elif not endpoint.send(session, [parcel], now):
                self.pushes_dropped += 1
        endpoint.push_dropped(session, dropped)
        if asks and knows:
            self._renew_intro(lane)

    def _mark_down(self, ids: list[int]) -> None:
        for con_id in ids:
            lane = self._by_id.get(con_id)
            if lane is not None:
                lane.over = True
                self._driver.endpoint.mark_down(lane.session)
                self._driver.run()  # what came before may still be delivered
                self._paused.discard(lane.session)
                if not lane.inflight and not lane.waiting:
                    self._remove(lane)

    def _forget(self, items: list[Any]) -> None:
        self._bytes -= sum(map(len, items))
        self._items -= len(items)
        if not self._items:
            self._idle.set()

    def _remove(self, lane: SessionLane) -> None:
        self._lanes.remove(lane)
        self._by_id.pop(lane.session.id, None)
        if lane.known_to is not None:
            self._batch(lane.known_to).append((lane.session.id, None, None))

    def _pump(self) -> None:
        """Hand out what waited, read again who had to wait."""
        for lane, items in self._lanes.runnable():
            self._hand_out(lane, items)  # type: ignore[arg-type]
        if self._paused and self._bytes <= self._limit // 2:
            paused, self._paused = self._paused, set()
            for session in paused:
                self._driver.resume_reading(session, Pause.DISPATCH)

    # a worker's end

    def worker_lost(self, slot: int, generation: int, cause: str) -> None:
        """Worker *slot* is gone: its requests get error replies, its lanes go to others."""
        endpoint, now = self._driver.endpoint, self._driver.now()
        self._newest[slot] = max(generation, self._newest.get(slot, 0))
        text = f"worker {slot} was lost: {cause}"
        for lane, items in self._lanes.lost(slot, generation):
            assert isinstance(lane, SessionLane)
            replies = [self._refusal(item, text) for item in items]
            endpoint.send(lane.session, [r for r in replies if r is not None], now)
            self._forget(items)
            lane.known_to = None
            if lane.over and not lane.waiting:
                self._remove(lane)
        self._driver.run()
        self._pump()

    def _refusal(self, item: InItem, text: str) -> Parcel | None:
        if isinstance(item, EventItem):
            return None
        _seq, tid, type_, priority = raw_ids(item)
        if not wants_error(type_, tid):
            return None
        reply = error_reply(tid, priority, ErrorCode.WORKER_LOST, text)
        return encode_parcel(reply, self._driver.endpoint.name)
