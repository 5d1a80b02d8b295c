"""The pool's front in the I/O process: a sink that hands sessions' messages to workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from mpmsgr.dispatch.attempts import Again
from mpmsgr.dispatch.handling import Handling
from mpmsgr.dispatch.lanes import Worker
from mpmsgr.dispatch.routes import Routes
from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.groups import Groups
from mpmsgr.messenger.sink import HEAP, Sink
from mpmsgr.messenger.throttles import CLAIMS_ABOVE, Throttles
from mpmsgr.messenger.ticker import Ticker
from mpmsgr.pool.casualties import Casualties
from mpmsgr.pool.envelope import (
    BATCH,
    BYE,
    EVERY,
    NUMBER,
    PARK,
    POISON,
    READY,
    RETRY,
    ROUTES,
    STATE,
    STOPPED,
    TIMES,
    EventItem,
    parse_identity,
    unpack,
)
from mpmsgr.pool.held import Held
from mpmsgr.pool.ingress import Ingress
from mpmsgr.pool.io_memory import IoMemory
from mpmsgr.pool.items import (
    FULL,
    LATER,
    PARKED,
    Addressed,
    PoolLane,
    SessionLane,
    placed_of,
    raw_of,
    superseded,
)
from mpmsgr.pool.link import Link
from mpmsgr.pool.quarantine import Quarantine
from mpmsgr.pool.recalls import Recalls
from mpmsgr.pool.replies import Replies
from mpmsgr.pool.retiring import Retiring
from mpmsgr.pool.seat import Seat
from mpmsgr.pool.tally import Tally
from mpmsgr.pool.upkeep import Upkeep
from mpmsgr.pool.work import Work
from mpmsgr.session.actions import Event, EventKind
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.v1.parcel import raw_ids

log = logging.getLogger("mpmsgr.pool")


class PoolFront(Sink):
    """Sink of the I/O process's messenger.

    incarnation: of this I/O process; credit: messages a worker may hold at most; dispatch_bytes:
    of messages here and in workers, above which sessions that bring more are not read; memory:
    what is shared with workers, None: everything travels in frames; max_attempts: deaths of workers
    that a message may cause, 0 = any number; quarantine: where it goes then; lease_max_age_s,
    recycle: see `Upkeep`; retired: see `Retiring`; on_broken: called in the handling of an error of
    our own, and is to end the process: nobody knows what is in work any more, and sessions that are
    lost say so.

    tally: what workers have done; upkeep: what is looked after once a second.
    """

    def __init__(
        self,
        endpoint: str,
        incarnation: int,
        *,
        credit: int,
        dispatch_bytes: int,
        memory: IoMemory | None = None,
        max_attempts: int = 3,
        quarantine: Quarantine | None = None,
        on_broken: Callable[[], None] = lambda: None,
        lease_max_age_s: float = 300.0,
        recycle: Callable[[int, int, str], None] = lambda slot, generation, why: None,
        retired: Callable[[int, int], None] = lambda slot, generation: None,
    ) -> None:
        self.claims_above = max(memory.threshold, 1) if memory is not None else CLAIMS_ABOVE
        self.throttles = Throttles(dispatch_bytes, self._place)
        self._incarnation = incarnation
        self._memory = memory
        self._quarantine = quarantine or Quarantine(None)
        self._on_broken = on_broken
        self._work = Work(credit, max_attempts, memory, self.throttles, self._send)
        self._lanes = self._work.lanes
        self._by_id = self._work.board.by_id
        self._later: dict[PoolLane, asyncio.TimerHandle] = {}  # until a message is run again
        self._newest: dict[int, int] = {}  # by slot: the generation that came last, or died last
        self._loop = asyncio.get_running_loop()
        self.tally = Tally(self._loop.time())
        self._link = Link.router(endpoint, self._received)
        self._recalls = Recalls(self._lanes, self._work.seats, self._pump)
        self._retiring = Retiring(self._lanes, retired)
        self.upkeep = Upkeep(self._lanes, self._work.seats, lease_max_age_s, recycle)
        self._ticker = Ticker(self._tick)
        self._driver: Driver
        self._held: Held
        self._replies: Replies
        self._casualties: Casualties

    def attach(self, driver: Driver) -> None:
        """Replies leave through *driver*."""
        self._driver = driver
        self.throttles.attach(driver)
        if self._memory is not None:
            self._work.ingress = Ingress(self._memory.ingress, driver.grant, driver.now)
            self.upkeep.begin(self._work.ingress, driver)
        self._held = Held(driver, self.throttles)
        self._replies = Replies(driver, self._work.ingress, self._by_id, self._work.tell.renew)
        self._casualties = Casualties(self._quarantine, driver)

    @property
    def pushes_dropped(self) -> int:
        """Pushes to connections that were gone."""
        return self._replies.pushes_dropped

    @property
    def work(self) -> Work:
        """What is in work."""
        return self._work

    @property
    def recalled(self) -> int:
        """How often a worker was asked to give back what it had not begun."""
        return self._recalls.count

    @property
    def quarantined(self) -> int:
        """Messages that went to quarantine."""
        return self._quarantine.count

    @property
    def groups(self) -> Groups:
        """Of connections."""
        return self._replies.groups

    def lane_of(self, session: Session) -> SessionLane:
        """The lane of *session*."""
        return session.connection or self._work.board.new_session(session)

    # sink

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """See `Sink`."""
        lane: SessionLane = session.connection or self._work.board.new_session(session)
        items: list[Any] = raws
        if memoryview in map(type, raws):
            items = [raw if type(raw) is bytes else self._settled(raw) for raw in raws]
        if lane.requests:
            items = self._without_answers(lane, items)
        if self.tally.stages.due:
            items = self.tally.stages.pick(items)
        self._work.route(lane, items)
        throttles = self.throttles
        if lane.holds & FULL:
            self._held.add(lane, len(items), sum(map(len, items)))
        elif throttles.dispatch.current > throttles.quick and not lane.is_awaited:
            throttles.came(session)

    def _settled(self, raw: Bytes) -> Any:
        """*raw* in the arena where it landed, or as bytes."""
        ingress = self._work.ingress
        placed = ingress.taken(raw) if ingress is not None and type(raw) is memoryview else None
        return placed or bytes(raw)

    def full(self, session: Session, full: bool) -> None:
        """See `Sink`."""
        lane: SessionLane | None = session.connection
        if lane is None or bool(lane.holds & FULL) == session.full:  # by now
            return
        if session.full:
            self._work.hold(lane, FULL)
            self._work.tell.renew(lane)
            self._read_on(session)
            self._held.add(lane, lane.waiting_count, lane.waiting_bytes)
        else:
            self._work.let_go(lane, FULL)
            self._work.tell.renew(lane)
            self._held.release(lane)
            self._work.sort(lane)
        self._pump()

    def event(self, event: Event) -> None:
        """See `Sink`."""
        session = event.session
        lane: SessionLane = session.connection or self._work.board.new_session(session)
        if event.kind is EventKind.ACCEPT:
            if lane.accept_waits:
                return  # one says as much as many
            if not lane.waits:  # else when it is handed out
                self._work.tell.renew(lane)
        if event.kind is EventKind.RESET:
            self._over(lane)
        elif event.kind is EventKind.REMOTE_RESET:
            self._replies.unanswered(lane, event.kept)
        item = EventItem(event.kind.value, event.lost)
        if event.kind is EventKind.REMOTE_RESET or (lane.over and session.lossy):
            item = self._discard(lane, item)  # discard_queue of the spec (§8, §10)
        if event.kind is EventKind.RESET and lane.is_unheard_of:
            self._work.forget(lane, self._lanes.take_waiting(lane))
            self._work.remove(lane)
        elif event.kind is EventKind.RESET and lane.waits:
            lane.farewell = item  # not before what came before it, however urgent events are
        else:
            self._work.add(lane, [item])
            lane.accept_waits = lane.waits and event.kind is EventKind.ACCEPT

    def _over(self, lane: SessionLane) -> None:
        lane.over = True
        self.throttles.let_through(lane.session)
        self._replies.groups.ended(lane.session)
        self._replies.unanswered(lane)

    def _discard(self, lane: SessionLane, item: EventItem) -> EventItem:
        """Forget what is moot of what no worker has, now that *item* ends it; see `superseded`."""
        self._held.release(lane)
        stays, goes, item = superseded(self._lanes.take_waiting(lane), item)
        self._work.forget(lane, goes)
        if stays:
            self._lanes.wait(lane, stays)
        if lane in self._later:  # for nothing, now
            self._later.pop(lane).cancel()
            self._work.let_go(lane, LATER)
        return item

    def place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        """See `Sink`."""
        awaited = self._is_awaited(pipe)
        if awaited or self.throttles.claim(pipe, size, lead):
            return self._room(pipe, size, lead, awaited)
        return None

    @staticmethod
    def _is_awaited(pipe: Pipe) -> bool:
        """Are acks or a reply behind what *pipe* brings, for which others wait that take the room?

        Or it is that reply.
        """
        lane: SessionLane | None = pipe.session.connection if pipe.session is not None else None
        return lane is not None and bool(lane.holds & FULL or lane.is_awaited)

    def _place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        """A place for a message that has waited for the throttles."""
        return self._room(pipe, size, lead, self._is_awaited(pipe))

    def _room(self, pipe: Pipe, size: int, lead: int, awaited: bool) -> memoryview | None:
        ingress = self._work.ingress
        if ingress is None:
            return HEAP
        urgent = pipe.session is not None and pipe.session.policy.urgent
        return ingress.place(pipe, size, lead, at_once=urgent or awaited)

    def unplace(self, pipe: Pipe) -> None:
        """See `Sink`."""
        self.throttles.unclaim(pipe)
        if self._work.ingress is not None:
            self._work.ingress.unplace(pipe)

    async def drain(self) -> None:
        """See `Sink`."""
        self._ticker.close()
        await self._work.idle.wait()

    def close(self) -> None:
        """Close the link."""
        self._ticker.close()
        self._recalls.close()
        self.throttles.close()
        for timer in self._later.values():
            timer.cancel()
        self.upkeep.close()
        self._link.close()
        self._quarantine.close()
        in_use = ", ".join(f"{arena}: {n}" for arena, n in self._work.slots_in_use.items())
        log.debug("slots of arenas in use at the end: %s", in_use or "no arenas")

    # handing out

    def _send(self, seat: Seat) -> None:
        try:
            frame = seat.take(self._incarnation)
        except Exception:
            self._on_broken()
            raise
        # A worker that cannot be reached is dead: `worker_lost` deals with what it held.
        self._link.send_to(seat.name, frame)
        self._recalls.look()  # it may hold more now than it gets done

    def _pump(self) -> None:
        """Hand out what waited, read again who had to wait."""
        self._work.hand_out()
        self._recalls.look()
        self._retiring.look()
        if self.throttles.waits:
            self.throttles.look()

    def _tick(self, name: str) -> None:
        """Have some worker call the function with @every, unless the last call is not over."""
        lane = self._work.board.key_lane(("@every", name.encode()))
        if lane.is_empty and self._lanes.workers:
            self._work.add(lane, [EventItem(name)])

    def _without_answers(self, lane: SessionLane, items: list[Any]) -> list[Any]:
        """*items* but replies to requests of handlers, which go to them, past all lanes."""
        assert lane.requests is not None
        rest = []
        for item in items:
            raw = raw_of(item)
            assert raw is not None
            tid = raw_ids(raw)[1]
            if tid not in lane.requests:
                rest.append(item)
                continue
            worker = lane.requests.pop(tid)
            if worker is not None and worker in self._work.seats:
                self._work.seats[worker].answer([lane.id, bytes(raw)])
            self._acknowledge(Addressed(lane, item))
        return rest

    # what workers say

    def _received(self, parts: list[bytes]) -> None:
        seat = self._work.by_name.get(parts[0])
        if seat is None:
            self._stranger(*parse_identity(parts[0]), parts[1])
            return
        slot, generation = seat.worker.slot, seat.worker.generation
        incarnation, said_generation, kind, payload = seat.ringed.unpack(parts[1])
        if incarnation != self._incarnation or said_generation != generation:
            return
        try:
            if kind == BATCH:
                self._batch(seat, *payload)
            elif kind == STOPPED:
                self._recalls.stopped(seat, *payload)
            elif kind == BYE:
                self.worker_lost(slot, generation, "it said goodbye")
        except Exception:
            self._on_broken()
            raise

    def _stranger(self, slot: int, generation: int, frame: bytes) -> None:
        """A worker takes batches. Its death may be known here before this arrives, or that of the
        one before it not yet: the supervisor tells on another channel.
        """
        said = unpack(frame)
        known = [self._incarnation, generation, READY]
        if said[:3] != known or generation <= self._newest.get(slot, 0):
            return
        before = self._lanes.workers.get(slot)
        if before is not None:
            self.worker_lost(slot, before.generation, "another one took its place")
        log.debug("worker %d, generation %d: ready", slot, generation)
        self._newest[slot] = generation
        facts = said[3] or {}
        self._work.ready(slot, generation, facts.get(NUMBER, 0))
        self._learn(facts)
        self._pump()

    def _learn(self, facts: dict[str, Any]) -> None:
        """What the modules of a worker that is ready ask for."""
        board = self._work.board
        first, handlings = board.routes is None, facts.get(ROUTES, {}).items()
        board.learn(Routes({type_: Handling.from_wire(h) for type_, h in handlings}))
        self._ticker.set(dict(facts.get(EVERY, ())))
        if first:  # what came before it was known which lane it belongs to
            for lane in list(self._by_id.values()):
                self._work.sort(lane)

    def _batch(
        self,
        seat: Seat,
        records: list[Any],
        busy_us: int,
        waiting: int = 0,
        waiting_bytes: int = 0,
        failed: int = 0,
    ) -> None:
        worker = seat.worker
        count = nbytes = 0
        for record in records:
            if type(record[0]) is str:
                self._act(seat, record)
                continue
            lane = self._by_id.get(record[0])
            completed, out = record[1], record[2]
            if lane is None:
                self._replies.pushes_dropped += len(out) // 2
                continue
            more = record[3] if len(record) > 3 else None
            if completed or more:
                nbytes += self._completed(lane, worker, completed, more)
                count += completed
            if isinstance(lane, SessionLane):
                if out:
                    self._replies.send(lane, seat, out, more)
                if more:
                    self._replies.asked(lane, worker, more)
        self._lanes.measured(worker, count, nbytes, busy_us)
        self._lanes.going_on(worker, waiting, waiting_bytes)
        self._driver.run()
        self.tally.frame(seat, count, busy_us, failed, self._loop.time())
        self._pump()

    def _completed(
        self, lane: PoolLane, worker: Worker, count: int, more: dict[int, Any] | None
    ) -> int:
        """*count* items of *lane* are done, and what the record says beside that; their bytes."""
        nbytes = 0
        if count:
            done, nbytes = self._lanes.completed(lane, count)
            if more is not None and POISON in more:
                self._casualties.poison(lane, done, more[POISON])
            if more is not None and TIMES in more:
                self.tally.stages.completed(done, more[TIMES])
            ingress = self._work.ingress
            if type(done[0]) is not bytes or (ingress is not None and ingress.slots):
                self._handled(worker, done)
            self._work.forget(lane, done, nbytes)
        if more is not None:
            lane.state = more.get(STATE, lane.state)
            if PARK in more:
                (self._work.hold if more[PARK] else self._work.let_go)(lane, PARKED)
            if RETRY in more:
                self._work.give_back(lane)
                self._later[lane] = self._loop.call_later(more[RETRY], self._again, lane)
        if lane.over and lane.is_empty:
            self._work.emptied(lane)
        return nbytes

    def _again(self, lane: PoolLane) -> None:
        del self._later[lane]
        self._work.let_go(lane, LATER)
        self._pump()

    def _handled(self, worker: Worker, done: list[Any]) -> None:
        """The messages among *done* are handled: acks and leases follow."""
        ingress = self._work.ingress
        if ingress is not None and ingress.slots:
            for item in done:
                placed = placed_of(item)
                if placed is not None:
                    ingress.handled(worker.slot, placed)
        if type(done[0]) is not bytes:
            for item in done:
                self._acknowledge(item)

    def _acknowledge(self, item: Any) -> None:
        """*item* is handled: tell a session whose acks wait for that."""
        addressed = item.item if isinstance(item, Again) else item
        if isinstance(addressed, Addressed) and addressed.prefix is not None:
            raw = raw_of(addressed)
            assert raw is not None
            endpoint, session = self._driver.endpoint, addressed.lane.session
            now, prefix = self._driver.now(), addressed.prefix
            endpoint.handled(session, [raw_ids(raw)[0]], now, prefix=prefix)

    def _act(self, seat: Seat, record: list[Any]) -> None:
        match record:
            case ["ended", offsets]:
                if self._work.ingress is not None:
                    self._work.ingress.ended(seat.worker.slot, offsets)
            case ["down", con_id]:
                self.mark_down(con_id)
            case ["join", group, con_id]:
                self._replies.join(group, con_id)
            case ["leave", group, con_id]:
                self._replies.leave(group, con_id)
            case ["group", group, head, body]:
                self._replies.to_group(seat, group, head, body)
            case ["push", con_id, token, *parcel]:
                self._replies.push(seat, con_id, token, *parcel)
            case ["disposable", con_id]:
                self._replies.disposable(con_id)
            case ["keepalive", con_id]:
                self._replies.keepalive(con_id)
            case ["request", con_id, tid, head, body]:
                self._replies.request(seat, con_id, tid, head, body)
                lane = self._by_id.get(con_id)
                if isinstance(lane, SessionLane) and lane.is_awaited:
                    self._read_on(lane.session)
            case ["forgo", con_id, tid]:
                self._replies.forgo(seat.worker, con_id, tid)

    def _read_on(self, session: Session) -> None:
        """*session* waits for no room, now that acks or a reply may be behind what it brings."""
        self.throttles.let_through(session)
        if self._work.ingress is not None:
            self._work.ingress.let_through(session)

    def mark_down(self, con_id: int) -> None:
        """End the session, without an event; not in the midst of what it delivers."""
        lane = self._by_id.get(con_id)
        if isinstance(lane, SessionLane):
            self._over(lane)
            self._driver.endpoint.mark_down(lane.session)
            self._driver.run()  # what came before may still be delivered
            if lane.is_empty:
                self._work.remove(lane)

    # a worker's end

    def retire(self, slot: int, generation: int) -> None:
        """The worker gets nothing new; what it has goes on, then `retired` is called: at once, if
        it holds nothing or is not known.
        """
        self._retiring.add(slot, generation)
        self._pump()

    def holds_nothing(self, slot: int, generation: int) -> bool:
        """Is nothing in work at the worker, or it gone?"""
        return self._retiring.holds_nothing(slot, generation)

    def worker_lost(
        self,
        slot: int,
        generation: int,
        cause: str,
        running: Collection[int] = (),
        signal: int = 0,
    ) -> None:
        """Worker *slot* is gone, in the midst of the items numbered *running*: what it held is
        handed out again, what has killed too many workers goes to quarantine.
        """
        self._newest[slot] = max(generation, self._newest.get(slot, 0))
        worker = self._lanes.workers.get(slot)
        if worker is None or worker.generation != generation:
            return
        held = worker.held
        seat, poisoned = self._work.lost(worker, running)
        self.tally.redelivered += held - len(poisoned)
        self._recalls.lost(seat)
        self._replies.worker_lost(worker)
        for lane, again in poisoned:
            assert isinstance(lane, PoolLane)
            self._casualties.condemn(lane, again, f"worker {slot} was lost: {cause}", signal)
            self._handled(worker, [again])
            self._work.forget(lane, [again])
            if lane.is_empty:
                self._work.emptied(lane)
        self._driver.run()
        self._pump()
