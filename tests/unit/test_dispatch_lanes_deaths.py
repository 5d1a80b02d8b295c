"""Lanes when workers die; suspects that run alone; messages that are taken back, or given back."""

from __future__ import annotations

from typing import Any

import pytest

from mpmsgr.dispatch.attempts import Again
from mpmsgr.dispatch.lanes import Lane, Lanes, Worker


class Crew:
    """Lanes over so many workers. given: what they were given since it was looked at last."""

    def __init__(self, workers: int = 1, credit: int = 8, max_attempts: int = 3) -> None:
        self.lanes: Lanes[str] = Lanes(credit, lambda item: (127, 1), lambda item: max_attempts)
        self.workers = [self.lanes.ready(slot, 1) for slot in range(workers)]
        self._given: list[tuple[int, str]] = []
        self._ids = iter(range(1, 1000))

    def ready(self, slot: int, generation: int = 2) -> Worker:
        worker = self.lanes.ready(slot, generation)
        self.pump()
        return worker

    def lane(self, *items: str) -> Lane[str]:
        """One with messages."""
        lane = Lane[str](next(self._ids))
        self.put(lane, *items)
        return lane

    def put(self, lane: Lane[str], *items: str) -> None:
        self.lanes.wait(lane, items)
        self.pump()

    def pump(self) -> None:
        for lane, items in self.lanes.runnable():
            self.lanes.hand_out(lane, items, sum(map(len, items)))
            assert lane.worker is not None
            self._given += [(lane.worker.slot, name_of(item)) for item in items]

    def given(self) -> list[tuple[int, str]]:
        given, self._given = self._given, []
        return given

    def names(self) -> list[str]:
        return [name for _, name in self.given()]

    def completed(self, lane: Lane[str], count: int = 1) -> None:
        self.lanes.completed(lane, count)
        self.pump()

    def go_on(self, worker: Worker, waiting: int, nbytes: int = 0) -> None:
        """So many of what *worker* holds merely wait."""
        self.lanes.going_on(worker, waiting, nbytes)
        self.pump()

    def lost(self, worker: Worker, *running: Lane[str]) -> list[str]:
        """A worker dies while it runs the first message of *running*; returns what is poisoned."""
        numbers = [lane.numbers[0] for lane in running]
        _, poisoned = self.lanes.lost(worker.slot, worker.generation, numbers)
        self.pump()
        return [name_of(again) for _, again in poisoned]


def name_of(item: Any) -> str:
    """The message, with its attempt if it is not the first, and ? if it is to run alone."""
    if not isinstance(item, Again):
        return str(item)
    return f"{item.item}{item.attempt}{'?' * item.alone}"


def suspect(crew: Crew) -> tuple[Lane[str], Worker, Worker]:
    """A lane that is to run alone; the worker where it waits, which holds less than the other."""
    x, y, lane = crew.lane("x"), crew.lane("y", "y"), crew.lane("s")
    assert x.worker is not None
    assert y.worker is not None
    crew.lanes.lost(2, 1, [lane.numbers[0], 99])
    crew.pump()
    crew.given()
    assert x.worker.reserved is lane
    return lane, x.worker, y.worker


# deaths


def test_what_was_running_is_charged_and_all_else_goes_out_again_in_order() -> None:
    crew = Crew()
    first, second = crew.lane("a", "b"), crew.lane("c", "d")
    crew.put(first, "e")
    crew.completed(first)
    crew.given()
    assert crew.lost(crew.workers[0], second) == []
    crew.put(first, "f")
    crew.ready(0)
    assert crew.names() == ["b", "e", "c2", "d", "f"]


def test_a_death_with_nothing_running_charges_nobody() -> None:
    crew = Crew()
    crew.lane("a", "b")
    for generation in range(2, 10):
        assert crew.lost(crew.lanes.workers[0]) == []
        crew.given()
        crew.ready(0, generation)
        assert crew.names() == ["a", "b"]


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_after_so_many_deaths_it_is_not_handed_out_again(max_attempts: int) -> None:
    crew = Crew(max_attempts=max_attempts)
    lane = crew.lane("a", "b")
    for deaths in range(1, max_attempts):
        assert crew.lost(crew.lanes.workers[0], lane) == []
        crew.ready(0, deaths + 1)
    assert crew.lost(crew.lanes.workers[0], lane) == [f"a{max_attempts + 1}"]
    crew.given()
    crew.ready(0, 100)
    assert crew.names() == ["b"], "the lane goes on"


