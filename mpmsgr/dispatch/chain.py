"""The dispatchers of a messenger, in order (dispatch spec §5): the first taker wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher, Result, Task
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handling import DEFAULT, Handling

Callback = Callable[[Dispatcher, Connection], Result]

#: Per event: the callback, and whether True stops the chain.
CALLBACKS: dict[str, tuple[Callback, bool]] = {
    "connect": (lambda d, con: d.handle_connect(con), False),
    "accept": (lambda d, con: d.handle_accept(con), False),
    "remote_reset": (lambda d, con: d.handle_remote_reset(con), False),
    "reset": (lambda d, con: d.handle_reset(con), True),
    "refused": (lambda d, con: d.handle_refused(con), True),
    "lane_moved": (lambda d, con: d.handle_lane_moved(con), False),
}


class Chain:
    """An ordered list of dispatchers."""

    def __init__(self) -> None:
        self._dispatchers: list[Dispatcher] = []
        self._takers: dict[int, tuple[tuple[Dispatcher, ...], Handling]] = {}

    def __iter__(self) -> Iterator[Dispatcher]:
        return iter(self._dispatchers)

    def __len__(self) -> int:
        return len(self._dispatchers)

    def add_head(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* before all others."""
        self._dispatchers.insert(0, dispatcher)
        self._forget()

    def add_tail(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* after all others."""
        self._dispatchers.append(dispatcher)
        self._forget()

    def _forget(self) -> None:
        self._takers.clear()

    def takers(self, type_: int) -> tuple[Dispatcher, ...]:
        """Dispatchers that may take messages of *type_*, in order."""
        return self.plan(type_)[0]

    def handling(self, type_: int) -> Handling:
        """How messages of *type_* are handled: as the first dispatcher that may take them says."""
        return self.plan(type_)[1]

    def plan(self, type_: int) -> tuple[tuple[Dispatcher, ...], Handling]:
        """Both."""
        plan = self._takers.get(type_)
        if plan is None:
            takers = tuple(
                d for d in self._dispatchers if not d.message_types or type_ in d.message_types
            )
            plan = self._takers[type_] = takers, takers[0].handling(type_) if takers else DEFAULT
        return plan

    def routes(self) -> dict[int, Handling]:
        """How the types are handled that dispatchers name, where it is not the ordinary way."""
        types = {type_ for d in self._dispatchers for type_ in d.message_types}
        routes = {type_: self.handling(type_) for type_ in types}
        return {type_: routes[type_] for type_ in sorted(types) if routes[type_] != DEFAULT}

    def every(self) -> list[Task]:
        """What is to be called regularly, of all dispatchers."""
        return [task for d in self._dispatchers for task in d.every()]

    def task(self, name: str) -> Callable[[Service], Any]:
        """The function to be called regularly that has *name*. KeyError: there is none."""
        return {task.name: task.function for task in self.every()}[name]
