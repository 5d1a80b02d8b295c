"""Lanes, credits, attempts, state and acks against a model: any order of arrivals, completions,
deaths, recalls and reloads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mpmsgr.dispatch.attempts import Again
from mpmsgr.dispatch.lanes import Worker
from tests.property.lanes_front import EXTRA, ModelFront, Seat, is_urgent
from tests.property.lanes_worker import Item, ModelLane, ModelWorker

SLOTS, SESSIONS, KEYS = 3, 3, 2

#: Which one of those that can do it.
which = st.integers(0, 5)
messages = st.tuples(
    st.sampled_from([127, 127, 127, 196, 255, 63, 20]),
    st.sampled_from([1, 100, 5000, 1 << 20]),
    st.sampled_from([0, 1, 2, 2, 3]),
)
outcomes = st.sampled_from(["done", "suspend", "suspend", "done", "failed", "retry", "go on"])
ends = st.sampled_from(["done", "done", "failed", "retry"])
heard = st.integers(0, 3)
times = st.sampled_from([1.0, 100.0, 500.0, 5000.0])


def some(attribute: str) -> Callable[[Any], Any]:
    """A rule of which there must be *attribute* of the machine."""
    return precondition(lambda self: bool(getattr(self, attribute)))


class Pool(RuleBasedStateMachine):
    """Sessions, an I/O process, and workers that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.generations, self.ids = count(1), count(1)
        self.lanes: list[ModelLane] = []

    @initialize(credit=st.integers(1, 8), workers=st.integers(0, SLOTS))
    def begin(self, credit: int, workers: int) -> None:
        """Every session has a lane, some keys as well."""
        self.front = ModelFront(credit, SESSIONS)
        self.lanes = [ModelLane(next(self.ids)) for _ in range(SESSIONS + KEYS)]
        self.lanes[0].urgent = True
        for slot in range(workers):
            self.start(slot)

    def start(self, slot: int) -> None:
        record = self.front.lanes.ready(slot, next(self.generations))
        self.front.seats[record] = Seat(ModelWorker(record))
        self.front.pump()

    # arrivals

    @rule(
        session=st.integers(0, SESSIONS - 1),
        where=st.integers(-1, KEYS),
        said=st.lists(messages, min_size=2, max_size=8),
    )
    def arrive(self, session: int, where: int, said: list[tuple[int, int, int]]) -> None:
        """Messages for the session's lane, a key's, or one of its own."""
        if where < 0:
            lane = self.lanes[session]
        elif where < KEYS:
            lane = self.lanes[SESSIONS + where]
        else:
            lane, said = ModelLane(next(self.ids)), said[:1]
            self.lanes.append(lane)
        self.front.deliver(lane, [self.front.message(lane, session, *facts) for facts in said])

    # workers at work

    def seats(self, condition: Callable[[Seat], Any]) -> list[Seat]:
        return [seat for seat in self.front.seats.values() if condition(seat)]

    @property
    def able(self) -> list[Seat]:
        """Workers that can do something."""
        return self.seats(lambda seat: seat.model.alive and seat.model.has_work)

    @some("able")
    @rule(which=which, outcomes=st.lists(outcomes, min_size=1, max_size=6), heard=heard, us=times)
    def work(self, which: int, outcomes: list[str], heard: int, us: float) -> None:
        """A worker runs callbacks, and sends what it has to say; some of its frames arrive."""
        self.run_some(pick(self.able, which), outcomes, heard, us)

    @some("able")
    @rule(outcomes=st.lists(outcomes, min_size=3, max_size=9), heard=heard, us=times)
    def work_everywhere(self, outcomes: list[str], heard: int, us: float) -> None:
        """All of them do."""
        for seat in self.able:
            self.run_some(seat, outcomes[:3], heard, us)
            outcomes = outcomes[1:] + outcomes[:1]

    def run_some(self, seat: Seat, outcomes: list[str], heard: int, us: float) -> None:
        model = seat.model
        for outcome in outcomes:
            while model.is_free and model.step():
                pass
            if model.sync is not None and outcome != "go on":
                finish(model, outcome)
        self.hear(seat, heard, us)

    @some("able")
    @rule(which=which, outcome=outcomes, steps=st.integers(0, 2))
    def work_a_little(self, which: int, outcome: str, steps: int) -> None:
        """It stops in the midst of something."""
        model = pick(self.able, which).model
        if not model.is_free and outcome != "go on":
            finish(model, outcome)
        for _ in range(steps):
            if model.is_free:
                model.step()

    @property
    def suspended(self) -> list[Seat]:
        """Workers that can go on with a task."""
        return self.seats(lambda seat: seat.model.is_free and seat.model.started)

    @some("suspended")
    @rule(which=which, task=which, outcome=ends)
    def go_on(self, which: int, task: int, outcome: str) -> None:
        """A task ends."""
        model = pick(self.suspended, which).model
        model.finish(outcome, pick(list(model.started), task))

    @property
    def telling(self) -> list[Seat]:
        """Workers that can send what they have to say, or have sent it."""
        return self.seats(
            lambda seat: seat.model.frames or (seat.model.is_free and seat.model.says)
        )

    @some("telling")
    @rule(which=which, heard=heard, us=times)
    def report(self, which: int, heard: int, us: float) -> None:
        """A worker sends what it has to say; some of its frames arrive."""
        self.hear(pick(self.telling, which), heard, us)

    def hear(self, seat: Seat, heard: int, us: float) -> None:
        if seat.model.is_free:
            seat.model.flush()
        while seat.model.frames and heard:
            heard -= 1
            self.front.hear(seat, us)

    # workers that come and go

    @property
    def vacant(self) -> list[int]:
        """Slots without a worker."""
        return sorted(set(range(SLOTS)) - set(self.front.lanes.workers))

    @some("vacant")
    @rule(which=which)
    def spawn(self, which: int) -> None:
        """A worker comes up."""
        self.start(pick(self.vacant, which))

    @property
    def busy(self) -> list[Seat]:
        """Workers that are alive, have begun something, and hold something."""
        return self.seats(lambda seat: seat.model.is_busy)

    @some("busy")
    @rule(which=which, how=st.sampled_from(["at once", "later", "retires"]))
    def end(self, which: int, how: str) -> None:
        """A worker dies, which may be known at once or later; or it is to go."""
        seat = pick(self.busy, which)
        if how == "retires":
            self.front.retire(seat)
            return
        seat.model.alive = False
        if how == "at once":
            self.front.lost(seat)

    @some("able")
    @rule(which=which, outcomes=st.lists(st.sampled_from(["suspend", "done"]), min_size=2))
    def end_busy(self, which: int, outcomes: list[str]) -> None:
        """A worker dies in the midst of many callbacks."""
        seat = pick(self.able, which)
        self.run_some(seat, outcomes, 0, 0.0)
        seat.model.alive = False
        self.front.lost(seat)

    @property
    def dead(self) -> list[Seat]:
        """Workers that are dead, and nobody knows it yet."""
        return self.seats(lambda seat: not seat.model.alive)

    @some("dead")
    @rule(which=which)
    def notice(self, which: int) -> None:
        """Now it is known."""
        self.front.lost(pick(self.dead, which))

    @property
    def finished(self) -> list[Seat]:
        """Workers that may go."""
        return self.seats(lambda seat: seat.model.record.retiring and not seat.model.record.held)

    @some("finished")
    @rule(which=which)
    def goodbye(self, which: int) -> None:
        """It goes."""
        seat = pick(self.finished, which)
        assert not seat.model.running
        self.front.lost(seat)

    # recalls

    @property
    def hoarders(self) -> list[Seat]:
        """Workers from whom something may be taken back."""
        stalled = self.front.lanes.stalled()
        return self.seats(lambda seat: not seat.epoch and seat.model.record in stalled)

    @some("hoarders")
    @rule(which=which)
    def recall(self, which: int) -> None:
        """A worker is asked for what it has not begun."""
        self.front.recall(pick(self.hoarders, which))

    @property
    def asked(self) -> list[Seat]:
        """Workers that were asked."""
        return self.seats(lambda seat: seat.epoch and not seat.settled)

    @some("asked")
    @rule(which=which)
    def settle(self, which: int) -> None:
        """It is taken."""
        self.front.settle(pick(self.asked, which))

    # lanes

    @property
    def held(self) -> list[ModelLane]:
        """Lanes that are held."""
        return [lane for lane in self.lanes if lane.holds]

    @some("held")
    @rule(which=which, all_=st.booleans())
    def release(self, which: int, all_: bool) -> None:
        """It is not any more, or the time has come to run a message again."""
        for lane in self.held if all_ else [pick(self.held, which)]:
            self.front.release(lane)

    @property
    def waiting(self) -> list[ModelLane]:
        """Lanes where something waits; none unless there are some that are not held."""
        waiting = [lane for lane in self.lanes if lane.waits]
        return waiting if sum(not lane.held for lane in waiting) > 1 else []

    @some("waiting")
    @rule(which=which, what=st.sampled_from(["full", "full", "reset", "sort"]), kept=st.sets(which))
    def hold(self, which: int, what: str, kept: set[int]) -> None:
        """A session's outbox is full; or the peer has lost it, and only events are kept; or some
        messages turn out to belong elsewhere.
        """
        lane = pick(self.waiting, which)
        if what == "full":
            self.front.hold(lane, "full")
            self.front.pump()
        else:
            self.front.discard(lane, kept, begun=what == "reset")

    @property
    def empty(self) -> list[ModelLane]:
        """Lanes that had messages, and have none."""
        return [lane for lane in self.lanes if lane.arrivals and lane.is_empty]

    @some("empty")
    @rule(which=which)
    def remove(self, which: int) -> None:
        """A session ends, a key is forgotten: what comes later has another lane."""
        lane = pick(self.empty, which)
        self.front.remove(lane)
        at = self.lanes.index(lane)
        if at < SESSIONS + KEYS:
            self.lanes[at] = ModelLane(next(self.ids))
        else:
            del self.lanes[at]

    # what always holds

    @invariant()
    def books_are_right(self) -> None:
        """What is counted is what is there."""
        for record in self.front.seats:
            mine = {lane for lane in self.lanes if lane.worker is record}
            inflight = [item for lane in mine for item in lane.inflight]
            assert record.lanes == mine
            assert (record.held, record.held_bytes) == (len(inflight), sum(map(len, inflight)))
        for lane in self.lanes:
            assert lane.worker is None or lane.worker in self.front.seats
            assert len(lane.numbers) == len(lane.inflight)
            assert lane.numbers == sorted(set(lane.numbers))
            assert lane.queued == len(lane.waiting)
            assert lane.queued_bytes == sum(map(len, lane.waiting))
            assert lane.held == bool(lane.holds)
        late = self.front.lanes._late
        assert late is None or (late in self.front.seats and late.wanted > 0 and not late.retiring)

    @invariant()
    def only_suspects_reserve(self) -> None:
        """A worker is kept free for a lane whose first message is to run alone, and may."""
        for record in self.front.seats:
            lane = record.reserved
            if lane is None:
                continue
            assert lane.worker is record
            assert is_suspect(lane.inflight or lane.redo)
            assert lane.inflight or not lane.held

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """A message waits only if no worker has room that is worth a batch."""
        for lane in self.lanes:
            if not lane.waits or lane.held:
                continue
            able = [record for record in self.front.seats if takes(record, lane)]
            if lane.redo and lane.worker is not None and lane.worker.reserved is lane:
                continue  # behind a suspect
            if lane.inflight:
                assert lane.worker not in able or is_suspect(lane.redo)
            elif is_suspect(lane.redo):
                assert all(record.busy_with > 0 for record in able)
            else:
                assert not able

    @invariant()
    def nobody_hoards(self) -> None:
        """Beside an idle worker, what another one holds of several lanes, which do not merely
        wait, may be taken back, unless that was tried already.
        """
        records = list(self.front.seats)
        if any(r.room > 0 and r.busy_with <= 0 and not r.reserved for r in records):
            for record in records:
                tried = record.recalled or record.asked == record.number
                busy = sum(bool(lane.inflight) for lane in record.lanes) - record.waiting
                assert busy < 2 or tried or record in self.front.lanes.stalled()

    # in the end

    def teardown(self) -> None:
        """With workers that work, everything is handled."""
        if not self.lanes or sys.exc_info()[0] is not None:
            return
        for seat in self.dead:
            self.front.lost(seat)
        turns = 3 * len(self.front.items) + 10
        while turns and not all(item.fate for item in self.front.items):
            turns -= 1
            self.let_all_work()
        assert turns
        assert all(lane.is_empty for lane in self.lanes)
        self.books_are_right()
        assert not any(record.held or record.reserved for record in self.front.seats)

    def let_all_work(self) -> None:
        for lane in self.held:
            self.front.release(lane)
        for seat in self.finished:
            self.front.lost(seat)
        if not self.front.seats:
            self.start(0)
        for seat in list(self.front.seats.values()):
            self.let_work(seat.model)
            self.hear(seat, len(seat.model.frames) + 1, 100.0)

    def let_work(self, model: ModelWorker) -> None:
        while model.has_work or model.started:
            if model.sync is not None:
                model.finish("done")
            elif not model.step():
                model.finish("done", next(iter(model.started)))


def pick(candidates: list[Any], which: int) -> Any:
    return candidates[which % len(candidates)]


def finish(model: ModelWorker, outcome: str) -> None:
    if outcome == "suspend":
        model.suspend()
    else:
        model.finish(outcome)


def takes(record: Worker, lane: ModelLane) -> bool:
    """Would the worker take what is first in the lane?"""
    room = 0 if lane.redo else record.credit.messages // 4
    if not lane.redo and any(map(is_urgent, lane.waiting)):
        room = -EXTRA
    return record.room > room and record.reserved in (None, lane)


def is_suspect(items: list[Item | Again[Item]] | None) -> bool:
    return bool(items) and isinstance(items[0], Again) and items[0].alone  # type: ignore[index]


Pool.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestPool = Pool.TestCase


@pytest.mark.soak
def test_pool_for_minutes() -> None:
    run_state_machine_as_test(Pool, settings=settings(max_examples=10_000, stateful_step_count=90))
