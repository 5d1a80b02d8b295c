"""The dispatchers of a messenger, in order (dispatch spec §5): the first taker wins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher, Result, Task
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handling import DEFAULT, Handling
from mpmsgr.errors import PluginError

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


#: Callbacks that whoever has the sockets calls in the midst of its work.
AT_ONCE = (
    "can_fast_dispatch_any",
    "handle_fast_connect",
    "handle_fast_accept",
    "fast_preprocess",
    "can_fast_dispatch",
    "fast_dispatch",
    "get_authorizer",
    "answer_challenge",
    "verify_reply",
    "verify_authorizer",
)


class Chain:
    """An ordered list of dispatchers. fast: those that dispatch fast, in the same order.

    Adding one raises PluginError if a callback is ``async def`` that cannot be (`AT_ONCE`).
    """

    def __init__(self) -> None:
        self.fast: list[Dispatcher] = []
        self._dispatchers: list[Dispatcher] = []
        self._takers: dict[int, tuple[tuple[Dispatcher, ...], Handling]] = {}

    def __iter__(self) -> Iterator[Dispatcher]:
        return iter(self._dispatchers)

    def __len__(self) -> int:
        return len(self._dispatchers)

    def add_head(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* before all others."""
        _check(dispatcher)
        self._dispatchers.insert(0, dispatcher)
        if dispatcher.can_fast_dispatch_any():
            self.fast.insert(0, dispatcher)
        self._forget()

    def add_tail(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* after all others."""
        _check(dispatcher)
        self._dispatchers.append(dispatcher)
        if dispatcher.can_fast_dispatch_any():
            self.fast.append(dispatcher)
        self._forget()

    def _forget(self) -> None:
        self._takers.clear()

    def takers(self, type_: int) -> tuple[Dispatcher, ...]:
        """Dispatchers that may take messages of *type_*, in order."""
        return self.plan(type_)[0]

    def handling(self, type_: int) -> Handling:
        """How messages of *type_* are handled: as the first dispatcher that may take them says.

        One that takes everything and says nothing of it is passed over.
        """
        return self.plan(type_)[1]

    def plan(self, type_: int) -> tuple[tuple[Dispatcher, ...], Handling]:
        """Both."""
        plan = self._takers.get(type_)
        if plan is None:
            takers = tuple(
                d for d in self._dispatchers if not d.message_types or type_ in d.message_types
            )
            plan = self._takers[type_] = takers, _handling(takers, type_)
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


def _handling(takers: Iterable[Dispatcher], type_: int) -> Handling:
    for dispatcher in takers:
        handling = dispatcher.handling(type_)
        if handling != DEFAULT or type_ in dispatcher.message_types:
            return handling
    return DEFAULT


def name_of(dispatcher: Dispatcher) -> str:
    """What to call *dispatcher* in a log."""
    return str(getattr(dispatcher, "name", type(dispatcher).__qualname__))


def overrides(dispatcher: Dispatcher, callback: str) -> bool:
    """Has *dispatcher* a *callback* of its own?"""
    return getattr(type(dispatcher), callback) is not getattr(Dispatcher, callback)


def _check(dispatcher: Dispatcher) -> None:
    for callback in AT_ONCE:
        if inspect.iscoroutinefunction(getattr(dispatcher, callback)):
            raise PluginError(name_of(dispatcher), f"{callback} is async: it has to answer at once")
