"""What is in work: messages in their lanes, lanes at their workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from mpmsgr.dispatch.lanes import Lanes, Poisoned, Worker
from mpmsgr.messenger.throttles import PER_MESSAGE, Throttles
from mpmsgr.pool.envelope import WELCOME
from mpmsgr.pool.ingress import Ingress
from mpmsgr.pool.introductions import Introductions
from mpmsgr.pool.io_memory import IoMemory
from mpmsgr.pool.items import (
    FULL,
    LATER,
    PARKED,
    Addressed,
    PoolLane,
    SessionLane,
    owner_of,
    placed_of,
    raw_of,
    urgency,
)
from mpmsgr.pool.seat import Seat
from mpmsgr.pool.switchboard import Switchboard
from mpmsgr.session.session import Session


class Work:
    """credit: messages a worker may hold at most; max_attempts: deaths of workers that a message
    may cause where its handler says nothing, 0 = any number; throttles: who is told what is in
    work; send(name, seat): a frame is due.

    seats: of the workers, by_name: the same by their ZeroMQ identity; count: of what is in work;
    ingress: the arena where part of it lies, if there is one.
    """

    def __init__(
        self,
        credit: int,
        max_attempts: int,
        memory: IoMemory | None,
        throttles: Throttles,
        send: Callable[[Seat], None],
    ) -> None:
        self.board = Switchboard()
        self.lanes: Lanes[Any] = Lanes(credit, urgency, self._attempts_of)
        self.seats: dict[Worker, Seat] = {}
        self.by_name: dict[bytes, Seat] = {}
        self.tell = Introductions(self.seats)
        self.ingress: Ingress | None = None
        self.count = 0
        self._throttles = throttles
        self._dispatch = throttles.dispatch
        self.idle = asyncio.Event()
        self.idle.set()
        self._memory = memory
        self.max_attempts = max_attempts
        self._send = send
        self._due: list[Seat] = []
        self._looks = False
        self._loop = asyncio.get_running_loop()

    @property
    def nbytes(self) -> int:
        """What is in work takes, and large messages that are about to be."""
        return self._dispatch.current

    def _attempts_of(self, item: Any) -> int:
        """How many workers *item* may kill."""
        handling = self.board.handling_of(item)
        own = None if handling is None else handling.max_attempts
        return self.max_attempts if own is None else own

    # messages come

    def route(self, lane: SessionLane, items: list[Any]) -> None:
        """Each of *items* to the lane that its handler asked for; all of a full session wait."""
        if self.board.is_plain:
            if lane.session.handled is not None:
                items = [item if raw_of(item) is None else Addressed(lane, item) for item in items]
            self.add(lane, items)
            return
        for item in items:
            own = None if lane.holds & FULL else self.board.own_lane(item)
            if own is None and (lane.session.handled is None or raw_of(item) is None):
                self.add(lane, [item])
            else:
                self.add(own or lane, [Addressed(lane, item)])
        for idle in self.board.idle_keys():
            self.remove(idle)

    def sort(self, lane: PoolLane) -> None:
        """What waits in the session's lane and belongs elsewhere goes there."""
        if isinstance(lane, SessionLane) and not self.board.is_plain:
            for item in self.lanes.take_queued(lane):
                self.forget(lane, [item])
                self.route(lane, [item.item if isinstance(item, Addressed) else item])

    def add(self, lane: PoolLane, items: list[Any]) -> None:
        """*items* are in work: at a worker, if one has room, or waiting."""
        if not items:
            return
        nbytes = sum(map(len, items))
        count = len(items)
        self._dispatch.current += nbytes + count * PER_MESSAGE
        if not self.count:
            self.idle.clear()
        self.count += count
        if self._throttles.of_types:
            self._tell_types(self._throttles.took, lane, items)
        lanes = self.lanes
        if lanes.someone_waits or (worker := lanes.place(lane)) is None:
            lanes.wait(lane, items)
            if not self._looks:
                self._looks = True
                self._loop.call_soon(self._look)
            return
        if count > 1 and count > (room := worker.room):
            lanes.wait(lane, items[room:])
            items = items[:room]
            nbytes = sum(map(len, items))
        self._hand_out(lane, items, nbytes)

    def _look(self) -> None:
        """Something waits for its turn: perhaps only behind what cannot have one now."""
        self._looks = False
        self.hand_out()

    # messages go to workers

    def hand_out(self) -> None:
        """What waits, as far as workers have room."""
        for lane, items in self.lanes.runnable():
            assert isinstance(lane, PoolLane)
            self._hand_out(lane, items, sum(map(len, items)))

    def _hand_out(self, lane: PoolLane, items: Sequence[Any], nbytes: int) -> None:
        self.lanes.hand_out(lane, items, nbytes)
        worker = lane.worker
        assert worker is not None
        seat = self.seats[worker]
        if not seat.dated:
            seat.dated = True
            seat.ages.given(lane.numbers[-len(items)], self._loop.time())
        if self.ingress is not None and self.ingress.slots:
            for item in items:
                placed = placed_of(item)
                if placed is not None:
                    self.ingress.lend(worker.slot, placed)
        if isinstance(lane, SessionLane):
            if lane.accept_waits:
                lane.accept_waits = False
                self.tell.renew(lane)  # its peer may have connected once more since
            intro = None if lane.known_to is worker else self.tell.session(lane, seat)
            seat.add((lane.id, intro, items))
            return
        for item in items:
            owner = owner_of(lane, item)
            intro = None if owner is None else self.tell.shared(lane, owner, seat)
            seat.add((0 if owner is None else owner.id, intro, [item], lane.id))
            if owner is not None and owner.id not in self.board.by_id:
                self.tell.forget(owner)  # its session ended while this waited

    def _is_due(self, seat: Seat) -> None:
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.append(seat)

    def _flush(self) -> None:
        """Once per loop turn: one frame for each worker that gets something."""
        due, self._due = self._due, []
        for seat in due:
            self._send(seat)
        if self.ingress is not None:
            self.ingress.collect()

    # messages wait

    def hold(self, lane: PoolLane, reason: int) -> None:
        """Hand out nothing of *lane* as long as there is a *reason* not to: FULL, LATER, PARKED."""
        lane.holds |= reason
        self.lanes.hold(lane)

    def let_go(self, lane: PoolLane, reason: int) -> None:
        """*reason* is over."""
        lane.holds &= ~reason
        if not lane.holds:
            self.lanes.release(lane)

    def give_back(self, lane: PoolLane) -> None:
        """The first message of *lane* is to run again; its worker dropped what is behind it, up to
        the mark that it gets now.
        """
        worker = lane.worker
        assert worker is not None
        self.lanes.give_back(lane)
        self.hold(lane, LATER)
        if isinstance(lane, SessionLane):
            self.seats[worker].add((lane.id, None, [None]))
        elif not lane.once:
            self.seats[worker].add((0, None, [None], lane.id))

    # messages are done

    def forget(self, lane: PoolLane, items: Sequence[Any], nbytes: int | None = None) -> None:
        """*items* of *lane*, *nbytes* together if that is known, are not in work any more."""
        count = len(items)
        if nbytes is None:
            nbytes = sum(map(len, items))
        self._dispatch.current -= nbytes + count * PER_MESSAGE
        self.count -= count
        if self._throttles.of_types:
            self._tell_types(self._throttles.gave_back, lane, items)
        if not self.count:
            self.idle.set()

    @staticmethod
    def _tell_types(
        tell: Callable[[Session, int, int], None], lane: PoolLane, items: Sequence[Any]
    ) -> None:
        for item in items:
            owner = owner_of(lane, item)
            if owner is not None:
                tell(owner.session, 1, len(item))

    def emptied(self, lane: PoolLane) -> None:
        """Nothing of *lane* is anywhere: what was left for that moment."""
        if isinstance(lane, SessionLane) and lane.farewell is not None:
            farewell, lane.farewell = lane.farewell, None
            self.add(lane, [farewell])
        elif lane.over:
            self.remove(lane)

    def remove(self, lane: PoolLane) -> None:
        """Nothing of *lane* is anywhere, and nothing will come."""
        self.lanes.remove(lane)
        self.board.remove(lane)
        self.tell.forget(lane)

    @property
    def slots_in_use(self) -> dict[str, int]:
        """Slots of shared memory that somebody refers to, by arena."""
        in_use = {}
        if self.ingress is not None:
            self.ingress.collect()
            in_use["ingress"] = self.ingress.slots
        for slot, memory in sorted(self._memory.slots.items() if self._memory else ()):
            memory.collect()
            in_use[f"worker {slot}"] = len(memory.occupied)
        return in_use

    # workers

    def ready(self, slot: int, generation: int, number: int) -> None:
        """A worker takes batches; its items are numbered from *number* + 1 on."""
        worker = self.lanes.ready(slot, generation)
        worker.number = number
        memory = self._memory.slots.get(slot) if self._memory is not None else None
        seat = self.seats[worker] = Seat(worker, memory, self._is_due)
        self.by_name[seat.name] = seat
        # Even without news: by the first frame the worker knows that it is known here.
        seat.tell(WELCOME, memory.occupied if memory is not None else [])

    def lost(self, worker: Worker, running: Collection[int]) -> tuple[Seat, list[Poisoned]]:
        """*worker* is gone, in the midst of the items numbered *running*: what it held is to be
        handed out again. Returns its seat, and what has killed too many workers.
        """
        lanes, poisoned = self.lanes.lost(worker.slot, worker.generation, running)
        if self.ingress is not None:
            self.ingress.worker_lost(worker.slot)
        seat = self.seats.pop(worker)
        del self.by_name[seat.name]
        for lane in lanes:
            assert isinstance(lane, PoolLane)
            lane.known_to = None
            if lane.holds & PARKED:
                self.let_go(lane, PARKED)
            if lane.is_empty and not any(lane is other for other, _ in poisoned):
                self.emptied(lane)
        return seat, poisoned
