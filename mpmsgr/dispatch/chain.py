"""The dispatchers of a messenger, in order (dispatch spec §5): the first taker wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher, Result

Callback = Callable[[Dispatcher, Connection], Result]

#: Per event: the callback, and whether True stops the chain.
CALLBACKS: dict[str, tuple[Callback, bool]] = {
    "connect": (lambda d, con: d.handle_connect(con), False),
    "accept": (lambda d, con: d.handle_accept(con), False),
    "remote_reset": (lambda d, con: d.handle_remote_reset(con), False),
    "reset": (lambda d, con: d.handle_reset(con), True),
    "refused": (lambda d, con: d.handle_refused(con), True),
}


class Chain:
    """An ordered list of dispatchers."""

    def __init__(self) -> None:
        self._dispatchers: list[Dispatcher] = []
        self._takers: dict[int, tuple[Dispatcher, ...]] = {}

    def __iter__(self) -> Iterator[Dispatcher]:
        return iter(self._dispatchers)

    def __len__(self) -> int:
        return len(self._dispatchers)

    def add_head(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* before all others."""
        self._dispatchers.insert(0, dispatcher)
        self._takers.clear()

    def add_tail(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* after all others."""
        self._dispatchers.append(dispatcher)
        self._takers.clear()

    def takers(self, type_: int) -> tuple[Dispatcher, ...]:
        """Dispatchers that may take messages of *type_*, in order."""
        takers = self._takers.get(type_)
        if takers is None:
            takers = tuple(
                d for d in self._dispatchers if not d.message_types or type_ in d.message_types
            )
            self._takers[type_] = takers
        return takers