def test_zero_is_no_limit() -> None:
    crew = Crew(max_attempts=0)
    lane = crew.lane("a")
    for generation in range(2, 20):
        assert crew.lost(crew.lanes.workers[0], lane) == []
        crew.ready(0, generation)
    assert crew.names()[-1] == "a19"


def test_what_its_worker_had_reported_before_it_died_is_not_charged() -> None:
    crew = Crew()
    lane = crew.lane("a", "b")
    number = lane.numbers[0]
    crew.completed(lane)
    crew.given()
    assert crew.lanes.lost(0, 1, [number]) == ([lane], [])
    crew.ready(0)
    assert crew.names() == ["b"]


# suspects


def test_several_that_were_running_are_run_one_at_a_time_and_only_a_repeat_charges() -> None:
    crew = Crew(max_attempts=1)
    a, b = crew.lane("a"), crew.lane("b")
    crew.lost(crew.workers[0], a, b)
    crew.lane("x")
    crew.given()
    crew.ready(0)
    assert crew.names() == ["a2?"]
    crew.completed(a)
    assert crew.names() == ["b2?"], "nothing beside it"
    assert crew.lost(crew.lanes.workers[0], b) == ["b3"]
    crew.ready(0, 3)
    assert crew.names() == ["x"]


def test_two_suspects_run_at_a_worker_each() -> None:
    crew = Crew()
    crew.lost(crew.workers[0], crew.lane("a"), crew.lane("b"))
    crew.given()
    crew.ready(0)
    crew.ready(1)
    crew.lane("x")
    assert crew.given() == [(0, "a2?"), (1, "b2?")]


def test_what_is_behind_a_suspect_may_follow_it() -> None:
    crew = Crew()
    crew.lost(crew.workers[0], crew.lane("a", "b"), crew.lane("c"))
    crew.given()
    crew.ready(0)
    crew.pump()
    assert crew.names() == ["a2?", "b"]


def test_what_comes_before_a_suspect_goes_before_it() -> None:
    crew = Crew()
    lane = crew.lane("a", "b", "c")
    crew.lanes.lost(0, 1, [lane.numbers[1], 99])  # a has completed, and nobody knows
    crew.given()
    crew.ready(0)
    assert crew.names() == ["a"]
    crew.completed(lane)
    assert crew.names() == ["b2?"]


def test_a_suspect_goes_to_the_first_worker_that_is_idle() -> None:
    crew = Crew(workers=3)
    _, left, right = suspect(crew)
    for lane in list(right.lanes):
        crew.completed(lane, 2)
    assert crew.given() == [(right.slot, "s2?")]
    assert left.reserved is None


def test_an_empty_lane_leaves_a_worker_that_is_kept_for_a_suspect() -> None:
    crew = Crew(workers=3)
    _, left, right = suspect(crew)
    idle = crew.lane()
    crew.lanes._move(idle, left)
    crew.put(idle, "j")
    assert idle.worker is right


def held(crew: Crew, lane: Lane[str]) -> None:
    crew.lanes.hold(lane)


def gone(crew: Crew, lane: Lane[str]) -> None:
    assert [name_of(item) for item in crew.lanes.take_waiting(lane)] == ["s2?"]
    crew.lanes.remove(lane)


def retired(crew: Crew, lane: Lane[str]) -> None:
    assert lane.worker is not None
    crew.lanes.retire(lane.worker.slot)


@pytest.mark.parametrize("why", [held, gone, retired])
def test_no_worker_is_kept_for_who_cannot_come(why: Any) -> None:
    crew = Crew(workers=3)
    lane, left, right = suspect(crew)
    why(crew, lane)
    crew.pump()
    assert left.reserved is None
    assert right.reserved is (lane if why is retired else None)


def test_a_suspect_that_is_to_run_again_later_leaves_its_worker_to_others() -> None:
    crew = Crew()
    lane = crew.lane("s")
    crew.lanes.lost(0, 1, [lane.numbers[0], 99])
    worker = crew.ready(0)
    crew.given()
    assert worker.reserved is lane
    crew.lanes.give_back(lane)
    assert worker.reserved is None
    crew.lanes.hold(lane)
    crew.lane("x")
    assert crew.names() == ["x"]
    crew.lanes.release(lane)
    crew.pump()
    assert crew.names() == ["s3"], "it was not to blame"


