"""Lanes: the messages of a session, handled one after the other, on one worker at a time.

A lane stays on its worker while it has messages there, so that order is kept by construction; it
may move when it is empty and another worker has much less to do, or when its worker is gone. A
worker that comes late takes over its share of lanes, one by one, while it has less to do than
theirs: few messages that take long would never make the others look overloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: A worker is overloaded when it has so many more messages than the least busy one, or all it may
#: hold.
_OVERLOAD = 16
#: A worker that has something to do, and completed nothing while others completed so much, may
#: hang: no lane moves there because it holds so little.
_STUCK_AFTER = 200


class Worker:
    """A worker as lanes see it: where it is, how much it may hold, how much it holds.

    progress: how much all workers together had completed when this one last got anywhere; wanted:
    lanes it is still to take over from others.
    """

    __slots__ = ("credit", "generation", "held", "lanes", "progress", "slot", "wanted")

    def __init__(self, slot: int, generation: int, credit: int) -> None:
        self.slot, self.generation, self.credit = slot, generation, credit
        self.held = self.progress = self.wanted = 0
        self.lanes: set[Lane[Any]] = set()


class Lane(Generic[T]):
    """Messages of one session.

    inflight: handed to `worker`, not completed, in order; waiting: not handed out yet; held:
    nothing is to be handed out now.
    """

    __slots__ = ("held", "inflight", "waiting", "worker")

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.held = False
        # Lists: an empty one takes 56 bytes, an empty deque 760, and most lanes are idle.
        self.inflight: list[T] = []
        self.waiting: list[T] = []


class Lanes(Generic[T]):
    """Which lane goes to which worker. Items of type T count one each against the credit."""

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self._completed = 0
        self._late: Worker | None = None  # the last one that came, while it wants lanes
        self._waiting: dict[Lane[T], None] = {}  # in the order they began to wait

    def ready(self, slot: int, generation: int, credit: int) -> Worker:
        """A worker has come up; it may hold *credit* messages."""
        lanes = sum(len(w.lanes) for w in self.workers.values())
        worker = self.workers[slot] = Worker(slot, generation, credit)
        worker.wanted = lanes // len(self.workers)
        self._late = worker if worker.wanted else self._late
        return worker

    def lost(self, slot: int, generation: int) -> list[tuple[Lane[T], list[T]]]:
        """A worker is gone: its lanes are free, with what each had in flight, in order."""
        worker = self.workers.get(slot)
        if worker is None or worker.generation != generation:
            return []
        del self.workers[slot]
        if worker is self._late:
            self._late = None
        held = []
        for lane in worker.lanes:
            lane.worker = None
            held.append((lane, lane.inflight))
            lane.inflight = []
        return held

    def place(self, lane: Lane[T]) -> Worker | None:
        """The worker that takes the lane's next message now, or None: it has to wait."""
        if lane.held:
            return None
        worker = lane.worker
        if worker is not None:
            if not lane.inflight and self._late is not None and self._take_over(lane, worker):
                return lane.worker
            if lane.inflight or not self._overloaded(worker):
                return worker if worker.held < worker.credit else None
        best = min(self.workers.values(), key=self._load, default=None)
        if best is None or best.held >= best.credit:
            return None
        self._move(lane, best)
        return best

    def _take_over(self, lane: Lane[T], worker: Worker) -> bool:
        """Does the worker that came late take *lane* from *worker*?"""
        late = self._late
        if late is None or late is worker or late.held > worker.held:
            return False
        if late.held >= late.credit or self._stuck(late):
            return False
        self._move(lane, late)
        late.wanted -= 1
        if not late.wanted:
            self._late = None
        return True

    def _overloaded(self, worker: Worker) -> bool:
        if len(self.workers) < 2:
            return False
        least = min(w.held for w in self.workers.values() if w is worker or not self._stuck(w))
        return worker.held >= min(2 * least + _OVERLOAD, worker.credit)

    def _stuck(self, worker: Worker) -> bool:
        return worker.held > 0 and self._completed - worker.progress > _STUCK_AFTER

    def _load(self, worker: Worker) -> tuple[bool, int, int]:
        return self._stuck(worker), worker.held, len(worker.lanes)

    def _move(self, lane: Lane[T], worker: Worker) -> None:
        if lane.worker is not None:
            lane.worker.lanes.discard(lane)
        lane.worker = worker
        worker.lanes.add(lane)

    def hand_out(self, lane: Lane[T], items: list[T]) -> None:
        """*items* go to the lane's worker."""
        worker = lane.worker
        assert worker is not None
        if not worker.held:
            worker.progress = self._completed
        worker.held += len(items)
        lane.inflight.extend(items)

    def completed(self, lane: Lane[T], count: int) -> list[T]:
        """The first *count* messages in flight are done; returns them."""
        worker = lane.worker
        assert worker is not None
        worker.held -= count
        self._completed += count
        worker.progress = self._completed
        done = lane.inflight[:count]
        del lane.inflight[:count]
        return done

    def wait(self, lane: Lane[T], items: Sequence[T]) -> None:
        """Keep *items* until a worker can take them."""
        lane.waiting.extend(items)
        self._waiting[lane] = None

    def runnable(self) -> Iterator[tuple[Lane[T], list[T]]]:
        """Waiting lanes that a worker can take now, each with what fits its credit."""
        for lane in list(self._waiting):
            worker = self.place(lane)
            if worker is None:
                continue
            count = min(worker.credit - worker.held, len(lane.waiting))
            items = lane.waiting[:count]
            del lane.waiting[:count]
            if not lane.waiting:
                del self._waiting[lane]
            yield lane, items

    def take_waiting(self, lane: Lane[T]) -> list[T]:
        """What waits in *lane*, which then has nothing to wait for."""
        self._waiting.pop(lane, None)
        waiting, lane.waiting = lane.waiting, []
        return waiting

    def remove(self, lane: Lane[T]) -> None:
        """The session is over and nothing of it is in flight."""
        self._waiting.pop(lane, None)
        if lane.worker is not None:
            lane.worker.held -= len(lane.inflight)
            lane.worker.lanes.discard(lane)
            lane.worker = None
        lane.inflight.clear()
        lane.waiting.clear()
