"""Messages that are handed out again, and why."""

from __future__ import annotations

from collections.abc import Sized
from typing import Generic, TypeVar

T = TypeVar("T", bound=Sized)


class Again(Generic[T]):
    """An item that had begun and was not completed.

    attempt: how often it will have begun, with the next time; deaths: of workers that it was
    charged with; alone: it is under suspicion, for it was running when a worker died, but not the
    only one: it runs alone next time, and a repeat charges it.
    """

    __slots__ = ("alone", "attempt", "deaths", "item")

    def __init__(self, item: T, attempt: int, deaths: int, *, alone: bool) -> None:
        self.item, self.attempt, self.deaths, self.alone = item, attempt, deaths, alone

    def __len__(self) -> int:
        return len(self.item)

    def __repr__(self) -> str:
        return f"<Again {self.attempt}, {self.deaths} deaths: {self.item!r:.40}>"


def charged(item: T | Again[T], *, death: bool = True) -> Again[T]:
    """*item*, which began once more; *death*: its worker died of it."""
    if isinstance(item, Again):
        return Again(item.item, item.attempt + 1, item.deaths + death, alone=False)
    return Again(item, 2, int(death), alone=False)


def suspected(item: T | Again[T]) -> Again[T]:
    """*item*, which began once more, and its worker died, perhaps of another one."""
    again = charged(item, death=False)
    again.alone = True
    return again
