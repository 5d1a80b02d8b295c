"""Handlers as plain functions: @handles, @every, @on_start, @on_stop, and their dispatcher."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher, Result, Task
from mpmsgr.dispatch.handling import DEFAULT, Handling, declared
from mpmsgr.dispatch.payload import decode, reply_to, type_of
from mpmsgr.dispatch.verdicts import Verdict
from mpmsgr.errors import PluginError
from mpmsgr.wire.message import Message

F = TypeVar("F", bound=Callable[..., Any])
Handler = Callable[..., Any]

_TYPES = "_mpmsgr_types"
_HANDLING = "_mpmsgr_handling"
_HOOK = "_mpmsgr_hook"
_EVERY = "_mpmsgr_every"


def handles(
    *types: int | type,
    key: str | slice | None = None,
    ordering: str | None = None,
    deadline: float | tuple[float, float] | None = None,
    max_attempts: int | None = None,
    streaming: bool = False,
) -> Callable[[F], F]:
    """The function ``(con, m)`` or ``(con, m, state)`` handles messages of *types*: numbers or
    @message classes.

    What it returns is the reply: an instance of a @message class, a Message, or a plain value
    msgpack can hold; None is no reply. An exception is an error reply, a `Verdict`, returned or
    raised, what it says. ``async def`` works too. *state*: see `Connection.state`.

    key: a field's name, or slice(start, stop) of front: messages with equal keys are handled one
    after the other, across sessions, and share a state. ordering: "session" (default), "key" or
    "none". deadline: (soft, hard) seconds: the worker's stacks are logged, the worker is killed;
    one number is the hard one. max_attempts: deaths of workers that a message may cause (0: any
    number) before it goes to quarantine. streaming: what is sent leaves at once.
    Raises ValueError for a wrong argument.
    """
    if not types:
        raise TypeError("@handles needs at least one message type")
    numbers = tuple(type_of(t) for t in types)
    handling = declared(
        key=key,
        ordering=ordering,
        deadline=deadline,
        max_attempts=max_attempts,
        streaming=streaming,
    )

    def mark(function: F) -> F:
        setattr(function, _TYPES, numbers)
        setattr(function, _HANDLING, handling)
        return function

    return mark


def every(seconds: float) -> Callable[[F], F]:
    """Call ``function()`` or ``function(service)`` every *seconds*, on exactly one worker.

    service: a `Service`, to send from. Calls that come too early, while one runs, are left out.
    """
    if not seconds > 0:
        raise ValueError(f"@every({seconds!r}): must be seconds above 0")

    def mark(function: F) -> F:
        setattr(function, _EVERY, float(seconds))
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
    """The dispatcher made of a module's decorated functions; *options* go to its @on_start.

    Its order is the module's ``mpmsgr_order``, if it has one.
    """

    def __init__(self, module: ModuleType, options: Mapping[str, Any]) -> None:
        self.name = module.__name__
        self.order = getattr(module, "mpmsgr_order", 0)
        self._options = dict(options)
        self._handlers: dict[int, Handler] = {}
        self._stateful: set[Handler] = set()
        self._every: list[Task] = []
        self._hooks: dict[str, list[Callable[..., Any]]] = {"start": [], "stop": []}
        for function in vars(module).values():
            self._add(function)
        self.message_types = frozenset(self._handlers)
        if not self._handlers and not self._every:
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
            self._check(function)
        seconds = getattr(function, _EVERY, 0.0)
        if seconds:
            self._every.append(_task(f"{self.name}.{function.__name__}", seconds, function))
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
        value = handler(con, m, con.state) if handler in self._stateful else handler(con, m)
        if inspect.isawaitable(value):
            return self._reply_later(con, m, value)
        if value is not None:
            _reply(con, m, value)
        return True

    async def _reply_later(self, con: Connection, m: Message, value: Awaitable[Any]) -> bool:
        result = await value
        if result is not None:
            _reply(con, m, result)
        return True

    def handling(self, type_: int) -> Handling:
        """What @handles said of *type_*."""
        handling: Handling = getattr(self._handlers.get(type_), _HANDLING, DEFAULT)
        return handling

    def every(self) -> Sequence[Task]:
        """The module's @every functions."""
        return self._every

    def _check(self, function: Handler) -> None:
        """Note whether *function* takes a state. Raises PluginError where it cannot have one."""
        if not _takes(function, 3):
            return
        if getattr(function, _HANDLING, DEFAULT).ordering == "none":
            text = f"{_name(function)} takes a state, which needs an order: 'session' or 'key'"
            raise PluginError(self.name, text)
        self._stateful.add(function)

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


def _reply(con: Connection, m: Message, value: Any) -> None:
    if isinstance(value, Verdict):
        raise value
    con.send_message(reply_to(m, value))


def _task(name: str, seconds: float, function: Callable[..., Any]) -> Task:
    return Task(name, seconds, function if _takes(function, 1) else lambda service: function())


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Has *function* so many parameters that a call by position fills?"""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(p.kind in kinds for p in parameters) >= count


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", function))
