"""Handlers as plain functions: @handles, @on_start, @on_stop, and the dispatcher made of them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher, Result
from mpmsgr.dispatch.payload import decode, reply_to, type_of
from mpmsgr.errors import PluginError
from mpmsgr.wire.message import Message

F = TypeVar("F", bound=Callable[..., Any])
Handler = Callable[[Connection, Message], Any]

_TYPES = "_mpmsgr_types"
_HOOK = "_mpmsgr_hook"


def handles(*types: int | type) -> Callable[[F], F]:
    """The function ``(con, m)`` handles messages of *types*: numbers or @message classes.

    What it returns is the reply: an instance of a @message class, a Message, or a plain value
    msgpack can hold; None is no reply. An exception is an error reply. ``async def`` works too.
    """
    if not types:
        raise TypeError("@handles needs at least one message type")
    numbers = tuple(type_of(t) for t in types)

    def mark(function: F) -> F:
        setattr(function, _TYPES, numbers)
        return function

    return mark


def is_handler(thing: object) -> bool:
    """Was *thing* marked with @handles?"""
    return hasattr(thing, _TYPES)


def on_start(function: F) -> F:
    """Call ``function()`` or ``function(options)`` when a process begins to use the module."""
    setattr(function, _HOOK, "start")
    return function


def on_stop(function: F) -> F:
    """Call ``function()`` when a process is done with the module."""
    setattr(function, _HOOK, "stop")
    return function


class FunctionDispatcher(Dispatcher):
    """The dispatcher made of a module's decorated functions; *options* go to its @on_start."""

    def __init__(self, module: ModuleType, options: Mapping[str, Any]) -> None:
        self.name = module.__name__
        self._options = dict(options)
        self._handlers: dict[int, Handler] = {}
        self._hooks: dict[str, list[Callable[..., Any]]] = {"start": [], "stop": []}
        for function in vars(module).values():
            self._add(function)
        self.message_types = frozenset(self._handlers)
        if not self._handlers:
            raise PluginError(
                self.name, "has neither functions with @handles nor one Dispatcher class"
            )

    def _add(self, function: Any) -> None:
        for number in getattr(function, _TYPES, ()):
            other = self._handlers.get(number)
            if other is not None and other is not function:
                names = f"{_name(other)} and {_name(function)}"
                raise PluginError(self.name, f"both {names} handle type {number:#x}")
            self._handlers[number] = function
        hook = getattr(function, _HOOK, None)
        if hook and callable(function):
            self._hooks[hook].append(function)

    @property
    def handlers(self) -> Mapping[int, Handler]:
        """The functions, by message type."""
        return self._handlers

    def dispatch(self, con: Connection, m: Message) -> Result:
        """Decode the payload, call the handler, send what it returns."""
        handler = self._handlers.get(m.type)
        if handler is None:
            return False
        decode(m)
        value = handler(con, m)
        if inspect.isawaitable(value):
            return self._reply_later(con, m, value)
        if value is not None:
            con.send_message(reply_to(m, value))
        return True

    async def _reply_later(self, con: Connection, m: Message, value: Awaitable[Any]) -> bool:
        result = await value
        if result is not None:
            con.send_message(reply_to(m, result))
        return True

    def on_start(self) -> Awaitable[None] | None:
        """Run the module's @on_start functions."""
        return self._run_hooks("start")

    def on_stop(self) -> Awaitable[None] | None:
        """Run the module's @on_stop functions."""
        return self._run_hooks("stop")

    async def _run_hooks(self, which: str) -> None:
        for hook in self._hooks[which]:
            takes_options = which == "start" and len(inspect.signature(hook).parameters) == 1
            result = hook(self._options) if takes_options else hook()
            if inspect.isawaitable(result):
                await result


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", function))
