"""How much may be held at a time, and who waits for some of it (dispatch spec §2)."""

from __future__ import annotations

from typing import Generic, TypeVar

W = TypeVar("W")


class Throttle(Generic[W]):
    """A counter with a maximum and a FIFO of waiters, any hashable objects.

    max: 0 disables it: all calls succeed, nothing is counted. reserve: the last so much of max is
    for urgent requests only, which also wait before all others: whoever floods without being urgent
    cannot make them starve (the other way round it can happen: be sparing with `urgent`).

    Whoever gives something back learns which waiters go on by it; they have got their amounts.
    Public: current, the amount held; full_count, how many requests could not be met at once.
    """

    __slots__ = ("_ordinary", "_urgent", "current", "full_count", "max", "reserve")

    def __init__(self, max: int, reserve: int = 0) -> None:
        self.max = max
        self.reserve = reserve
        self.current = 0
        self.full_count = 0
        self._urgent: dict[W, int] = {}
        self._ordinary: dict[W, int] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._urgent) + len(self._ordinary)

    @property
    def past_midpoint(self) -> bool:
        """Is half of the maximum held? Never, if disabled."""
        return self.max != 0 and self.current >= self.max // 2

    def limit(self, urgent: bool) -> int:
        """How much may be held before the next request has to wait."""
        return self.max if urgent else max(self.max - self.reserve, 0)

    def is_full(self, urgent: bool = False) -> bool:
        """Would a request for nothing have to wait: is there too much held, or someone ahead?"""
        return self._is_someone_ahead(urgent) or self.must_wait(0, urgent)

    def _is_someone_ahead(self, urgent: bool) -> bool:
        return bool(self._urgent or (self._ordinary and not urgent))

    def must_wait(self, amount: int, urgent: bool = False) -> bool:
        """Is there no room for *amount*?

        More than the maximum passes when there is no more than the maximum held: a single huge
        message must not wait for ever.
        """
        if not self.max:
            return False
        limit = self.limit(urgent)
        if amount <= limit and self.current + amount > limit:
            return True
        return amount >= limit and self.current > limit

    def get(self, amount: int, waiter: W, urgent: bool = False) -> bool:
        """Take *amount* if there is room and nobody is ahead. If not, *waiter* waits for it.

        Raises ValueError if *waiter* waits already.
        """
        if self.get_or_fail(amount, urgent):
            return True
        if waiter in self._urgent or waiter in self._ordinary:
            raise ValueError(f"{waiter!r} waits already")
        (self._urgent if urgent else self._ordinary)[waiter] = amount
        return False

    def get_or_fail(self, amount: int, urgent: bool = False) -> bool:
        """Take *amount*; False if there is no room or someone is ahead."""
        if self._is_someone_ahead(urgent) or self.must_wait(amount, urgent):
            self.full_count += 1
            return False
        self.take(amount)
        return True

    def take(self, amount: int) -> None:
        """Take *amount*, room or not."""
        if self.max:
            self.current += amount

    def put(self, amount: int) -> list[W]:
        """Give *amount* back; returns the waiters that go on."""
        self.give_back(amount)
        return self.go_on()

    def give_back(self, amount: int) -> None:
        """The same, but who goes on by it is for `go_on` to say."""
        self.current = max(self.current - amount, 0)

    def reset_max(self, max: int) -> list[W]:
        """Set a new maximum; returns the waiters that go on."""
        self.max = max
        return self.go_on()

    def leave(self, waiter: W) -> list[W]:
        """*waiter* waits no more, if it did; returns those that go on, since it was in the way."""
        self._urgent.pop(waiter, None)
        self._ordinary.pop(waiter, None)
        return self.go_on()

    def go_on(self) -> list[W]:
        """Give the first waiters what they wait for, as far as there is room."""
        gone: list[W] = []
        while self._urgent or self._ordinary:
            queue = self._urgent or self._ordinary
            waiter, amount = next(iter(queue.items()))
            if self.must_wait(amount, queue is self._urgent):
                break
            del queue[waiter]
            self.take(amount)
            gone.append(waiter)
        return gone
