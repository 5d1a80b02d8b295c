"""DispatchQueue: priorities, turns and tokens; lanes that cannot run, and those that end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mpmsgr.dispatch.queue import DispatchQueue, PrioritizedQueue

LOW, DEFAULT, HIGH, HIGHEST = 64, 127, 196, 255
A, B, C, D = 1, 2, 3, 4


def filled(*entries: tuple[int, int, str]) -> DispatchQueue[int, str]:
    """A queue of (class, priority, item), without cost."""
    queue: DispatchQueue[int, str] = DispatchQueue()
    for cls, priority, item in entries:
        queue.put(cls, priority, 0, item)
    return queue


def several(*classes: int, count: int = 2) -> DispatchQueue[int, str]:
    """*count* items of each class, numbered, of the same priority."""
    return filled(*((cls, DEFAULT, f"{cls}.{i}") for i in range(count) for cls in classes))


def rest(queue: DispatchQueue[int, str]) -> str:
    """The items that are left, in the order they come."""
    items = []
    while entry := queue.get():
        items.append(entry[2])
    return " ".join(items)


def take(queue: DispatchQueue[int, str], *eligible: int) -> str | None:
    entry = queue.get(eligible.__contains__)
    return entry[2] if entry else None


# priorities and turns


def test_nothing_comes_from_an_empty_queue() -> None:
    queue = filled()
    assert queue.get() is None
    assert queue.get_run(5) is None
    assert len(queue) == 0


def test_an_item_comes_with_its_class_and_priority() -> None:
    queue = filled((A, HIGH, "a"), (B, 63, "b"))
    assert queue.get() == (A, HIGH, "a")
    assert queue.get() == (B, 63, "b")


def test_higher_priorities_come_first() -> None:
    queue = filled((A, LOW, "low"), (A, HIGHEST, "highest"), (B, DEFAULT, "default"), (A, 0, "0"))
    assert rest(queue) == "highest default low 0"


def test_low_is_the_lowest_of_the_strict_priorities() -> None:
    queue = filled((A, 63, "a"), (A, LOW, "b"), (A, 63, "c"), (A, LOW, "d"))
    queue.put_front(B, LOW, 0, "e")
    queue.put_front(B, 63, 0, "f")
    assert rest(queue) == "b e d a f c"


def test_a_message_of_the_highest_priority_passes_any_backlog() -> None:
    queue = several(A, B, count=5000)
    queue.put(A, HIGHEST, 0, "urgent")
    assert take(queue, A) == "urgent"


def test_within_a_priority_classes_take_turns() -> None:
    assert rest(several(C, A, B)) == "3.0 1.0 2.0 3.1 1.1 2.1", "the cursor was at 3"
    assert rest(several(A, B, C)) == "1.0 2.0 3.0 1.1 2.1 3.1"


def test_a_class_that_comes_later_takes_its_place_in_the_round() -> None:
    queue = several(A, C)
    assert take(queue, A, C) == "1.0"
    queue.put(B, DEFAULT, 0, "2.0")
    queue.put(D, DEFAULT, 0, "4.0")
    assert rest(queue) == "3.0 4.0 1.1 2.0 3.1"


def test_a_class_that_is_too_late_for_its_round_waits_for_the_next() -> None:
    queue = several(B, C)
    queue.get()
    queue.get()
    queue.put(D, DEFAULT, 0, "4.0")
    queue.put(A, DEFAULT, 0, "1.0")
    assert rest(queue) == "2.1 3.1 4.0 1.0"


def test_front_is_before_the_items_of_the_class_not_before_others() -> None:
    queue = several(A, B)
    queue.put_front(B, DEFAULT, 0, "again")
    assert rest(queue) == "1.0 again 1.1 2.0 2.1"
    queue = filled((A, 63, "weighted"))
    queue.put_front(A, 63, 0, "again")
    assert rest(queue) == "again weighted"


# tokens


def priorities(queue: DispatchQueue[int, str], count: int) -> list[int]:
    """Of the next so many items."""
    entries = [queue.get() for _ in range(count)]
    return [entry[1] for entry in entries if entry]


def test_weighted_priorities_share_by_weight() -> None:
    queue: DispatchQueue[int, str] = DispatchQueue()
    for _ in range(1000):
        queue.put(A, 10, 1 << 20, "")
        queue.put(B, 30, 1 << 20, "")
    # The first one finds no tokens: it goes because nothing else can, and brings them.
    assert Counter(priorities(queue, 401)) == {10: 100, 30: 301}


def test_the_cost_of_a_message_counts() -> None:
    queue: DispatchQueue[int, str] = DispatchQueue()
    for _ in range(1000):
        queue.put(A, 20, 4 << 20, "")
        queue.put(B, 20 + 1, 1 << 20, "")
    taken = Counter(priorities(queue, 500))
    assert taken[21] == pytest.approx(4 * taken[20], rel=0.1)


def test_small_messages_cost_something_too() -> None:
    queue: DispatchQueue[int, str] = DispatchQueue(min_cost=1000)
    for _ in range(1000):
        queue.put(A, 20, 0, "")
        queue.put(B, 40, 1000, "")
    assert Counter(priorities(queue, 301)) == {20: 100, 40: 201}


def test_what_costs_all_tokens_there_can_be_goes_when_nothing_else_can() -> None:
    queue: DispatchQueue[int, str] = DispatchQueue(max_tokens=1000, min_cost=1)
    for _ in range(100):
        queue.put(A, 10, 5000, "")
        queue.put(B, 30, 999, "")
    assert priorities(queue, 101) == [30] * 100 + [10]


def test_strict_comes_before_weighted_and_costs_it_nothing() -> None:
    plain, mixed = filled(), filled()
    for queue in (plain, mixed):
        for _ in range(50):
            queue.put(A, 10, 1 << 20, "")
            queue.put(B, 30, 1 << 20, "")
    taken = []
    for _ in range(100):
        mixed.put(C, DEFAULT, 1 << 20, "")
        assert priorities(mixed, 1) == [DEFAULT]
        taken += priorities(mixed, 1)
    assert taken == priorities(plain, 100)


def test_a_priority_of_zero_is_one() -> None:
    queue = filled((A, 0, "a"), (B, 0, "b"))
    assert rest(queue) == "a b"


# classes that cannot run


def test_a_class_passed_over_is_asked_first_next_time() -> None:
    queue = several(A, B, C)
    assert take(queue, B, C) == "2.0"
    assert take(queue, B, C) == "3.0", "not 2 again"
    assert take(queue, A, B, C) == "1.0", "it was owed"
    assert rest(queue) == "2.1 3.1 1.1", "one turn; its next comes in the next round"


def test_those_passed_over_come_in_the_order_of_their_turns() -> None:
    queue = several(A, B, C, D, count=3)
    assert take(queue, C, D) == "3.0"
    assert take(queue, D) == "4.0"
    queue.put(0, DEFAULT, 0, "0.0")
    assert rest(queue).startswith("1.0 2.0 3.1 4.1 0.0 1.1")


def test_where_nobody_can_run_nothing_changes() -> None:
    queue = several(B, C)
    queue.get()
    queue.put(A, 20, 0, "1.0")
    assert take(queue) is None
    assert len(queue) == 4
    assert rest(queue) == "3.0 2.1 3.1 1.0"


def test_a_lower_priority_goes_on_where_the_higher_one_cannot() -> None:
    queue = filled((A, HIGH, "a"), (B, DEFAULT, "b"), (C, 10, "c"), (B, 20, "d"))
    assert take(queue, B, C) == "b"
    assert take(queue, C) == "c"
    assert take(queue, B, C) == "d"
    assert rest(queue) == "a"


def test_a_sub_queue_that_cannot_run_loses_no_tokens() -> None:
    queue: DispatchQueue[int, str] = DispatchQueue()
    for _ in range(500):
        queue.put(A, 10, 1 << 20, "")
        queue.put(B, 30, 1 << 20, "")
    for _ in range(40):
        assert take(queue, B) == ""
    # A quarter of what each of the others cost, then of its own: 10 / (1 - 1/4).
    assert priorities(queue, 14) == [10] * 13 + [30]


def test_an_error_of_whom_it_asks_leaves_everything_in_place() -> None:
    queue = several(A, B)

    def fails_at_b(cls: int) -> bool:
        if cls == B:
            raise LookupError
        return False

    with pytest.raises(LookupError):
        queue.get(fails_at_b)
    assert rest(queue) == "1.0 2.0 1.1 2.1"


# parking


def test_nothing_is_taken_of_a_parked_class() -> None:
    queue = several(A, B)
    queue.park(A)
    queue.put(A, HIGHEST, 0, "later")
    queue.put(A, 10, 0, "weighted")
    assert rest(queue) == "2.0 2.1"
    assert (len(queue), queue.pending(A), queue.has(A)) == (4, 4, True)
    queue.unpark(A)
    assert rest(queue) == "later 1.0 1.1 weighted"


def test_a_class_may_be_parked_before_it_has_anything() -> None:
    queue = filled()
    queue.park(A)
    queue.put(A, DEFAULT, 0, "a")
    assert queue.get() is None
    queue.unpark(A)
    assert rest(queue) == "a"


def test_a_parked_class_keeps_its_turn() -> None:
    queue = several(A, B, C, count=3)
    queue.park(B)
    assert take(queue, A, C) == "1.0"
    queue.unpark(B)
    assert take(queue, A, B, C) == "2.0", "it was back in time"
    queue.park(A)
    assert take(queue, A, B, C) == "3.0"
    assert take(queue, A, B, C) == "2.1"
    queue.unpark(A)
    assert rest(queue) == "1.1 3.1 1.2 2.2 3.2", "it is owed one"


def test_who_was_parked_after_its_turn_does_not_go_before_others() -> None:
    queue = several(A, B, count=3)
    assert take(queue, A, B) == "1.0"
    queue.park(A)
    queue.unpark(A)
    assert rest(queue) == "2.0 1.1 2.1 1.2 2.2"


def test_to_park_twice_or_unpark_for_nothing_is_harmless() -> None:
    queue = several(A, B)
    queue.unpark(A)
    queue.park(A)
    queue.park(A)
    queue.unpark(A)
    queue.unpark(A)
    assert rest(queue) == "1.0 2.0 1.1 2.1"


def test_who_is_parked_when_refused_is_asked_once() -> None:
    """A thousand blocked lanes cost one question each, not one per message taken."""
    queue = several(*range(1000), count=3)
    asked: list[int] = []

    def eligible(cls: int) -> bool:
        asked.append(cls)
        if cls < 999:
            queue.park(cls)
        return cls == 999

    assert [queue.get(eligible) for _ in range(4)] == [
        *((999, DEFAULT, f"999.{i}") for i in range(3)),
        None,
    ]
    assert asked == [*range(1000), 999, 999]
    for cls in range(999):
        queue.unpark(cls)
    assert [entry[0] for entry in iter(queue.get, None)] == [*range(999)] * 3


# runs


def test_a_run_is_of_one_class_and_priority_and_takes_one_turn() -> None:
    queue = several(A, B, count=4)
    queue.put(A, HIGH, 0, "high")
    assert queue.get_run(3) == (A, HIGH, ["high"])
    assert queue.get_run(3) == (A, DEFAULT, ["1.0", "1.1", "1.2"])
    assert queue.get_run(4) == (B, DEFAULT, ["2.0", "2.1", "2.2", "2.3"])
    assert queue.get_run(1, {B}.__contains__) is None
    assert queue.get_run(9, {A}.__contains__) == (A, DEFAULT, ["1.3"])
    assert len(queue) == 0


def test_weighted_items_come_alone() -> None:
    queue = filled((A, 20, "a"), (A, 20, "b"))
    assert queue.get_run(9) == (A, 20, ["a"])
    assert queue.get_run(9) == (A, 20, ["b"])


def test_a_run_of_urgent_ones_only() -> None:
    queue = filled((A, 20, "a"), (A, HIGH, "h"), (B, HIGHEST, "b"), (B, 1 << 17, "c"))
    assert queue.get_run(9, least=HIGHEST) == (B, 1 << 17, ["c"])
    assert queue.get_run(9, {A}.__contains__, HIGHEST) is None
    assert queue.get_run(9, least=HIGHEST) == (B, HIGHEST, ["b"])
    assert queue.get_run(9, least=HIGHEST) is None
    assert [entry[2] for entry in iter(queue.get, None)] == ["h", "a"]


# discarding


def test_what_is_discarded_is_returned_the_most_urgent_first() -> None:
    queue = several(A, B)
    for priority in (0, 63, HIGHEST):
        queue.put(A, priority, 0, str(priority))
    assert queue.discard(A) == ["255", "1.0", "1.1", "63", "0"]
    assert queue.discard(A) == []
    assert rest(queue) == "2.0 2.1"


def test_discarding_the_class_at_the_cursor_moves_it_on() -> None:
    queue = several(A, B, C)
    queue.get()
    queue.discard(B)
    assert rest(queue) == "3.0 1.1 3.1"


def test_a_parked_class_is_discarded_and_stays_parked() -> None:
    queue = several(A, B)
    queue.park(A)
    assert queue.discard(A) == ["1.0", "1.1"]
    queue.put(A, DEFAULT, 0, "new")
    assert rest(queue) == "2.0 2.1"
    queue.unpark(A)
    assert rest(queue) == "new"


# counting


def test_counts() -> None:
    queue = filled((A, DEFAULT, ""), (A, 10, ""), (B, HIGH, ""))
    assert len(queue) == 3
    assert (queue.pending(A), queue.pending(B), queue.pending(C)) == (2, 1, 0)
    assert (queue.has(A), queue.has(C), set(queue.classes())) == (True, False, {A, B})
    queue.get()
    assert (queue.has(B), set(queue.classes())) == (False, {A})


def test_a_peer_that_uses_all_priorities_leaves_nothing_behind() -> None:
    queue: PrioritizedQueue[int, Any] = PrioritizedQueue()
    for priority in range(1000):
        queue.enqueue_strict(A, priority, priority)
        queue.enqueue(A, priority, 0, priority)
    for _ in range(2000):
        queue.dequeue()
    assert len(queue) == len(queue.classes()) == 0
    assert len(queue._strict.by_priority) < 10
    assert len(queue._weighted.by_priority) == 0
