"""The queue against naive ones, written from the spec's text, in any history."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mpmsgr.dispatch.queue import DispatchQueue, PrioritizedQueue

MAX_TOKENS, MIN_COST = 1000, 100


class SubQueue:
    """class -> FIFO, and a round-robin cursor over classes in ascending key order."""

    def __init__(self) -> None:
        self.fifos: dict[int, list[tuple[int, int]]] = {}
        self.cursor = 0
        self.tokens = 0

    def fifo(self, cls: int) -> list[tuple[int, int]]:
        if not self.fifos:
            self.cursor = cls
        return self.fifos.setdefault(cls, [])

    def next(self) -> int | None:
        return self.cursor

    def take(self) -> tuple[int, int]:
        cls = self.cursor
        self.advance()
        cost, item = self.fifos[cls].pop(0)
        if not self.fifos[cls]:
            del self.fifos[cls]
        return cost, item

    def advance(self) -> None:
        later = [cls for cls in self.fifos if cls > self.cursor]
        self.cursor = min(later or self.fifos)

    def remove(self, cls: int) -> list[tuple[int, int]]:
        if cls in self.fifos and cls == self.cursor:
            self.advance()
        return self.fifos.pop(cls, [])


class PlainQueue:
    """The table of spec §4.2, row by row. Sub-queues whose next class is None are passed over."""

    def __init__(self) -> None:
        self.strict: dict[int, Any] = {}
        self.weighted: dict[int, Any] = {}
        self.total_priority = 0

    def sub_queue(self) -> SubQueue:
        return SubQueue()

    def enqueue_strict(self, cls: int, priority: int, item: int) -> None:
        self.of_strict(priority).fifo(cls).append((0, item))

    def enqueue_strict_front(self, cls: int, priority: int, item: int) -> None:
        self.of_strict(priority).fifo(cls).insert(0, (0, item))

    def enqueue(self, cls: int, priority: int, cost: int, item: int) -> None:
        self.of_weighted(priority).fifo(cls).append((self.clamped(cost), item))

    def enqueue_front(self, cls: int, priority: int, cost: int, item: int) -> None:
        self.of_weighted(priority).fifo(cls).insert(0, (self.clamped(cost), item))

    def clamped(self, cost: int) -> int:
        return sorted([MIN_COST, cost, MAX_TOKENS])[1]

    def of_strict(self, priority: int) -> Any:
        return self.strict.setdefault(priority, self.sub_queue())

    def of_weighted(self, priority: int) -> Any:
        if priority not in self.weighted:
            self.weighted[priority] = self.sub_queue()
            self.total_priority += priority
        return self.weighted[priority]

    def dequeue(self) -> int | None:
        for priority in sorted(self.strict, reverse=True):
            if self.strict[priority].next() is not None:
                _, item = self.strict[priority].take()
                self.drop_empty()
                return int(item)
        ready = [priority for priority in self.weighted if self.weighted[priority].next()]
        for priority in sorted(ready):
            sub = self.weighted[priority]
            cost = sub.fifos[sub.next()][0][0]
            if cost < sub.tokens:
                sub.tokens -= cost
                return self.take_weighted(sub)
        return self.take_weighted(self.weighted[max(ready)]) if ready else None

    def take_weighted(self, sub: SubQueue) -> int:
        cost, item = sub.take()
        self.drop_empty()
        if self.total_priority:
            for priority, other in self.weighted.items():
                tokens = other.tokens + priority * cost // self.total_priority + 1
                other.tokens = min(tokens, MAX_TOKENS)
        return item

    def drop_empty(self) -> None:
        self.strict = {priority: sub for priority, sub in self.strict.items() if sub.fifos}
        self.weighted = {priority: sub for priority, sub in self.weighted.items() if sub.fifos}
        self.total_priority = sum(self.weighted)

    def remove_by_class(self, cls: int) -> list[int]:
        removed: list[tuple[int, int]] = []
        for subs in (self.strict, self.weighted):
            for priority in sorted(subs, reverse=True):
                removed += subs[priority].remove(cls)
        self.drop_empty()
        return [item for _cost, item in removed]

    def pending(self) -> Counter[int]:
        waiting: Counter[int] = Counter()
        for sub in [*self.strict.values(), *self.weighted.values()]:
            waiting.update({cls: len(fifo) for cls, fifo in sub.fifos.items()})
        return waiting


classes = st.integers(1, 6)
costs = st.sampled_from([0, 100, 150, 300, 999, 1000, 5000])
puts = (
    st.tuples(st.just("enqueue_strict"), classes, st.sampled_from([64, 127])),
    st.tuples(st.just("enqueue_strict_front"), classes, st.sampled_from([64, 127])),
    st.tuples(st.just("enqueue"), classes, st.sampled_from([0, 1, 20, 63]), costs),
    st.tuples(st.just("enqueue_front"), classes, st.sampled_from([0, 1, 20, 63]), costs),
)
removals = st.tuples(st.just("remove_by_class"), classes)
gets = st.tuples(st.just("dequeue"))
Steps = list[tuple[Any, ...]]


def histories(*steps: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[Steps]:
    """Short ones too, since most long ones hit what a short one would show."""
    step = st.one_of(*steps)
    return st.lists(step, max_size=10) | st.lists(step, min_size=30, max_size=80)


@given(histories(*puts, removals, gets, gets))
def test_where_all_are_eligible_it_is_the_plain_queue(steps: Steps) -> None:
    queue: PrioritizedQueue[int, int] = PrioritizedQueue(MAX_TOKENS, MIN_COST)
    plain = PlainQueue()
    items = count(1)
    for kind, *arguments in steps:
        if kind.startswith("enqueue"):
            arguments.append(next(items))
        assert getattr(queue, kind)(*arguments) == getattr(plain, kind)(*arguments)
        same_counts(queue, plain)
    while len(queue):
        assert queue.dequeue() == plain.dequeue()
    assert plain.dequeue() is queue.dequeue() is None


def same_counts(queue: PrioritizedQueue[int, int], plain: PlainQueue) -> None:
    pending = plain.pending()
    assert len(queue) == pending.total()
    assert {cls: queue.pending(cls) for cls in queue.classes()} == pending


# classes that cannot run


class SubQueueOfTurns(SubQueue):
    """The same with turns as numbers, (round, class): the smallest of a class that is not parked is
    next, and one that the cursor has passed is owed. The cursor stands at the turn of a class that
    is not parked, or before a round, and only moves up.
    """

    def __init__(self, parked: set[int]) -> None:
        super().__init__()
        self.parked = parked
        self.at = (0, 0)
        self.turns: dict[int, tuple[int, int]] = {}

    def fifo(self, cls: int) -> list[tuple[int, int]]:
        if cls not in self.fifos:
            self.arrive(cls)
        return self.fifos.setdefault(cls, [])

    def arrive(self, cls: int) -> None:
        round_, cursor = self.at
        self.turns[cls] = (round_ + (cls < cursor), cls)
        self.settle()

    def settle(self) -> None:
        ahead = [turn for turn in self.turns.values() if self.runs(turn) and turn >= self.at]
        if ahead:
            self.at = min(ahead)
        elif self.at[1]:
            self.at = (self.at[0] + 1, 0)

    def runs(self, turn: tuple[int, int]) -> bool:
        return turn[1] not in self.parked

    def next(self) -> int | None:
        turns = [turn for turn in self.turns.values() if self.runs(turn)]
        return min(turns)[1] if turns else None

    def take(self) -> tuple[int, int]:
        cls = self.next()
        assert cls is not None
        taken = self.fifos[cls].pop(0)
        round_, _ = turn = self.turns[cls]
        if not self.fifos[cls]:
            self.remove(cls)
        elif turn < self.at:
            self.arrive(cls)
        else:
            self.turns[cls] = (round_ + 1, cls)
            self.settle()
        return taken

    def remove(self, cls: int) -> list[tuple[int, int]]:
        self.turns.pop(cls, None)
        self.settle()
        return self.fifos.pop(cls, [])


class QueueOfTurns(PlainQueue):
    """A class that is refused is parked until the end of the call."""

    def __init__(self) -> None:
        super().__init__()
        self.parked: set[int] = set()

    def sub_queue(self) -> SubQueue:
        return SubQueueOfTurns(self.parked)

    def park(self, cls: int) -> None:
        self.parked.add(cls)
        self.settle()

    def unpark(self, cls: int) -> None:
        self.parked.discard(cls)
        self.settle()

    def settle(self) -> None:
        for sub in [*self.strict.values(), *self.weighted.values()]:
            sub.settle()

    def dequeue_of(self, eligible: set[int]) -> int | None:
        refused = []
        while (cls := self.next_refused(eligible)) is not None:
            refused.append(cls)
            self.park(cls)
        item = self.dequeue()
        for cls in refused:
            self.unpark(cls)
        return item

    def next_refused(self, eligible: set[int]) -> int | None:
        """Whom a scan comes to next that cannot run, if it does not end before."""
        strict = [self.strict[priority] for priority in sorted(self.strict, reverse=True)]
        weighted = [self.weighted[priority] for priority in sorted(self.weighted)]
        for sub in strict + weighted:
            cls = sub.next()
            if cls is not None and cls not in eligible:
                return int(cls)
            if cls is not None and (sub in strict or sub.fifos[cls][0][0] < sub.tokens):
                break
        return None


some = st.frozensets(classes)
parking = st.tuples(st.sampled_from(["park", "unpark"]), classes)
gets_of = st.tuples(st.just("dequeue_of"), some)


def dequeue_of(queue: PrioritizedQueue[int, int], eligible: frozenset[int]) -> int | None:
    """Take an item; nobody is asked for a parked class, nor asked again once refused."""
    refused: set[int] = set()

    def ask(cls: int) -> bool:
        assert cls not in refused
        if cls not in eligible:
            refused.add(cls)
        return cls in eligible

    return queue.dequeue(ask)


@settings(max_examples=200)
@given(histories(*puts, removals, gets, gets_of, gets_of, parking))
def test_classes_that_cannot_run_keep_their_turns(steps: Steps) -> None:
    queue: PrioritizedQueue[int, int] = PrioritizedQueue(MAX_TOKENS, MIN_COST)
    model = QueueOfTurns()
    items = count(1)
    for kind, *arguments in steps:
        if kind.startswith("enqueue"):
            arguments.append(next(items))
        if kind == "dequeue_of":
            assert dequeue_of(queue, *arguments) == model.dequeue_of(*arguments)
        else:
            assert getattr(queue, kind)(*arguments) == getattr(model, kind)(*arguments)
        same_counts(queue, model)
    for cls in range(1, 7):
        queue.unpark(cls)
        model.unpark(cls)
    while len(queue):
        assert queue.dequeue() == model.dequeue()


@given(
    histories(
        st.tuples(st.sampled_from(["put", "put", "put_front"]), classes, st.just(0)),
        st.tuples(st.just("get"), some, st.integers(1, 3)),
        st.tuples(st.sampled_from(["park", "unpark"]), classes, st.just(0)),
    )
)
def test_nobody_takes_a_third_turn_while_another_that_can_run_waits_for_its_first(
    steps: Steps,
) -> None:
    queue: DispatchQueue[int, int] = DispatchQueue()
    parked: set[int] = set()
    taken: dict[int, Counter[int]] = {}  # by class that could run all the time: who ran meanwhile
    for kind, what, limit in steps:
        if kind == "get":
            run = queue.get_run(limit, what.__contains__)
            ready = {cls for cls in queue.classes() if cls in what and cls not in parked}
            assert run or not ready
            taken = {cls: taken.get(cls, Counter()) for cls in ready}
            if run:
                taken.pop(run[0], None)
                for meanwhile in taken.values():
                    meanwhile[run[0]] += 1
            assert all(turns <= 2 for meanwhile in taken.values() for turns in meanwhile.values())
        elif kind.startswith("put"):
            getattr(queue, kind)(what, 127, 0, 0)
        else:
            getattr(queue, kind)(what)
            (parked.add if kind == "park" else parked.discard)(what)
            taken.pop(what, None)
