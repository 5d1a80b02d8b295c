"""Which message is handed out next: Ceph's PrioritizedQueue and DispatchQueue (dispatch spec §4).

A class is whose messages they are: here a lane, by its number. All messages of a class and priority
leave in the order they came.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, KeysView
from typing import Any, Generic, TypeVar

from mpmsgr.dispatch.turns import K, Turns
from mpmsgr.wire.message import PRIO_LOW

T = TypeVar("T")

#: Most tokens a weighted sub-queue may have, and least cost of a message
#: (``ms_pq_max_tokens_per_priority``, ``ms_pq_min_cost``).
MAX_TOKENS = 16777216
MIN_COST = 65536
#: Strict sub-queues kept when empty: a few priorities are usual, a peer may use 65536.
_KEEP = 8


class _SubQueue(Turns[K]):
    """The classes that have messages of one priority.

    tokens: what it may spend; weighted only.
    """

    __slots__ = ("home", "priority", "tokens")

    def __init__(self, home: _SubQueues[K], priority: int) -> None:
        super().__init__()
        self.home = home
        self.priority = priority
        self.tokens = 0


class _SubQueues(Generic[K]):
    """Sub-queues by priority; ready: those with a class that is not parked, ascending.

    keep: so many sub-queues stay when they have become empty: making one costs more than a put.
    """

    __slots__ = ("_keep", "by_priority", "ready")

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.by_priority: dict[int, _SubQueue[K]] = {}
        self.ready: list[_SubQueue[K]] = []

    def new(self, priority: int) -> _SubQueue[K]:
        self.by_priority[priority] = sub = _SubQueue(self, priority)
        return sub

    def fill(self, sub: _SubQueue[K]) -> None:
        """*sub* has a class that can run, the first one."""
        if self.ready:
            insort(self.ready, sub, key=_priority)
        else:
            self.ready.append(sub)

    def spent(self, sub: _SubQueue[K], was_ready: bool = True) -> None:
        """*sub* has no class left that can run, maybe none at all."""
        if was_ready:
            self.ready.remove(sub)
        if sub.empty and len(self.by_priority) > self._keep:
            del self.by_priority[sub.priority]

    def distribute(self, cost: int, max_tokens: int) -> None:
        """An item of *cost* was taken: all get tokens in proportion to their priority."""
        total = sum(self.by_priority)
        if total:  # as the reference, if all that is left has priority 0
            for priority, sub in self.by_priority.items():
                sub.tokens = min(sub.tokens + priority * cost // total + 1, max_tokens)


def _priority(sub: _SubQueue[Any]) -> int:
    return sub.priority


class PrioritizedQueue(Generic[K, T]):
    """Strict priorities, and below them weighted ones that share by tokens (dispatch spec §4.2).

    Within a priority, classes take turns in ascending order. Priorities are >= 0, costs are bytes.
    """

    def __init__(self, max_tokens: int = MAX_TOKENS, min_cost: int = MIN_COST) -> None:
        self._max_tokens = max_tokens
        self._min_cost = min_cost
        self._strict: _SubQueues[K] = _SubQueues(keep=_KEEP)
        self._weighted: _SubQueues[K] = _SubQueues(keep=0)  # their tokens go with them
        # Strict sub-queues hold items, weighted ones (cost, item).
        self._classes: dict[K, dict[_SubQueue[K], deque[Any]]] = {}
        self._parked: set[K] = set()
        self._size = 0

    def __len__(self) -> int:
        """Items queued, those of parked classes included."""
        return self._size

    def __contains__(self, cls: K) -> bool:
        """Has the class anything waiting?"""
        return cls in self._classes

    def classes(self) -> KeysView[K]:
        """The classes that have something waiting, parked ones included."""
        return self._classes.keys()

    def pending(self, cls: K) -> int:
        """How many items of the class wait."""
        return sum(map(len, self._classes.get(cls, {}).values()))

    def enqueue_strict(self, cls: K, priority: int, item: T) -> None:
        """Behind the items of its class and priority."""
        self._queue_of(cls, self._strict, priority).append(item)

    def enqueue_strict_front(self, cls: K, priority: int, item: T) -> None:
        """Before the items of its class and priority. The class's turn does not change."""
        self._queue_of(cls, self._strict, priority).appendleft(item)

    def enqueue(self, cls: K, priority: int, cost: int, item: T) -> None:
        """Behind the items of its class and priority, weighted."""
        self._queue_of(cls, self._weighted, priority).append((self._clamp(cost), item))

    def enqueue_front(self, cls: K, priority: int, cost: int, item: T) -> None:
        """Before the items of its class and priority, weighted."""
        self._queue_of(cls, self._weighted, priority).appendleft((self._clamp(cost), item))

    def dequeue(self, eligible: Callable[[K], bool] | None = None) -> T | None:
        """The next item of a class that is not parked and *eligible*; None if there is none.

        A class that is refused keeps its turn, and is asked before others next time. Within one
        call, *eligible* must not change its mind about a class. It may park the class that it
        refuses, which is then not asked again until it is unparked: the way to go where many
        classes are blocked, since each refusal costs about as much as a get.
        """
        passed: list[K] = []
        try:
            sub = self._choose(eligible, passed)
            if sub is None:
                return None
            return self._take(sub) if sub.home is self._strict else self._take_weighted(sub)
        finally:
            if passed:
                self._back(passed)

    def dequeue_run(
        self, limit: int, eligible: Callable[[K], bool] | None = None, least: int = 0
    ) -> list[T]:
        """Like `dequeue`, but up to *limit* items of one class and priority in a single turn.

        Weighted ones come alone. least: only of strict priorities from there on, if it is not 0.
        Empty if there is none.
        """
        passed: list[K] = []
        try:
            sub = self._choose(eligible, passed, least)
            if sub is None:
                return []
            if sub.home is self._weighted:
                return [self._take_weighted(sub)]
            queue = self._classes[sub.next()][sub]
            rest = min(limit, len(queue)) - 1
            self._size -= rest
            return [queue.popleft() for _ in range(rest)] + [self._take(sub)]
        finally:
            if passed:
                self._back(passed)

    def remove_by_class(self, cls: K) -> list[T]:
        """Remove the items of a class; returns them by priority, highest first, strict first.

        If it is parked, it stays so.
        """
        queues = self._classes.pop(cls, {})
        removed: list[T] = []
        for sub in sorted(queues, key=self._rank):
            items = queues[sub]
            self._size -= len(items)
            removed += items if sub.home is self._strict else [item for _cost, item in items]
            was_ready = sub.ready
            sub.remove(cls)
            if not sub.ready:
                sub.home.spent(sub, was_ready)
        return removed

    def park(self, cls: K) -> None:
        """Take nothing of a class, now queued or later, until it is unparked. It keeps its turn."""
        if cls in self._parked:
            return
        self._parked.add(cls)
        for sub in self._classes.get(cls, ()):
            sub.park(cls)
            if not sub.ready:
                sub.home.spent(sub)

    def unpark(self, cls: K) -> None:
        """The class takes part again; if its turn was passed over, before others."""
        if cls not in self._parked:
            return
        self._parked.discard(cls)
        for sub in self._classes.get(cls, ()):
            if not sub.ready:
                sub.home.fill(sub)
            sub.unpark(cls)

    def _clamp(self, cost: int) -> int:
        return min(max(cost, self._min_cost), self._max_tokens)

    def _rank(self, sub: _SubQueue[K]) -> tuple[bool, int]:
        return sub.home is self._weighted, -sub.priority

    def _queue_of(self, cls: K, subs: _SubQueues[K], priority: int) -> deque[Any]:
        """Where one more item goes."""
        self._size += 1
        queues = self._classes.get(cls)
        if queues is None:
            queues = self._classes[cls] = {}
        sub = subs.by_priority.get(priority) or subs.new(priority)
        queue = queues.get(sub)
        if queue is None:
            queue = queues[sub] = deque()
            self._join(cls, sub)
        return queue

    def _join(self, cls: K, sub: _SubQueue[K]) -> None:
        if cls in self._parked:
            sub.add_parked(cls)
            return
        if not sub.ready:
            sub.home.fill(sub)
        sub.add(cls)

    def _choose(
        self, eligible: Callable[[K], bool] | None, passed: list[K], least: int = 0
    ) -> _SubQueue[K] | None:
        """The sub-queue to take from; its next class is one that can run."""
        strict, weighted = self._strict.ready, self._weighted.ready
        while strict and strict[-1].priority >= least:
            sub = strict[-1]
            if eligible is None or self._pass_over(sub, eligible, passed):
                return sub
        if least:
            return None
        best = None
        for sub in weighted.copy():
            if eligible is None or self._pass_over(sub, eligible, passed):
                best = sub
                if self._classes[sub.next()][sub][0][0] < sub.tokens:
                    break
        return best

    def _pass_over(self, sub: _SubQueue[K], eligible: Callable[[K], bool], passed: list[K]) -> bool:
        """Park classes until it is the turn of one that can run; False if there is none."""
        while sub.ready:
            cls = sub.next()
            if eligible(cls):
                return True
            if cls not in self._parked:
                self.park(cls)
                passed.append(cls)
        return False

    def _back(self, passed: list[K]) -> None:
        """Classes that were refused, and not by parking them, take part again."""
        for cls in passed:
            self.unpark(cls)

    def _take(self, sub: _SubQueue[K]) -> Any:
        """What is first in the next class of *sub*, which has had its turn then."""
        cls = sub.next()
        queue = self._classes[cls][sub]
        item = queue.popleft()
        self._size -= 1
        if queue:
            sub.taken()
        else:
            self._leave(cls, sub)
        return item

    def _take_weighted(self, sub: _SubQueue[K]) -> T:
        cost: int
        item: T
        cost, item = self._take(sub)
        if cost < sub.tokens:
            sub.tokens -= cost
        self._weighted.distribute(cost, self._max_tokens)
        return item

    def _leave(self, cls: K, sub: _SubQueue[K]) -> None:
        """The next class of *sub* has nothing left there."""
        if not sub.finished():
            sub.home.spent(sub)
        queues = self._classes[cls]
        del queues[sub]
        if not queues:
            del self._classes[cls]


