"""The I/O process as the model of the pool has it: `Lanes`, sessions, seats; no I/O, no time."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count
from typing import Any

import msgpack

from mpmsgr.dispatch.attempts import Again
from mpmsgr.dispatch.lanes import Lanes, Worker
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.wire.message import PRIO_HIGHEST
from tests.property.lanes_worker import Item, ModelLane, ModelWorker, Report

#: Urgent messages that a worker takes beyond its credit.
EXTRA = 4


class ModelSession:
    """Messages of a peer: *prefix* is what it is told of them; all of them are in *items*."""

    def __init__(self) -> None:
        self.prefix = HandledPrefix()
        self.items: list[Item] = []

    def handled(self, item: Item) -> None:
        """*item* is handled, or never will be: never is more acknowledged than that."""
        self.prefix.handled(item.seq)
        in_work = [one.seq for one in self.items if one.fate is None]
        assert self.prefix.prefix == (in_work[0] - 1 if in_work else len(self.items))


class Seat:
    """A worker, and the recall that is going on: its epoch, whether BEGUN was looked at."""

    def __init__(self, model: ModelWorker) -> None:
        self.model = model
        self.epoch = 0
        self.settled = False


class ModelFront:
    """Lanes of *sessions* over workers that hold *credit* messages at most."""

    def __init__(self, credit: int, sessions: int) -> None:
        self.lanes: Lanes[Item] = Lanes(
            credit, lambda item: (item.priority, len(item)), lambda item: item.limit
        )
        self.sessions = [ModelSession() for _ in range(sessions)]
        self.seats: dict[Worker, Seat] = {}
        self.items: list[Item] = []
        self._epochs = count(1)

    # arrivals

    def message(self, lane: ModelLane, session: int, priority: int, size: int, limit: int) -> Item:
        """The next message of *session*, for *lane*."""
        of = self.sessions[session]
        item = Item(len(self.items), lane, session, len(of.items) + 1, priority, size, limit)
        of.items.append(item)
        of.prefix.arrived(item.seq)
        self.items.append(item)
        lane.arrivals.append(item)
        return item

    def deliver(self, lane: ModelLane, items: list[Item]) -> None:
        """*items* were read at once."""
        if self.lanes.someone_waits or (worker := self.lanes.place(lane)) is None:
            self.lanes.wait(lane, items)
        else:
            room = worker.room
            self.lanes.wait(lane, items[room:])
            self._hand_out(lane, items[:room])
        self.pump()

    def pump(self) -> None:
        """Hand out what waits, as far as it goes."""
        for lane, items in self.lanes.runnable():
            assert isinstance(lane, ModelLane)
            self._hand_out(lane, items)

    def _hand_out(self, lane: ModelLane, items: list[Any]) -> None:
        worker = lane.worker
        assert worker is not None
        assert not lane.held
        assert not worker.retiring
        extra = EXTRA if len(items) == 1 and is_urgent(items[0]) else 0
        assert 0 < len(items) <= worker.room + extra, "above its credit"
        assert worker.reserved in (None, lane)
        self.lanes.hand_out(lane, items, sum(map(len, items)))
        inbox = self.seats[worker].model.inbox
        if lane.known_to is not worker:
            self._tell(lane.known_to, "forget", lane)
            lane.known_to = worker
            inbox.append(("lane", lane, lane.state))
        for item in items:
            inbox.append(("item", lane, (attempt_of(item), plain(item))))

    def _tell(self, worker: Worker | None, *record: Any) -> None:
        if worker in self.seats:
            self.seats[worker].model.inbox.append(record)

    # what workers say

    def hear(self, seat: Seat, busy_us: float) -> None:
        """The next frame of a worker."""
        what, *said = seat.model.frames.popleft()
        if what == "batch":
            self._batch(seat, said[0], busy_us)
            self._go_on(seat.model.record, said[1])
        elif said[0] == seat.epoch:
            seat.epoch = 0
            self.lanes.resume(seat.model.record, said[1])
        self.pump()

    def _batch(self, seat: Seat, reports: dict[ModelLane, Report], busy_us: float) -> None:
        completed = nbytes = 0
        for lane, report in reports.items():
            assert lane.worker is seat.model.record
            done, size = self.lanes.completed(lane, report.completed)
            completed += len(done)
            nbytes += size
            for item in map(plain, done):
                self._handled(item, seat.model)
            lane.applied += report.applied
            lane.state = report.state or lane.state
            assert applied_in(lane.state) == lane.applied, "applied twice, or never"
            if report.retry:
                self._retry(lane)
        self.lanes.measured(seat.model.record, completed, nbytes, busy_us)

    def _go_on(self, record: Worker, waiting: list[Item]) -> None:
        """*waiting* merely wait, says the worker: if a suspect is among them, it is none now."""
        lane = record.reserved
        self.lanes.going_on(record, len(waiting), sum(map(len, waiting)))
        if lane is not None and record.reserved is None:
            item = plain(lane.inflight[0])
            assert item in waiting
            item.suspect = False

    def _handled(self, item: Item, by: ModelWorker) -> None:
        assert item.done_at is by
        assert not item.lane.before(item)
        self.end(item, "handled")

    def end(self, item: Item, fate: str) -> None:
        """Nothing more will be done with *item*."""
        assert item.fate is None
        item.fate = fate
        item.done_at, item.suspect = None, False
        self.sessions[item.session].handled(item)

    def _retry(self, lane: ModelLane) -> None:
        item = plain(lane.inflight[0])
        assert item.again_at is not None
        item.again_at, item.suspect = None, False
        item.attempt += 1
        worker = lane.worker
        self.lanes.give_back(lane)
        self.hold(lane, "later")
        self._tell(worker, "anew", lane)

    # holding

    def hold(self, lane: ModelLane, reason: str) -> None:
        """Nothing of *lane* is handed out for *reason*."""
        lane.holds.add(reason)
        self.lanes.hold(lane)

    def release(self, lane: ModelLane) -> None:
        """One reason less."""
        lane.holds.pop()
        if not lane.holds:
            self.lanes.release(lane)
        self.pump()

    # recalls: see mpmsgr/pool/recalls.py

    def recall(self, seat: Seat) -> None:
        """Ask for what is not begun."""
        seat.epoch = seat.model.recall = next(self._epochs)
        seat.settled = False
        self.lanes.recall(seat.model.record)
        seat.model.inbox.append(("recalled", seat.epoch))

    def settle(self, seat: Seat) -> None:
        """Look how far it got."""
        seat.settled = True
        self.lanes.take_back(seat.model.record, seat.model.begun)
        self.pump()

    # the end of workers and lanes

    def retire(self, seat: Seat) -> None:
        """A worker is to get nothing new."""
        self.lanes.retire(seat.model.record.slot)
        self.pump()

    def lost(self, seat: Seat) -> None:
        """It is known that a worker is gone."""
        model, record = seat.model, seat.model.record
        del self.seats[record]
        running = [run.item for run in model.running]
        suspects = any(item.suspect for item in running)
        for item in running:
            item.runs_at = None
            item.attempt += 1
            item.deaths += len(running) == 1 or item.suspect
            item.suspect = len(running) > 1 and (item.suspect or not suspects)
        for item in self.items:
            item.done_at = None if item.done_at is model else item.done_at
            item.again_at = None if item.again_at is model else item.again_at
        lanes, poisoned = self.lanes.lost(record.slot, record.generation, model.page)
        assert all(lane.worker is None for lane in lanes)
        condemned = [plain(again) for _, again in poisoned]
        assert condemned == [item for item in running if 0 < item.limit <= item.deaths]
        for item in condemned:
            self.end(item, "poisoned")
        self.pump()

    def discard(self, lane: ModelLane, kept: Collection[int], *, begun: bool) -> None:
        """What waits in *lane* is void, but *kept* of it (0: the first); *begun*: even what has."""
        waiting = self.lanes.take_waiting(lane) if begun else self.lanes.take_queued(lane)
        events: list[Item] = []
        for i, item in enumerate(waiting):
            if i in kept and not isinstance(item, Again):
                events.append(item)
            else:
                self.end(plain(item), "discarded")
        self.lanes.wait(lane, events)
        self.pump()

    def remove(self, lane: ModelLane) -> None:
        """*lane* is no more."""
        self.lanes.remove(lane)
        self._tell(lane.known_to, "forget", lane)


def is_urgent(item: Item | Again[Item]) -> bool:
    """Does it pass the others, and the credit?"""
    return isinstance(item, Item) and (item.lane.urgent or item.priority >= PRIO_HIGHEST)


def plain(item: Item | Again[Item]) -> Item:
    """The message itself."""
    return item.item if isinstance(item, Again) else item


def attempt_of(item: Item | Again[Item]) -> int:
    """Which attempt its handler is told."""
    return item.attempt if isinstance(item, Again) else 1


def applied_in(state: bytes) -> list[int]:
    """The names of the messages that were applied to a state."""
    return list(msgpack.unpackb(state)["applied"]) if state else []
