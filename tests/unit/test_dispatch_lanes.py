"""Lanes: where a session's messages go, that they stay there, in order, within the credit."""

from __future__ import annotations

import itertools
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from mpmsgr.dispatch.attempts import Again
from mpmsgr.dispatch.lanes import Lane, Lanes, Worker

_ids = itertools.count(1)


class Item(int):
    """A message: a number, one byte long."""

    def __len__(self) -> int:
        return 1


def new_lane() -> Lane[Item]:
    return Lane(next(_ids))


def crew(workers: int = 2, credit: int = 100) -> Lanes[Item]:
    """Lanes over so many workers."""
    lanes: Lanes[Item] = Lanes(1 << 20, lambda item: (127, 1), lambda item: 0)
    for slot in range(workers):
        ready(lanes, slot, 1, credit)
    return lanes


def ready(lanes: Lanes[Item], slot: int, generation: int, credit: int) -> Worker:
    """A worker comes up that may hold so many messages."""
    worker = lanes.ready(slot, generation)
    worker.credit.messages = credit
    return worker


def put(lanes: Lanes[Item], lane: Lane[Item], *numbers: int) -> Worker | None:
    """What a pool does with messages that arrive: hand them out, or let them wait."""
    items = list(map(Item, numbers))
    worker = None if lanes.someone_waits else lanes.place(lane)
    if worker is None:
        lanes.wait(lane, items)
    else:
        lanes.hand_out(lane, items, len(items))
    return worker


def pump(lanes: Lanes[Item]) -> list[tuple[Lane[Item], list[int]]]:
    """Hand out what waits, as far as it goes."""
    out = []
    for lane, items in lanes.runnable():
        lanes.hand_out(lane, items, len(items))
        out.append((lane, numbers(items)))
    return out


def numbers(items: object) -> list[int]:
    """*items* without what is known of their attempts."""
    assert isinstance(items, list)
    return [item.item if isinstance(item, Again) else item for item in items]


# placement


def test_without_a_worker_everything_waits() -> None:
    lanes, lane = crew(0), new_lane()
    assert put(lanes, lane, 1, 2) is None
    assert put(lanes, lane, 3) is None
    assert lane.queued == 3
    worker = ready(lanes, 0, 1, 100)
    assert pump(lanes) == [(lane, [1, 2, 3])]
    assert (lane.worker, lane.inflight, lane.waits) == (worker, [1, 2, 3], False)


def test_new_lanes_spread_over_workers() -> None:
    lanes = crew(3)
    places = [put(lanes, new_lane(), 1) for _ in range(9)]
    assert [places.count(worker) for worker in lanes.workers.values()] == [3, 3, 3]


def test_idle_lanes_spread_too() -> None:
    lanes = crew(2)
    for _ in range(10):
        lane = new_lane()
        put(lanes, lane, 1)
        lanes.completed(lane, 1)
    assert [len(worker.lanes) for worker in lanes.workers.values()] == [5, 5]


def test_a_lane_stays_where_it_is() -> None:
    lanes, lane = crew(2), new_lane()
    home = put(lanes, lane, 1)
    for i in range(10):
        lanes.completed(lane, 1)
        assert put(lanes, lane, i) is home


def test_an_empty_lane_leaves_an_overloaded_worker() -> None:
    lanes, lane, busy = crew(2), new_lane(), new_lane()
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
    lanes, lane = crew(2), new_lane()
    home = put(lanes, lane, 1)
    assert home is not None
    lanes.completed(lane, 1)
    home.held = 15
    assert put(lanes, lane, 2) is home


def test_an_empty_lane_leaves_a_worker_that_is_full() -> None:
    lanes, lane, filler = crew(2, credit=1), new_lane(), new_lane()
    home = put(lanes, lane, 1)
    lanes.completed(lane, 1)
    assert home is not None
    lanes._move(filler, home)
    lanes.hand_out(filler, [Item(0)], 1)
    other = put(lanes, lane, 2)
    assert other is not None
    assert other is not home
    assert put(lanes, new_lane(), 3) is None, "now both are"


def test_no_lane_moves_to_a_worker_that_gets_nowhere() -> None:
    lanes = crew(workers=2)
    hung, busy, other = new_lane(), new_lane(), new_lane()
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
    lanes, lane = crew(1, credit=1000), new_lane()
    home = put(lanes, lane, *range(500))
    lanes.completed(lane, 500)
    assert home is not None
    home.held = 500
    assert put(lanes, lane, 1) is home


# credit


def test_a_worker_without_credit_gets_nothing_more() -> None:
    lanes, lane, late = crew(1, credit=3), new_lane(), new_lane()
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
    lanes, lane = crew(0), new_lane()
    lanes.wait(lane, list(map(Item, (1, 2, 3, 4, 5))))
    ready(lanes, 0, 1, 2)
    assert pump(lanes) == [(lane, [1, 2])]
    lanes.completed(lane, 2)
    assert pump(lanes) == [(lane, [3, 4])]
    lanes.completed(lane, 2)
    assert pump(lanes) == [(lane, [5])]
    assert pump(lanes) == []