def test_a_suspect_runs_beside_what_merely_waits_and_is_charged_with_a_repeat() -> None:
    crew = Crew()
    poll, killer = crew.lane("p"), crew.lane("k")
    assert crew.lost(crew.workers[0], poll, killer) == []
    for generation in (2, 3, 4):
        crew.given()
        worker = crew.ready(0, generation)
        assert crew.names() == [f"p{generation}" + "?" * (generation == 2)]
        crew.go_on(worker, 1)
        assert crew.names() == [f"k{generation}?"]
        poisoned = crew.lost(worker, poll, killer)
    assert poisoned == ["k5?"], "its first death was nobody's"
    crew.ready(0, 5)
    assert crew.names() == ["p5"], "it was there by chance, each time"


def test_suspects_that_go_on_one_after_the_other_run_side_by_side() -> None:
    crew = Crew(credit=2)
    lanes = [crew.lane("a"), crew.lane("b")]
    crew.go_on(crew.workers[0], 2)
    lanes += [crew.lane("c"), crew.lane("d")]
    crew.lost(crew.workers[0], *lanes)
    crew.given()
    worker = crew.ready(0)
    for waiting, name in enumerate(("a2?", "b2?", "c2?", "d2?"), 1):
        assert crew.names() == [name]
        crew.go_on(worker, waiting)
    assert worker.reserved is None
    assert [name_of(item) for lane in lanes for item in lane.inflight] == ["a2", "b2", "c2", "d2"]


def test_a_suspect_has_not_gone_on_while_only_others_do() -> None:
    crew = Crew(workers=2)
    poll, *rest = (crew.lane(name) for name in "pabcd")
    left, right = crew.workers
    dead, other = (right, left) if poll.worker is left else (left, right)
    crew.go_on(other, 1)
    for lane in rest:
        if lane.worker is other:
            crew.completed(lane)
    crew.lost(dead, *(lane for lane in rest if lane.worker is dead))
    suspect = other.reserved
    assert suspect in rest
    crew.go_on(other, 1)
    assert other.reserved is suspect
    crew.go_on(other, 2)
    assert other.reserved is not suspect


# what merely waits


def test_what_waits_takes_nobody_s_room() -> None:
    crew = Crew(credit=2)
    (worker,) = crew.workers
    crew.lane("a" * (2 << 20))
    assert worker.room == 0, "too many bytes"
    crew.go_on(worker, 1, 2 << 20)
    assert worker.room == 2
    crew.lane("b")
    crew.lane("c")
    assert worker.room == 0
    crew.go_on(worker, 3, 2 << 20)
    assert worker.room == 1, "it holds at most as much again"


def test_what_waits_makes_no_worker_look_busy() -> None:
    crew = Crew(workers=2, credit=64)
    left, right = crew.workers
    for _ in range(20):
        crew.lane("w")
    crew.go_on(left, left.held)
    crew.go_on(right, right.held)
    busy = [crew.lane("b") for _ in range(3)]
    where = [lane.worker for lane in busy]
    assert where.count(left) in (1, 2)
    crew.go_on(right, right.held)
    before = left.busy_with
    crew.lane("c")
    assert (left.busy_with, right.busy_with) == (before, 1)


def test_what_cannot_be_taken_back_is_asked_for_once() -> None:
    crew = Crew()
    (left,) = crew.workers
    crew.lane("a", "b", "c")
    crew.go_on(left, 1)
    crew.ready(1)
    assert crew.lanes.stalled() == [left]
    crew.lanes.recall(left)
    assert crew.lanes.take_back(left, begun=3) == 0
    crew.lanes.resume(left, stopped_at=4)
    assert crew.lanes.stalled() == [], "they wait behind the first, and have begun"
    crew.lane("d")
    crew.lane("e")
    assert crew.lanes.stalled() == ([left] if left.number > 3 else [])


# run again


def test_what_is_given_back_comes_before_what_was_behind_it() -> None:
    crew = Crew()
    lane, other = crew.lane("a", "b"), crew.lane("x")
    crew.lanes.hold(lane)
    crew.lanes.give_back(lane)
    crew.put(lane, "c")
    assert (lane.inflight, lane.numbers, crew.workers[0].held) == ([], [], 1)
    crew.given()
    crew.put(other, "y")
    assert crew.names() == ["y"]
    crew.lanes.release(lane)
    crew.pump()
    assert crew.names() == ["a2", "b", "c"]
    assert crew.workers[0].held_bytes == 5


