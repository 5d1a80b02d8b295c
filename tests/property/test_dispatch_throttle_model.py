"""The throttle against a naive one, written from the spec's text, in any history."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mpmsgr.dispatch.throttle import Throttle


class Naive:
    """The table of spec §2; a waiter that is woken and has no need to wait takes and leaves."""

    def __init__(self, max: int, reserve: int) -> None:
        self.max, self.reserve = max, reserve
        self.current = 0
        self.queue: list[tuple[str, int, bool]] = []

    def must_wait(self, c: int, urgent: bool) -> bool:
        # The reserve does not exist for a request that is not urgent.
        m = self.max if urgent else max(self.max - self.reserve, 0)
        cur = self.current
        return self.max != 0 and ((c <= m and cur + c > m) or (c >= m and cur > m))

    def ahead(self, urgent: bool) -> bool:
        return any(other or not urgent for _, _, other in self.queue)

    def get(self, c: int, waiter: str, urgent: bool) -> bool:
        if self.get_or_fail(c, urgent):
            return True
        self.queue.append((waiter, c, urgent))
        return False

    def get_or_fail(self, c: int, urgent: bool) -> bool:
        if self.must_wait(c, urgent) or self.ahead(urgent):
            return False
        self.take(c)
        return True

    def take(self, c: int) -> None:
        self.current += c if self.max else 0

    def put(self, c: int) -> list[str]:
        self.current = max(self.current - c, 0)
        return self.wake() if c else []

    def reset_max(self, max: int) -> list[str]:
        self.max = max
        return self.wake()

    def leave(self, waiter: str) -> list[str]:
        self.queue = [entry for entry in self.queue if entry[0] != waiter]
        return self.wake()

    def wake(self) -> list[str]:
        for entry in sorted(self.queue, key=lambda entry: not entry[2])[:1]:
            waiter, c, urgent = entry
            if not self.must_wait(c, urgent):
                self.queue.remove(entry)
                self.take(c)
                return [waiter, *self.wake()]
        return []


Steps = list[tuple[Any, ...]]
amounts = st.integers(0, 12)
step = st.one_of(
    st.tuples(st.just("get"), amounts, st.sampled_from("abcdefgh"), st.booleans()),
    st.tuples(st.just("get"), amounts, st.sampled_from("abcdefgh"), st.booleans()),
    st.tuples(st.just("get_or_fail"), amounts, st.booleans()),
    st.tuples(st.just("must_wait"), amounts, st.booleans()),
    st.tuples(st.just("take"), amounts),
    st.tuples(st.just("put"), amounts),
    st.tuples(st.just("leave"), st.sampled_from("abcdefgh")),
    st.tuples(st.just("reset_max"), st.integers(0, 15)),
)
histories = st.lists(step, max_size=10) | st.lists(step, min_size=30, max_size=80)


@settings(max_examples=200)
@given(st.integers(0, 10), st.integers(0, 4), histories)
def test_it_does_what_the_table_says(max: int, reserve: int, steps: Steps) -> None:
    throttle: Throttle[str] = Throttle(max, reserve)
    naive = Naive(max, reserve)
    for kind, *arguments in steps:
        if kind == "get" and arguments[1] in [waiter for waiter, _, _ in naive.queue]:
            continue  # it does not wait twice
        assert getattr(throttle, kind)(*arguments) == getattr(naive, kind)(*arguments)
        assert (throttle.current, throttle.waiting) == (naive.current, len(naive.queue))
    assert not throttle.waiting or throttle.current, "nobody waits for nothing"


@given(
    st.integers(1, 10),
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.integers(0, 3)), max_size=40),
)
def test_no_more_is_held_than_the_maximum_and_one_request_on_top(
    max: int, reserve: int, requests: list[tuple[int, bool, int]]
) -> None:
    throttle: Throttle[int] = Throttle(max, reserve)
    held: list[int] = []
    for number, (amount, urgent, puts) in enumerate(requests):
        if throttle.get(amount, number, urgent):
            held.append(number)
        for _ in range(puts):
            if held:
                held += throttle.put(requests[held.pop(0)][0])
        sizes = [requests[number][0] for number in held]
        assert throttle.current == sum(sizes)
        assert throttle.current <= max or throttle.current - sizes[-1] <= max
    while held:
        held += throttle.put(requests[held.pop(0)][0])
    assert (throttle.current, throttle.waiting) == (0, 0), "everyone had a turn"
