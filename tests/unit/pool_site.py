"""Where a plugin of a test runs: in a worker that can die, or in the process of the sockets."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NoReturn

from mpmsgr import Dispatcher
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.handlers import FunctionDispatcher

#: The functions with @handles and @every, or dispatchers, of one process.
Plugin = Callable[["Site"], Iterable[Any]]


class DeathError(BaseException):
    """Ends what runs in a worker that is dead."""


class Site:
    """Where a plugin runs. name: slot.generation of the worker, or "local"; on_busy: called when
    the worker has sent something in the midst of a batch; errors: of the worker's own.
    """

    def __init__(self, name: str, kill: Callable[[], object] | None = None) -> None:
        self.name = name
        self.on_busy: Callable[[], None] = lambda: None
        self.errors: list[BaseException | None] = []
        self._kill = kill

    def die(self) -> NoReturn:
        """End the worker here and now, as SIGKILL would."""
        assert self._kill is not None
        self._kill()
        raise DeathError(self.name)

    def broken(self) -> None:
        """See `Runtime`: called in the handling of an error, which may be a death that is meant."""
        error = sys.exception()
        if not isinstance(error, DeathError):
            self.errors.append(error)

    async def hang(self) -> NoReturn:
        """Run until the worker dies."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")


def dispatcher_of(things: Iterable[Any], name: str = "plugin") -> Dispatcher:
    """The dispatcher that is in *things*, or made of the functions in them."""
    listed = list(things)
    if isinstance(listed[0], Dispatcher):
        return listed[0]
    module = ModuleType(name)
    for i, function in enumerate(listed):
        setattr(module, f"f{i}", function)
    return FunctionDispatcher(module, {})


def chain_of(things: Iterable[Any]) -> Chain:
    """A chain of the dispatchers in *things*, and of one made of the functions in them."""
    listed = list(things)
    dispatchers = [thing for thing in listed if isinstance(thing, Dispatcher)]
    functions = [thing for thing in listed if not isinstance(thing, Dispatcher)]
    chain = Chain()
    for dispatcher in dispatchers + ([dispatcher_of(functions)] if functions else []):
        chain.add_tail(dispatcher)
    return chain
