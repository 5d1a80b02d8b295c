"""Lanes: messages handled one after the other, on one worker at a time.

A lane is that of a session, of a key, or of one message without order. It stays on its worker while
it has messages there, so that order is kept by construction; it may move when it is empty and
another worker has much less to do, or when its worker is gone. A worker that comes late takes over
its share of lanes, one by one, while it has less to do than theirs: few messages that take long
would never make the others look overloaded.

Each worker takes a few more messages of the highest priority and of urgent lanes than its credit
allows: they do not wait until it gets somewhere with all the others that it holds.

What a worker holds has a *number* each, counted by both sides in the order it was handed out. By it
a dead worker's counters page names the message that it was running, and a living one's, how far it
got: what it has not begun can be taken back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence, Sized
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from mpmsgr.dispatch.attempts import Again, charged, suspected
from mpmsgr.dispatch.credit import Credit
from mpmsgr.dispatch.queue import DispatchQueue
from mpmsgr.wire.message import PRIO_HIGHEST

T = TypeVar("T", bound=Sized)

#: A worker is overloaded when it has so many more messages than the least busy one, or when what it
#: holds will take so much longer, or when it holds all it may.
_OVERLOAD, _OVERLOAD_US = 16, 1000.0
#: A worker that has something to do, and completed nothing while others completed so much, may
#: hang: no lane moves there because it holds so little.
_STUCK_AFTER = 200
#: Messages that leave the queue in one turn of a lane.
_RUN = 16
#: Urgent messages that a worker takes beyond its credit; it gets them one by one.
EXTRA = 4
#: Rank of what waits in an urgent lane: above every u16 priority.
_URGENT = 1 << 16
#: Room of a worker that takes nothing at all.
_CLOSED = -(1 << 30)


class Worker:
    """A worker as lanes see it: where it is, how much it may hold, how much it holds.

    number: of the last item it was given; progress: how much all workers together had completed
    when this one last got anywhere; wanted: lanes it is still to take over from others; retiring:
    it gets nothing new; recalled: what it has not begun is being taken back, it gets nothing
    meanwhile; asked: `number` when that was done last; reserved: the lane whose first message is
    to run here alone; waiting, waiting_bytes: of messages that take no turn from others:
    asynchronous ones that go on, and what is behind them in their lanes.
    """

    __slots__ = (
        "asked",
        "credit",
        "generation",
        "held",
        "held_bytes",
        "lanes",
        "number",
        "progress",
        "recalled",
        "reserved",
        "retiring",
        "slot",
        "waiting",
        "waiting_bytes",
        "wanted",
    )

    def __init__(self, slot: int, generation: int, credit: Credit) -> None:
        self.slot, self.generation, self.credit = slot, generation, credit
        self.held = self.held_bytes = self.number = self.progress = self.wanted = 0
        self.asked = self.waiting = self.waiting_bytes = 0
        self.lanes: set[Lane[Any]] = set()
        self.retiring = self.recalled = False
        self.reserved: Lane[Any] | None = None

    @property
    def room(self) -> int:
        """Messages it may take now; not above 0: none, but for urgent ones."""
        if self.retiring or self.recalled:
            return _CLOSED
        credit = self.credit
        room = credit.messages - self.held
        if self.waiting:
            room += min(self.waiting, credit.most)
        full = self.held_bytes - self.waiting_bytes >= credit.nbytes
        return min(room, 0) if full and self.held > self.waiting else room

    @property
    def busy_with(self) -> int:
        """What it holds and does not merely wait for."""
        return self.held - self.waiting


class Lane(Generic[T]):
    """Messages handled one after the other. id: unique, orders lanes among each other.

    inflight: handed to `worker`, not completed, in order, numbers: their numbers; redo: to be
    handed out again, before what waits; queued, queued_bytes: what waits in the queue; urgent: it
    waits before all others; held: nothing is to be handed out now; homeless: it was on a worker
    before, and is on none now.
    """

    __slots__ = (
        "held",
        "homeless",
        "id",
        "inflight",
        "numbers",
        "queued",
        "queued_bytes",
        "redo",
        "urgent",
        "worker",
    )

    def __init__(self, id_: int) -> None:
        self.id = id_
        self.worker: Worker | None = None
        self.held = self.homeless = self.urgent = False
        # Lists: an empty one takes 56 bytes, an empty deque 760, and most lanes are idle.
        self.inflight: list[T | Again[T]] = []
        self.numbers: list[int] = []
        self.redo: list[T | Again[T]] | None = None
        self.queued = self.queued_bytes = 0

    @property
    def waiting_count(self) -> int:
        """How much is not handed out."""
        return self.queued + len(self.redo or ())

    @property
    def waiting_bytes(self) -> int:
        """Of what is not handed out."""
        return self.queued_bytes + sum(map(len, self.redo or ()))

    @property
    def waits(self) -> bool:
        """Is anything of it not handed out?"""
        return bool(self.queued or self.redo)

    @property
    def is_empty(self) -> bool:
        """Is there nothing of it anywhere?"""
        return not (self.inflight or self.queued or self.redo)


class Poisoned(NamedTuple):
    """A message that its workers did not survive: it is not handed out again."""

    lane: Lane[Any]
    item: Again[Any]


class Lanes(Generic[T]):
    """Which lane goes to which worker.

    credit: messages a worker may hold at most; urgency: priority and cost of an item that has to
    wait (dispatch spec §4.1); max_attempts: deaths that an item may cause, 0 = any number.
    """

    def __init__(
        self,
        credit: int,
        urgency: Callable[[T], tuple[int, int]],
        max_attempts: Callable[[T], int],
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self._credit = credit
        self._urgency = urgency
        self._max_attempts = max_attempts
        self._completed = 0
        self._late: Worker | None = None  # the last one that came, while it wants lanes
        self._redo: dict[Lane[T], None] = {}  # lanes with something to be handed out again
        self._queue: DispatchQueue[int, T] = DispatchQueue()
        self._queued: dict[int, Lane[T]] = {}  # by id: lanes with something in the queue

    # workers

    def ready(self, slot: int, generation: int) -> Worker:
        """A worker has come up."""
        lanes = sum(len(w.lanes) for w in self.workers.values())
        worker = self.workers[slot] = Worker(slot, generation, Credit(self._credit))
        worker.wanted = lanes // len(self.workers)
        self._late = worker if worker.wanted else self._late
        return worker

    def lost(
        self, slot: int, generation: int, running: Collection[int] = ()
    ) -> tuple[list[Lane[T]], list[Poisoned]]:
        """A worker is gone that was running the items numbered *running*.

        What it held is to be handed out again, in order and before all else of each lane. If it
        ran one item, that one is charged with the death, or the one of several that was under
        suspicion; else they share the suspicion, and are each handed out alone. Returns its lanes,
        and what has been charged too often.
        """
        worker = self.workers.get(slot)
        if worker is None or worker.generation != generation:
            return [], []
        del self.workers[slot]
        if worker is self._late:
            self._late = None
        lanes = sorted(worker.lanes, key=_id)
        ran = {lane: at for lane in lanes if (at := _first(lane.numbers, running)) is not None}
        one = len(running) == 1
        suspect = any(_is_alone(lane.inflight[at]) for lane, at in ran.items())
        poisoned = []
        for lane in lanes:
            lane.worker, lane.homeless = None, True
            items = list(lane.inflight)
            at = ran.get(lane)
            if at is not None:
                items[at] = again = self._blamed(items[at], alone=one, suspect=suspect)
                if 0 < self._max_attempts(again.item) <= again.deaths:
                    poisoned.append(Poisoned(lane, again))
                    del items[at]
            self._take_back(lane, items, 0)
        return lanes, poisoned

    @staticmethod
    def _blamed(item: T | Again[T], *, alone: bool, suspect: bool) -> Again[T]:
        """*item*, which ran in a worker that died. alone: nothing else ran there; suspect: some of
        what did was under suspicion already.
        """
        if alone:
            return charged(item)
        if not suspect:
            return suspected(item)
        again = charged(item, death=_is_alone(item))
        again.alone = _is_alone(item)
        return again

    def retire(self, slot: int) -> Worker | None:
        """The worker in *slot* gets nothing new; its lanes leave it when they are empty."""
        worker = self.workers.get(slot)
        if worker is not None:
            worker.retiring = True
            if worker is self._late:
                self._late = None
        return worker

    def measured(self, worker: Worker, count: int, nbytes: int, busy_us: float) -> None:
        """*worker* took *busy_us* microseconds for *count* items of *nbytes* together."""
        worker.credit.measured(count, nbytes, busy_us)

    def going_on(self, worker: Worker, waiting: int, nbytes: int) -> None:
        """*waiting* messages, of *nbytes* together, are asynchronous ones that go on at *worker*,
        or behind one: it has time for others meanwhile, as many as it may hold at the most.

        A suspect that got as far as that has been alone for long enough, and is one no more.
        """
        worker.waiting, worker.waiting_bytes = waiting, nbytes
        lane = worker.reserved
        if lane is not None and lane.inflight and worker.busy_with <= 0:
            worker.reserved = None
            item = lane.inflight[0]
            if isinstance(item, Again):
                item.alone = False

    # where a lane goes

    def place(self, lane: Lane[T], room: int = 1) -> Worker | None:
        """The worker with *room* for the next messages of *lane*, or None: they have to wait."""
        if lane.held:
            return None
        worker = lane.worker
        if worker is not None:
            if not lane.inflight and self._late is not None and self._take_over(lane, worker, room):
                return lane.worker
            takes = self._takes(worker, lane, room)
            if lane.inflight:
                return worker if takes else None
            if takes and worker.reserved is None and not self._overloaded(worker):
                return worker
        best = self._best(lane, room)
        if best is not None:
            self._move(lane, best)
        return best

    def _takes(self, worker: Worker, lane: Lane[T], room: int) -> bool:
        return worker.room >= room and worker.reserved in (None, lane)

    def _best(self, lane: Lane[T], room: int) -> Worker | None:
        """The worker with the least to do, if it has *room* for *lane*."""
        able = [w for w in self.workers.values() if self._takes(w, lane, room)]
        return min(able, key=self._load, default=None)

    def _take_over(self, lane: Lane[T], worker: Worker, room: int) -> bool:
        """Does the worker that came late take *lane* from *worker*?"""
        late = self._late
        if late is None or late is worker or late.busy_with > worker.busy_with:
            return False
        if not self._takes(late, lane, room) or self._stuck(late):
            return False
        self._move(lane, late)
        late.wanted -= 1
        if not late.wanted:
            self._late = None
        return True

    def _overloaded(self, worker: Worker) -> bool:
        """Has it much more to do than another one?"""
        busy_with = worker.busy_with
        if busy_with <= 0 or len(self.workers) < 2:
            return False
        others = [w for w in self.workers.values() if w is worker or not self._stuck(w)]
        least = min(w.busy_with for w in others)
        ahead_us = (busy_with - least) * worker.credit.us_per_message
        return busy_with >= 2 * least + _OVERLOAD or ahead_us > _OVERLOAD_US

    def _stuck(self, worker: Worker) -> bool:
        return worker.busy_with > 0 and self._completed - worker.progress > _STUCK_AFTER

    def _load(self, worker: Worker) -> tuple[bool, int, int]:
        return self._stuck(worker), worker.busy_with, len(worker.lanes)

    def _move(self, lane: Lane[T], worker: Worker) -> None:
        if lane.worker is not None:
            lane.worker.lanes.discard(lane)
        lane.worker = worker
        worker.lanes.add(lane)

    # handing out

    def hand_out(self, lane: Lane[T], items: Sequence[T | Again[T]], nbytes: int) -> None:
        """*items*, of *nbytes* together, go to the lane's worker."""
        worker = lane.worker
        assert worker is not None
        if worker.held <= worker.waiting:
            worker.progress = self._completed
        count = len(items)
        worker.held += count
        worker.held_bytes += nbytes
        lane.inflight += items
        number = worker.number + 1
        worker.number += count
        if count == 1:  # as often: a range costs as much as all of the rest
            lane.numbers.append(number)
        else:
            lane.numbers += range(number, number + count)

    def completed(self, lane: Lane[T], count: int) -> tuple[list[T | Again[T]], int]:
        """The first *count* messages in flight are done; returns them and their bytes."""
        worker = lane.worker
        assert worker is not None
        if count == len(lane.inflight):
            done, lane.inflight, lane.numbers = lane.inflight, [], []
        else:
            done = lane.inflight[:count]
            del lane.inflight[:count]
            del lane.numbers[:count]
        nbytes = sum(map(len, done))
        worker.held -= count
        worker.held_bytes -= nbytes
        self._completed += count
        worker.progress = self._completed
        if worker.reserved is lane:
            worker.reserved = None
        return done, nbytes

    def wait(self, lane: Lane[T], items: Sequence[T]) -> None:
        """Keep *items* until a worker can take them."""
        for item in items:
            priority, cost = self._urgency(item)
            if lane.urgent:
                priority += _URGENT
            self._queue.put(lane.id, priority, cost, item)
            lane.queued_bytes += len(item)
        if items:
            lane.queued += len(items)
            self._queued[lane.id] = lane

    @property
    def someone_waits(self) -> bool:
        """Does any lane wait? Then a new message waits its turn, see `runnable`."""
        return bool(self._queued or self._redo)

    def hold(self, lane: Lane[T]) -> None:
        """Hand out nothing of *lane* until `release`."""
        lane.held = True
        self._unreserve(lane)
        self._queue.park(lane.id)

    def release(self, lane: Lane[T]) -> None:
        """Hand out *lane* again."""
        lane.held = False
        self._queue.unpark(lane.id)

    def runnable(self) -> Iterator[tuple[Lane[T], list[T | Again[T]]]]:
        """Waiting lanes that a worker can take now, each with what it takes: to be handed out
        before the next one is asked for.
        """
        if self._redo:
            yield from self._runnable_again()
        while self._queued and (room := min(self._room(), _RUN)):
            found = self._queue.get_run(room, partial(self._is_placeable, room))
            if found is None:
                break
            yield self._taken(found)
        while self._queued and any(w.room > -EXTRA for w in self.workers.values()):
            is_placeable = partial(self._is_placeable, 1 - EXTRA)
            found = self._queue.get_run(1, is_placeable, least=PRIO_HIGHEST)
            if found is None:
                return
            yield self._taken(found)

    def _taken(self, found: tuple[int, int, list[T]]) -> tuple[Lane[T], list[T | Again[T]]]:
        """What left the queue."""
        lane_id, _, run = found
        lane = self._queued[lane_id]
        lane.queued -= len(run)
        lane.queued_bytes -= sum(map(len, run))
        if not lane.queued:
            del self._queued[lane_id]
        return lane, list(run)

    def _room(self) -> int:
        """What any worker can take that has room for a batch worth sending."""
        able = [room for w in self.workers.values() if (room := w.room) > w.credit.messages // 4]
        return min(able, default=0)

    def _is_placeable(self, room: int, lane_id: int) -> bool:
        lane = self._queued[lane_id]
        return not lane.redo and self.place(lane, room) is not None

    def _runnable_again(self) -> Iterator[tuple[Lane[T], list[T | Again[T]]]]:
        left = False
        for lane in list(self._redo):
            redo = lane.redo
            if not redo:
                continue
            alone, home = _is_alone(redo[0]), lane.worker
            worker = self._place_alone(lane) if alone else self.place(lane)
            left |= alone and home is not None and home is not lane.worker
            if worker is not None:
                count = 1 if alone else _before_suspect(redo, worker.room)
                yield lane, self._again(lane, count)
        if left:  # a worker that was kept for a suspect is there for others
            yield from self._runnable_again()

    def _again(self, lane: Lane[T], count: int) -> list[T | Again[T]]:
        """The first *count* of what is to be handed out again leave the lane."""
        redo = lane.redo
        assert redo is not None
        items, lane.redo = redo[:count], redo[count:]
        if not lane.redo:
            del self._redo[lane]
        return items

    def _place_alone(self, lane: Lane[T]) -> Worker | None:
        """The worker where *lane* runs alone, but for what waits: the first that can."""
        if lane.held or lane.inflight:
            return None
        free = [w for w in self.workers.values() if w.reserved in (None, lane) and not w.retiring]
        if not free:
            return None
        worker = min(
            free, key=lambda w: (self._stuck(w), w.busy_with, w.recalled, w is not lane.worker)
        )
        self._unreserve(lane)
        worker.reserved = lane
        self._move(lane, worker)
        return worker if worker.busy_with <= 0 and worker.room > 0 else None

    def _unreserve(self, lane: Lane[T]) -> None:
        """No worker is kept free for *lane*, unless it runs there already."""
        worker = lane.worker
        if worker is not None and worker.reserved is lane and not lane.inflight:
            worker.reserved = None

    # taking back

    def _take_back(self, lane: Lane[T], items: list[T | Again[T]], keep: int) -> None:
        """All in flight but the first *keep* is to be handed out again, in the form of *items*."""
        worker, dropped = lane.worker, lane.inflight[keep:]
        if worker is not None:
            worker.held -= len(dropped)
            worker.held_bytes -= sum(map(len, dropped))
        del lane.inflight[keep:]
        del lane.numbers[keep:]
        if items:
            lane.redo = items + (lane.redo or [])
            self._redo[lane] = None

    def give_back(self, lane: Lane[T]) -> None:
        """The first message in flight is to be run again, and its worker dropped what is behind."""
        again, *behind = lane.inflight
        self._take_back(lane, [charged(again, death=False), *behind], 0)
        self._unreserve(lane)

    def recall(self, worker: Worker) -> None:
        """*worker* gets nothing until `resume`; see `take_back`."""
        worker.recalled = True
        worker.asked = worker.number

    def take_back(self, worker: Worker, begun: int) -> int:
        """Take back what *worker* has not begun: numbers above *begun*. Returns how many."""
        count = 0
        for lane in sorted(worker.lanes, key=_id):
            keep = bisect_right(lane.numbers, begun)
            if keep < len(lane.inflight):
                count += len(lane.inflight) - keep
                self._take_back(lane, lane.inflight[keep:], keep)
        return count

    def resume(self, worker: Worker, stopped_at: int) -> None:
        """*worker* has run nothing from number *stopped_at* on, and takes new messages."""
        self.take_back(worker, stopped_at - 1)
        worker.recalled = False

    def stalled(self) -> list[Worker]:
        """Workers that hold more than one message while another one has nothing to do.

        Not those that gave back, after the last one they were given, all they could.
        """
        workers = self.workers.values()
        if len(self.workers) < 2 or not any(w.room > 0 and w.busy_with <= 0 for w in workers):
            return []
        return [
            w
            for w in workers
            if w.busy_with > 1 and w.asked < w.number and not (w.recalled or w.reserved)
        ]

    # the end of lanes

    def take_waiting(self, lane: Lane[T]) -> list[T | Again[T]]:
        """What waits in *lane*, which then has nothing to wait for."""
        again: list[T | Again[T]] = lane.redo or []
        lane.redo = None
        self._redo.pop(lane, None)
        self._unreserve(lane)
        return again + self.take_queued(lane)

    def take_queued(self, lane: Lane[T]) -> list[T | Again[T]]:
        """The same without what is to be handed out again: that goes on waiting."""
        if not lane.queued:
            return []
        lane.queued = lane.queued_bytes = 0
        del self._queued[lane.id]
        return [*self._queue.discard(lane.id)]

    def remove(self, lane: Lane[T]) -> None:
        """There is nothing of *lane* anywhere, and nothing will come."""
        assert lane.is_empty
        if lane.worker is not None:
            lane.worker.lanes.discard(lane)
            lane.worker = None
        if lane.held:
            self.release(lane)


def _id(lane: Lane[Any]) -> int:
    return lane.id


def _first(numbers: Sequence[int], running: Collection[int]) -> int | None:
    """Index of the first of *numbers* that is *running*."""
    return next((i for i, number in enumerate(numbers) if number in running), None)


def _is_alone(item: object) -> bool:
    """Is *item* under suspicion?"""
    return isinstance(item, Again) and item.alone


def _before_suspect(redo: Sequence[object], most: int) -> int:
    """How many at the front of *redo* go together: a suspect goes alone."""
    for i, item in enumerate(redo[:most]):
        if i and _is_alone(item):
            return i
    return min(most, len(redo))