def test_to_run_again_is_no_death() -> None:
    crew = Crew(max_attempts=2)
    lane = crew.lane("a")
    for _ in range(5):
        crew.lanes.give_back(lane)
        crew.pump()
    assert crew.lost(crew.workers[0], lane) == []
    crew.given()
    worker = crew.ready(0)
    assert crew.names() == ["a7"]
    assert crew.lost(worker, lane) == ["a8"]


# taken back


def test_what_is_not_begun_goes_to_who_is_idle() -> None:
    crew = Crew()
    (left,) = crew.workers
    a, b = crew.lane("a", "b"), crew.lane("c", "d")
    assert crew.lanes.stalled() == [], "nobody is idle"
    crew.ready(1)
    assert crew.lanes.stalled() == [left]
    crew.lanes.recall(left)
    assert crew.lanes.stalled() == []
    crew.given()
    assert crew.lanes.take_back(left, begun=1) == 3
    crew.pump()
    assert crew.given() == [(1, "c"), (1, "d")]
    assert (a.inflight, a.redo, left.held) == (["a"], ["b"], 1)
    crew.lanes.resume(left, stopped_at=2)
    crew.pump()
    assert crew.given() == [(0, "b")]
    assert (a.numbers, b.numbers) == ([1, 5], [1, 2])


def test_what_had_said_that_it_began_and_stopped_is_taken_back_at_last() -> None:
    crew = Crew()
    (left,) = crew.workers
    lane = crew.lane("a", "b", "c")
    crew.lanes.recall(left)
    assert crew.lanes.take_back(left, begun=2) == 1
    crew.put(lane, "d")
    crew.given()
    crew.lanes.resume(left, stopped_at=2)
    crew.pump()
    assert crew.names() == ["b", "c", "d"]


def test_a_worker_that_is_recalled_gets_nothing() -> None:
    crew = Crew()
    crew.lanes.recall(crew.workers[0])
    crew.lane("a")
    assert crew.given() == []


def test_what_is_taken_back_from_a_worker_that_dies_then_keeps_its_order() -> None:
    crew = Crew()
    lane = crew.lane("a", "b", "c")
    crew.lanes.recall(crew.workers[0])
    crew.lanes.take_back(crew.workers[0], begun=1)
    crew.lost(crew.workers[0], lane)
    crew.given()
    crew.ready(0)
    assert crew.names() == ["a2", "b", "c"]


def test_what_is_taken_back_from_a_lane_that_runs_again_later_keeps_its_order() -> None:
    crew = Crew()
    lane = crew.lane("a", "b", "c", "d")
    crew.lanes.recall(crew.workers[0])
    crew.lanes.take_back(crew.workers[0], begun=2)
    crew.lanes.give_back(lane)
    crew.lanes.resume(crew.workers[0], stopped_at=2)
    crew.given()
    crew.pump()
    assert crew.names() == ["a2", "b", "c", "d"]


# waiting


def test_only_what_never_went_out_is_taken_from_the_queue() -> None:
    crew = Crew()
    lane = crew.lane("a", "b")
    crew.lost(crew.workers[0], lane)
    crew.put(lane, "c", "d")
    assert crew.lanes.take_queued(lane) == ["c", "d"]
    assert crew.lanes.take_queued(lane) == []
    assert (lane.queued, lane.waiting_bytes, lane.waits) == (0, 2, True)
    crew.given()
    crew.ready(0)
    assert crew.names() == ["a2", "b"]


def test_a_run_is_no_longer_than_the_room_of_whoever_gets_it() -> None:
    crew = Crew(workers=2, credit=8)
    left, right = crew.workers
    lane = crew.lane(*"abcdefg")
    other = crew.lane(*"12345678")
    assert (lane.worker, other.worker, left.room, right.room) == (left, right, 1, 0)
    crew.put(lane, *"hijklmno")
    crew.completed(other, 8)
    assert left.held == 7
    crew.completed(lane, 7)
    assert left.held == 8
    assert crew.names() == list("abcdefg12345678hijklmno")


def test_a_lane_that_is_removed_is_not_held_any_more() -> None:
    crew = Crew()
    lane = crew.lane("a")
    crew.lanes.hold(lane)
    crew.completed(lane)
    crew.lanes.remove(lane)
    assert (lane.held, lane.worker, crew.workers[0].lanes) == (False, None, set())
    crew.put(lane, "b")
    assert crew.names() == ["a", "b"]
