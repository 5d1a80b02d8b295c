"""Throttle: what passes, who waits, and who goes on when something is given back."""

from __future__ import annotations

import pytest

from mpmsgr.dispatch.throttle import Throttle


def holding(amount: int, max: int = 10, reserve: int = 0) -> Throttle[str]:
    throttle: Throttle[str] = Throttle(max, reserve)
    throttle.take(amount)
    return throttle


@pytest.mark.parametrize(
    ("held", "amount", "waits"),
    [
        (0, 9, False),
        (1, 9, False),
        (2, 9, True),
        (0, 10, False),
        (1, 10, True),
        (0, 11, False),
        (10, 11, False),  # it may come on top of what fits
        (11, 11, True),
        (11, 0, True),
        (10, 0, False),
    ],
)
def test_what_must_wait(held: int, amount: int, waits: bool) -> None:
    assert holding(held).must_wait(amount) is waits


def test_what_fits_is_taken_at_once() -> None:
    throttle = holding(4)
    assert throttle.get(6, "a")
    assert (throttle.current, throttle.waiting, throttle.full_count) == (10, 0, 0)


def test_those_who_wait_go_on_in_order_as_far_as_there_is_room() -> None:
    throttle = holding(10)
    assert not throttle.get(3, "a")
    assert not throttle.get(4, "b")
    assert not throttle.get(4, "c")
    assert (throttle.current, throttle.waiting, throttle.full_count) == (10, 3, 3)
    assert throttle.put(2) == []
    assert throttle.put(5) == ["a", "b"]
    assert (throttle.current, throttle.waiting) == (10, 1)
    assert throttle.put(10) == ["c"]
    assert throttle.current == 4


def test_nobody_overtakes_one_who_waits() -> None:
    throttle = holding(8)
    assert not throttle.get(5, "a")
    assert not throttle.must_wait(1)
    assert not throttle.get_or_fail(1)
    assert not throttle.get(1, "b")
    assert throttle.put(8) == ["a", "b"]


def test_one_who_leaves_lets_the_next_go_on() -> None:
    throttle = holding(8)
    throttle.get(5, "a")
    throttle.get(1, "b")
    throttle.get(1, "c")
    assert throttle.leave("b") == []
    assert throttle.leave("a") == ["c"]
    assert throttle.leave("a") == []
    assert (throttle.current, throttle.waiting) == (9, 0)


def test_get_or_fail_leaves_nobody_waiting() -> None:
    throttle = holding(10)
    assert not throttle.get_or_fail(1)
    assert (throttle.current, throttle.waiting, throttle.full_count) == (10, 0, 1)
    assert throttle.put(1) == []
    assert throttle.get_or_fail(1)


def test_one_waits_for_one_amount() -> None:
    throttle = holding(10)
    throttle.get(1, "a")
    with pytest.raises(ValueError, match="'a' waits already"):
        throttle.get(2, "a")
    with pytest.raises(ValueError, match="waits already"):
        throttle.get(2, "a", urgent=True)
    assert throttle.put(1) == ["a"]


def test_a_huge_message_does_not_wait_for_ever() -> None:
    throttle = holding(1)
    assert throttle.get(1000, "huge")
    assert not throttle.get(1, "small")
    assert not throttle.get(2000, "huger")
    assert throttle.put(1) == []
    assert throttle.put(1000) == ["small", "huger"]


def test_take_asks_nobody() -> None:
    throttle = holding(10)
    throttle.get(1, "a")
    throttle.take(5)
    assert throttle.current == 15
    assert throttle.put(5) == []
    assert throttle.put(1) == ["a"]


def test_less_than_nothing_is_never_held() -> None:
    throttle = holding(3)
    throttle.put(5)
    assert throttle.current == 0


def test_without_a_maximum_nothing_is_counted() -> None:
    throttle = holding(5, max=0)
    assert throttle.get(1 << 40, "a")
    assert throttle.get_or_fail(1 << 40)
    assert throttle.put(1) == []
    assert (throttle.current, throttle.full_count) == (0, 0)
    assert not throttle.past_midpoint


def test_a_new_maximum_lets_waiters_go_on() -> None:
    throttle = holding(10)
    throttle.get(5, "a")
    throttle.get(6, "b")
    assert throttle.reset_max(12) == []
    assert throttle.reset_max(15) == ["a"]
    assert throttle.reset_max(0) == ["b"]
    assert throttle.current == 15


def test_the_midpoint() -> None:
    throttle = holding(4)
    assert not throttle.past_midpoint
    throttle.take(1)
    assert throttle.past_midpoint


# the reserve


def test_the_last_of_it_is_for_urgent_requests() -> None:
    throttle = holding(7, reserve=3)
    assert not throttle.get(1, "flood")
    assert throttle.get(2, "monitor", urgent=True)
    assert throttle.get_or_fail(1, urgent=True)
    assert not throttle.get_or_fail(1, urgent=True)
    assert throttle.current == 10
    assert throttle.put(3) == []
    assert throttle.put(1) == ["flood"]


def test_an_urgent_request_goes_before_all_that_are_not() -> None:
    throttle = holding(10, reserve=3)
    throttle.get(1, "flood")
    throttle.get(5, "monitor", urgent=True)
    assert not throttle.get_or_fail(1)
    assert throttle.put(4) == []
    assert throttle.put(1) == ["monitor"]
    assert throttle.put(4) == ["flood"]


def test_urgent_requests_wait_in_order_too() -> None:
    throttle = holding(8, reserve=3)
    assert not throttle.get(5, "a", urgent=True)
    assert not throttle.get(1, "b", urgent=True)
    assert throttle.leave("a") == ["b"]


def test_one_that_is_not_urgent_may_be_larger_than_what_it_may_use() -> None:
    throttle = holding(7, reserve=3)
    assert throttle.get(8, "large")
    assert not throttle.get(8, "next")
    assert throttle.put(7) == []
    assert throttle.put(1) == ["next"]


def test_a_reserve_of_all_there_is_stops_nobody_for_ever() -> None:
    throttle = holding(1, max=2, reserve=5)
    assert not throttle.get(1, "a")
    assert throttle.put(1) == ["a"]


# by those who count themselves


def test_what_is_full() -> None:
    throttle = holding(10, reserve=3)
    assert (throttle.limit(urgent=False), throttle.limit(urgent=True)) == (7, 10)
    assert (throttle.is_full(), throttle.is_full(urgent=True)) == (True, False)
    throttle.current = 7
    assert not throttle.is_full()
    assert not throttle.get(1, "a")
    assert (throttle.is_full(), throttle.is_full(urgent=True)) == (True, False)
    assert not throttle.get(4, "b", urgent=True)
    assert throttle.is_full(urgent=True)


def test_a_disabled_one_is_never_full() -> None:
    assert not holding(100, max=0).is_full()


def test_what_is_given_back_is_there_for_those_who_are_asked_to_go_on() -> None:
    throttle = holding(10)
    assert not throttle.get(5, "a")
    throttle.give_back(8)
    assert (throttle.current, throttle.waiting) == (2, 1)
    assert throttle.go_on() == ["a"]
    assert throttle.current == 7
    throttle.give_back(8)
    assert throttle.current == 0
