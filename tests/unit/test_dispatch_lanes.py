"""Lanes: where a session's messages go, that they stay there, in order, within the credit."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from mpmsgr.dispatch.lanes import Lane, Lanes, Worker


def crew(workers: int = 2, credit: int = 100) -> Lanes[int]:
    """Lanes over so many workers."""
    lanes: Lanes[int] = Lanes()
    for slot in range(workers):
        lanes.ready(slot, 1, credit)
    return lanes


def put(lanes: Lanes[int], lane: Lane[int], *items: int) -> Worker | None:
    """What a pool does with messages that arrive: hand them out, or let them wait."""
    worker = None if lane.waiting else lanes.place(lane)
    if worker is None:
        lanes.wait(lane, list(items))
    else:
        lanes.hand_out(lane, list(items))
    return worker


def pump(lanes: Lanes[int]) -> list[tuple[Lane[int], list[int]]]:
    """Hand out what waits, as far as it goes."""
    out = []
    for lane, items in lanes.runnable():
        lanes.hand_out(lane, items)
        out.append((lane, items))
    return out


# placement


def test_without_a_worker_everything_waits() -> None:
    lanes, lane = crew(0), Lane[int]()
    assert put(lanes, lane, 1, 2) is None
    assert put(lanes, lane, 3) is None
    assert list(lane.waiting) == [1, 2, 3]
    worker = lanes.ready(0, 1, 100)
    assert pump(lanes) == [(lane, [1, 2, 3])]
    assert (lane.worker, list(lane.inflight), list(lane.waiting)) == (worker, [1, 2, 3], [])


def test_new_lanes_spread_over_workers() -> None:
    lanes = crew(3)
    places = [put(lanes, Lane[int](), 1) for _ in range(9)]
    assert [places.count(worker) for worker in lanes.workers.values()] == [3, 3, 3]


def test_idle_lanes_spread_too() -> None:
    lanes = crew(2)
    for _ in range(10):
        lane = Lane[int]()
        put(lanes, lane, 1)
        lanes.completed(lane, 1)
    assert [len(worker.lanes) for worker in lanes.workers.values()] == [5, 5]


def test_a_lane_stays_where_it_is() -> None:
    lanes, lane = crew(2), Lane[int]()
    home = put(lanes, lane, 1)
    for i in range(10):
        lanes.completed(lane, 1)
        assert put(lanes, lane, i) is home


def test_an_empty_lane_leaves_an_overloaded_worker() -> None:
    lanes, lane, busy = crew(2), Lane[int](), Lane[int]()
    home = put(lanes, lane, 1)
    put(lanes, busy, 0)
    other = busy.worker
    assert home is not None
    assert other is not None
    home.held += 50  # other lanes of its
    assert put(lanes, lane, 2) is home, "it has a message there: it stays"
    lanes.completed(lane, 2)
    assert put(lanes, lane, 3) is other
    assert (lane in home.lanes, lane in other.lanes) == (False, True)


def test_a_little_more_work_is_no_reason_to_move() -> None:
    lanes, lane = crew(2), Lane[int]()
    home = put(lanes, lane, 1)
    assert home is not None
    lanes.completed(lane, 1)
    home.held = 15
    assert put(lanes, lane, 2) is home


def test_an_empty_lane_leaves_a_worker_that_is_full() -> None:
    lanes, lane, filler = crew(2, credit=1), Lane[int](), Lane[int]()
    home = put(lanes, lane, 1)
    lanes.completed(lane, 1)
    assert home is not None
    lanes._move(filler, home)
    lanes.hand_out(filler, [0])
    other = put(lanes, lane, 2)
    assert other is not None
    assert other is not home
    assert put(lanes, Lane[int](), 3) is None, "now both are"


def test_no_lane_moves_to_a_worker_that_gets_nowhere() -> None:
    lanes = crew(workers=2)
    hung, busy, other = Lane[int](), Lane[int](), Lane[int]()
    hanging = put(lanes, hung, 1)
    working = put(lanes, busy, 2)
    assert hanging is not working
    for i in range(300):
        lanes.completed(busy, 1)
        put(lanes, busy, i)
    assert put(lanes, other, 3) is working
    for i in range(40):
        put(lanes, busy, i)
    lanes.completed(other, 1)
    assert put(lanes, other, 4) is working


def test_with_one_worker_nothing_moves() -> None:
    lanes, lane = crew(1, credit=1000), Lane[int]()
    home = put(lanes, lane, *range(500))
    lanes.completed(lane, 500)
    assert home is not None
    home.held = 500
    assert put(lanes, lane, 1) is home


# credit


def test_a_worker_without_credit_gets_nothing_more() -> None:
    lanes, lane, late = crew(1, credit=3), Lane[int](), Lane[int]()
    put(lanes, lane, 1, 2, 3)
    assert put(lanes, lane, 4) is None
    assert put(lanes, late, 9) is None
    assert pump(lanes) == []
    lanes.completed(lane, 1)
    assert pump(lanes) == [(lane, [4])]
    assert list(lane.inflight) == [2, 3, 4]
    lanes.completed(lane, 2)
    assert pump(lanes) == [(late, [9])]


def test_what_waits_goes_out_as_far_as_credit_reaches() -> None:
    lanes, lane = crew(0), Lane[int]()
    lanes.wait(lane, [1, 2, 3, 4, 5])
    lanes.ready(0, 1, 2)
    assert pump(lanes) == [(lane, [1, 2])]
    lanes.completed(lane, 2)
    assert pump(lanes) == [(lane, [3, 4])]
    lanes.completed(lane, 2)
    assert pump(lanes) == [(lane, [5])]
    assert pump(lanes) == []


def test_a_later_message_never_overtakes_one_that_waits() -> None:
    lanes, lane = crew(0), Lane[int]()
    put(lanes, lane, 1)
    lanes.ready(0, 1, 100)
    assert put(lanes, lane, 2) is None, "before the pump ran"
    assert pump(lanes) == [(lane, [1, 2])]


def test_lanes_that_wait_take_turns() -> None:
    lanes = crew(0)
    first, second = Lane[int](), Lane[int]()
    lanes.wait(first, [1])
    lanes.wait(second, [2])
    lanes.wait(first, [3])
    lanes.ready(0, 1, 100)
    assert pump(lanes) == [(first, [1, 3]), (second, [2])]


# a worker's end


def test_a_lost_worker_gives_back_what_it_held() -> None:
    lanes, lane, idle, other = crew(2, credit=2), Lane[int](), Lane[int](), Lane[int]()
    put(lanes, lane, 1, 2)
    put(lanes, other, 7)
    put(lanes, idle, 8)
    lanes.completed(idle, 1)
    put(lanes, lane, 3)
    assert lane.worker is not None
    assert lane.worker is not other.worker
    held = dict(lanes.lost(lane.worker.slot, 1))
    assert held == {lane: [1, 2]} | ({idle: []} if idle in held else {})
    assert (list(lane.inflight), list(lane.waiting)) == ([], [3])
    assert list(other.inflight) == [7]
    assert pump(lanes) == [(lane, [3])]
    assert lane.worker is other.worker, "the one that is left"


def test_a_worker_of_another_generation_is_not_lost() -> None:
    lanes, lane = crew(1), Lane[int]()
    put(lanes, lane, 1)
    assert lanes.lost(0, 2) == []
    assert lanes.lost(5, 1) == []
    assert list(lane.inflight) == [1]


def test_a_new_generation_starts_empty() -> None:
    lanes, lane = crew(1, credit=1), Lane[int]()
    put(lanes, lane, 1)
    lanes.lost(0, 1)
    new = lanes.ready(0, 2, 1)
    assert put(lanes, lane, 2) is new
    assert (new.held, new.generation) == (1, 2)


def test_a_worker_that_comes_late_takes_over_its_share() -> None:
    lanes = crew(1)
    (first,) = lanes.workers.values()
    numbered = [Lane[int]() for _ in range(10)]
    for lane in numbered:
        put(lanes, lane, 1)
    late = lanes.ready(1, 1, 100)
    assert put(lanes, numbered[0], 2) is first, "it has a message there"
    for lane in numbered:
        lanes.completed(lane, len(lane.inflight))
    places = []
    for lane in numbered * 2:
        places.append(put(lanes, lane, 2))
        lanes.completed(lane, 1)
    assert (len(first.lanes), len(late.lanes)) == (5, 5)
    assert places[:10] == places[10:], "once, then they stay"


def test_a_worker_that_comes_late_gets_no_more_to_do_than_the_others() -> None:
    lanes = crew(1)
    (first,) = lanes.workers.values()
    numbered = [Lane[int]() for _ in range(10)]
    for lane in numbered:
        put(lanes, lane, 1)
        lanes.completed(lane, 1)
    late = lanes.ready(1, 1, 100)
    for lane in numbered[:5]:
        put(lanes, lane, 2)
    assert (first.held, late.held) == (2, 3)
    lanes.lost(1, 1)
    assert all(put(lanes, lane, 3) is first for lane in numbered), "nobody waits for a dead one"


def test_a_removed_lane_gives_its_credit_back() -> None:
    lanes, lane, late = crew(1, credit=2), Lane[int](), Lane[int]()
    put(lanes, lane, 1, 2)
    put(lanes, lane, 3)
    put(lanes, late, 9)
    lanes.remove(lane)
    assert lanes.workers[0].held == 0
    assert lanes.workers[0].lanes == set()
    assert pump(lanes) == [(late, [9])]
    lanes.remove(lane)
    assert lanes.workers[0].held == 1


# all of it, in any order

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("complete"), st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("lost"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("ready"), st.integers(0, 2), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(_STEPS)
def test_order_and_counts_hold_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    lanes, numbered = crew(0), [Lane[int]() for _ in range(6)]
    expected: list[deque[int]] = [deque() for _ in numbered]
    generation, number = 0, 0
    for kind, which, count in steps:
        if kind == "put":
            items = list(range(number, number + count))
            number += count
            expected[which].extend(items)
            put(lanes, numbered[which], *items)
        elif kind == "complete":
            lane = numbered[which]
            count = min(count, len(lane.inflight))
            if count:
                done = lanes.completed(lane, count)
                assert done == [expected[which].popleft() for _ in done], "in order"
        elif kind == "lost" and which in lanes.workers:
            for lane, items in lanes.lost(which, lanes.workers[which].generation):
                queue = expected[numbered.index(lane)]
                assert items == [queue.popleft() for _ in items]
        elif kind == "ready" and which not in lanes.workers:
            generation += 1
            lanes.ready(which, generation, 5)
        pump(lanes)
        check(lanes, numbered, expected)


def check(lanes: Lanes[int], numbered: list[Lane[int]], expected: list[deque[int]]) -> None:
    for lane, queue in zip(numbered, expected, strict=True):
        assert [*lane.inflight, *lane.waiting] == list(queue)
        assert lane.worker is None or lane in lane.worker.lanes
        if lane.inflight:
            assert lane.worker in lanes.workers.values()
    for worker in lanes.workers.values():
        assert worker.held == sum(len(lane.inflight) for lane in worker.lanes)
    for lane in (lane for lane in numbered if lane.waiting):
        home = [lane.worker] if lane.inflight and lane.worker else lanes.workers.values()
        assert all(w.held >= w.credit for w in home), "nobody waits for nothing"