class DispatchQueue(PrioritizedQueue[K, tuple[K, int, T]]):
    """Messages and events of lanes, waiting to be handed out (dispatch spec §4.1).

    Priorities from 64 (LOW) up are strict, those below weighted; events have 255.
    """

    def put(self, cls: K, priority: int, cost: int, item: T) -> None:
        """Queue *item*, of *cost* bytes of data, behind those of its class and priority."""
        if priority >= PRIO_LOW:
            self.enqueue_strict(cls, priority, (cls, priority, item))
        else:
            self.enqueue(cls, priority, cost, (cls, priority, item))

    def put_front(self, cls: K, priority: int, cost: int, item: T) -> None:
        """Queue *item* before those of its class and priority: it comes back, or is redelivered."""
        if priority >= PRIO_LOW:
            self.enqueue_strict_front(cls, priority, (cls, priority, item))
        else:
            self.enqueue_front(cls, priority, cost, (cls, priority, item))

    def get(self, eligible: Callable[[K], bool] | None = None) -> tuple[K, int, T] | None:
        """The next (class, priority, item), or None: see `dequeue`."""
        return self.dequeue(eligible)

    def get_run(
        self, limit: int, eligible: Callable[[K], bool] | None = None, least: int = 0
    ) -> tuple[K, int, list[T]] | None:
        """Up to *limit* items of one class and priority: see `dequeue_run`."""
        run = self.dequeue_run(limit, eligible, least)
        return (run[0][0], run[0][1], [item for _, _, item in run]) if run else None

    def has(self, cls: K) -> bool:
        """Has the class anything waiting?"""
        return cls in self._classes

    def discard(self, cls: K) -> list[T]:
        """discard_queue: remove what waits of the class; returns it, the most urgent first."""
        return [item for _, _, item in self.remove_by_class(cls)]
