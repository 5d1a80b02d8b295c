"""Whose turn it is: round robin over classes, in which nobody loses a turn by being blocked."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any, Generic, Protocol, TypeVar


class Ordered(Protocol):
    """What a class key has to be, beside hashable."""

    def __lt__(self, other: Any, /) -> bool: ...


K = TypeVar("K", bound=Ordered)


class Turns(Generic[K]):
    """A ring of classes in ascending order and a cursor, the next turn (dispatch spec §4.2).

    A parked class is not in the ring, but keeps its turn. If the cursor went past that turn
    meanwhile, it is owed one when it comes back: before the ring, in the order they were missed.
    """

    # A turn is (round, class), and turns come in that order; the cursor only moves up.
    __slots__ = ("_at", "_kept", "_owed", "_ring", "_round")

    def __init__(self) -> None:
        self._ring: list[K] = []
        self._at = 0  # the cursor: an index of the ring, 0 if that is empty
        self._round = 0  # how often it went round
        self._owed: list[tuple[int, K]] = []  # turns, ascending
        self._kept: dict[K, int] = {}  # round of the turn of those not in the ring: parked or owed

    @property
    def ready(self) -> bool:
        """Is there a class that is not parked?"""
        return bool(self._ring or self._owed)

    @property
    def empty(self) -> bool:
        """Is there no class at all, parked ones included?"""
        return not (self._ring or self._kept)

    def next(self) -> K:
        """The class whose turn it is. There must be one that is ready."""
        return self._owed[0][1] if self._owed else self._ring[self._at]

    def taken(self) -> None:
        """The next class has had its turn."""
        if self._owed:
            self.add(self._paid())
        else:
            self._at += 1
            self._wrap()

    def finished(self) -> bool:
        """The next class has had its turn and is removed; is one left that is ready?"""
        if self._owed:
            self._paid()
        else:
            self._pull(self._at)
        return bool(self._ring or self._owed)

    def add(self, cls: K) -> None:
        """A new class: takes its place in the ring, the cursor stays where it is."""
        ring = self._ring
        if not ring:
            ring.append(cls)
            return
        at = bisect_left(ring, cls)
        ring.insert(at, cls)
        if at <= self._at:
            self._at += 1

    def add_parked(self, cls: K) -> None:
        """The same for a class that is parked as it comes."""
        self._kept[cls] = self._round + self._is_past(cls)

    def remove(self, cls: K) -> None:
        """Forget a class, parked or not."""
        if cls in self._kept:
            turn = self._kept.pop(cls), cls
            at = bisect_left(self._owed, turn)
            if self._owed[at : at + 1] == [turn]:
                del self._owed[at]
        else:
            self._pull(bisect_left(self._ring, cls))

    def park(self, cls: K) -> None:
        """Take a class that is not parked out of the ring. It keeps its turn."""
        if cls in self._kept:
            del self._owed[bisect_left(self._owed, (self._kept[cls], cls))]
        else:
            at = bisect_left(self._ring, cls)
            self._kept[cls] = self._round + (at < self._at)
            self._pull(at)

    def unpark(self, cls: K) -> None:
        """A parked class is back."""
        round_ = self._kept[cls]
        if round_ < self._round + self._is_past(cls):
            insort(self._owed, (round_, cls))
        else:
            del self._kept[cls]
            self.add(cls)

    def _paid(self) -> K:
        _, cls = self._owed.pop(0)
        del self._kept[cls]
        return cls

    def _is_past(self, cls: K) -> bool:
        """Is the cursor beyond the turn of *cls* in this round?"""
        return bool(self._ring) and cls < self._ring[self._at]

    def _pull(self, at: int) -> None:
        del self._ring[at]
        if at < self._at:
            self._at -= 1
        self._wrap()

    def _wrap(self) -> None:
        if self._at == len(self._ring):
            self._at = 0
            self._round += 1