def test_a_later_message_never_overtakes_one_that_waits() -> None:
    lanes, lane = crew(0), new_lane()
    put(lanes, lane, 1)
    ready(lanes, 0, 1, 100)
    assert put(lanes, lane, 2) is None, "before the pump ran"
    assert pump(lanes) == [(lane, [1, 2])]


def test_lanes_that_wait_take_turns() -> None:
    lanes = crew(0)
    first, second = new_lane(), new_lane()
    lanes.wait(first, [Item(1)])
    lanes.wait(second, [Item(2)])
    lanes.wait(first, [Item(3)])
    ready(lanes, 0, 1, 100)
    assert pump(lanes) == [(first, [1, 3]), (second, [2])]


# a worker's end


def test_a_lost_worker_gives_back_what_it_held() -> None:
    lanes, lane, idle, other = crew(2, credit=2), new_lane(), new_lane(), new_lane()
    put(lanes, lane, 1, 2)
    put(lanes, other, 7)
    put(lanes, idle, 8)
    lanes.completed(idle, 1)
    put(lanes, lane, 3)
    assert lane.worker is not None
    assert lane.worker is not other.worker
    lost, poisoned = lanes.lost(lane.worker.slot, 1)
    assert (lane in lost, other in lost, poisoned) == (True, False, [])
    assert (lane.inflight, lane.redo, lane.queued) == ([], [1, 2], 1)
    assert list(other.inflight) == [7]
    assert pump(lanes) == [(lane, [1])], "before what came later"
    assert lane.worker is other.worker, "the one that is left"
    lanes.completed(lane, 1)
    lanes.completed(other, 1)
    assert pump(lanes) == [(lane, [2]), (lane, [3])]


def test_a_worker_of_another_generation_is_not_lost() -> None:
    lanes, lane = crew(1), new_lane()
    put(lanes, lane, 1)
    assert lanes.lost(0, 2) == ([], [])
    assert lanes.lost(5, 1) == ([], [])
    assert list(lane.inflight) == [1]


def test_a_new_generation_starts_empty() -> None:
    lanes, lane = crew(1, credit=1), new_lane()
    put(lanes, lane, 1)
    lanes.lost(0, 1)
    new = ready(lanes, 0, 2, 1)
    assert new.held == 0
    assert pump(lanes) == [(lane, [1])]
    assert (new.held, new.generation, lane.numbers) == (1, 2, [1])


def test_a_worker_that_comes_late_takes_over_its_share() -> None:
    lanes = crew(1)
    (first,) = lanes.workers.values()
    numbered = [new_lane() for _ in range(10)]
    for lane in numbered:
        put(lanes, lane, 1)
    late = ready(lanes, 1, 1, 100)
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
    numbered = [new_lane() for _ in range(10)]
    for lane in numbered:
        put(lanes, lane, 1)
        lanes.completed(lane, 1)
    late = ready(lanes, 1, 1, 100)
    for lane in numbered[:5]:
        put(lanes, lane, 2)
    assert (first.held, late.held) == (2, 3)
    lanes.lost(1, 1)
    pump(lanes)  # what it held
    assert all(put(lanes, lane, 3) is first for lane in numbered), "nobody waits for a dead one"


def test_a_removed_lane_leaves_its_worker() -> None:
    lanes, lane, late = crew(1, credit=2), new_lane(), new_lane()
    put(lanes, lane, 1, 2)
    put(lanes, lane, 3)
    put(lanes, late, 9)
    assert numbers(lanes.take_waiting(lane)) == [3]
    lanes.completed(lane, 2)
    lanes.remove(lane)
    assert lanes.workers[0].held == 0
    assert lanes.workers[0].lanes == set()
    assert pump(lanes) == [(late, [9])]


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
    lanes, numbered = crew(0), [new_lane() for _ in range(6)]
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
                done = numbers(lanes.completed(lane, count)[0])
                assert done == [expected[which].popleft() for _ in done], "in order"
        elif kind == "lost" and which in lanes.workers:
            lanes.lost(which, lanes.workers[which].generation)
        elif kind == "ready" and which not in lanes.workers:
            generation += 1
            ready(lanes, which, generation, 5)
        pump(lanes)
        check(lanes, numbered, expected)


def check(lanes: Lanes[Item], numbered: list[Lane[Item]], expected: list[deque[int]]) -> None:
    for lane, queue in zip(numbered, expected, strict=True):
        known = numbers([*lane.inflight, *(lane.redo or [])])
        assert known == list(queue)[: len(known)]
        assert len(known) + lane.queued == len(queue)
        assert lane.worker is None or lane in lane.worker.lanes
        if lane.inflight:
            assert lane.worker in lanes.workers.values()
    for worker in lanes.workers.values():
        assert worker.held == sum(len(lane.inflight) for lane in worker.lanes)
    for lane in (lane for lane in numbered if lane.waits):
        home = [lane.worker] if lane.inflight and lane.worker else lanes.workers.values()
        assert all(2 * w.room <= w.credit.messages for w in home), "nobody waits for nothing"
