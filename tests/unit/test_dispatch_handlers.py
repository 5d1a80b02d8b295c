"""Handlers as functions: what @handles takes, what they may return, @on_start and @on_stop."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import msgpack
import pytest

from mpmsgr import Connection, Message, PayloadError, PluginError, handles, message
from mpmsgr import on_start as at_start
from mpmsgr import on_stop as at_stop
from mpmsgr.dispatch import payload
from mpmsgr.dispatch.handlers import FunctionDispatcher, is_handler


@pytest.fixture(autouse=True)
def _classes_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_classes", {})


class Peer:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send_message(self, m: Any, data: bytes = b"") -> bool:
        self.sent.append(m)
        return True


def dispatcher_of(*functions: Any, **options: Any) -> FunctionDispatcher:
    module = ModuleType("shop")
    for i, function in enumerate(functions):
        setattr(module, f"f{i}", function)
    return FunctionDispatcher(module, options)


def ask(dispatcher: FunctionDispatcher, m: Message) -> list[Message]:
    """What the dispatcher sends for *m*."""
    con = Peer()
    result = dispatcher.dispatch(cast(Connection, con), m)
    if inspect.isawaitable(result):
        result = asyncio.run(cast(Any, result))
    assert result is True
    return con.sent


def test_numbers_and_classes() -> None:
    @message(0x9001)
    @dataclass
    class Add:
        n: int

    @handles(Add, 0x9002)
    def add(con: Connection, m: Message) -> int:
        return m.obj.n + 1 if m.type == 0x9001 else len(m.front)

    dispatcher = dispatcher_of(add)
    assert is_handler(add)
    assert dispatcher.message_types == {0x9001, 0x9002}
    asked = payload.to_message(Add(4))
    asked.tid = 7
    (reply,) = ask(dispatcher, asked)
    assert (payload.decode(reply), reply.tid) == (5, 7)
    (reply,) = ask(dispatcher, Message(0x9002, b"abc", tid=8))
    assert (payload.decode(reply), reply.tid, reply.type) == (3, 8, 0x9002)


def test_none_is_no_reply() -> None:
    @handles(0x9001)
    def nothing(con: Connection, m: Message) -> None:
        return None

    assert ask(dispatcher_of(nothing), Message(0x9001, tid=1)) == []


@pytest.mark.parametrize("value", [0, False, "", b"", []])
def test_false_values_are_replies(value: object) -> None:
    @handles(0x9001)
    def give(con: Connection, m: Message) -> object:
        return value

    (reply,) = ask(dispatcher_of(give), Message(0x9001, tid=1))
    assert payload.decode(reply) == value


def test_async_handlers() -> None:
    @handles(0x9001)
    async def later(con: Connection, m: Message) -> int:
        await asyncio.sleep(0)
        return 5

    @handles(0x9002)
    async def nothing(con: Connection, m: Message) -> None:
        await asyncio.sleep(0)

    dispatcher = dispatcher_of(later, nothing)
    (reply,) = ask(dispatcher, Message(0x9001, tid=1))
    assert payload.decode(reply) == 5
    assert ask(dispatcher, Message(0x9002, tid=1)) == []


def test_a_type_nobody_handles_is_passed_on() -> None:
    @handles(0x9001)
    def give(con: Connection, m: Message) -> int:
        return 1

    assert dispatcher_of(give).dispatch(cast(Connection, Peer()), Message(0x9002)) is False


def test_a_payload_that_does_not_fit_never_reaches_the_handler() -> None:
    @message(0x9001)
    class Add:
        n: int

    @handles(Add)
    def add(con: Connection, m: Message) -> int:
        raise AssertionError("not to be called")

    with pytest.raises(PayloadError):
        dispatcher_of(add).dispatch(cast(Connection, Peer()), Message(0x9001, msgpack.packb({})))


def test_a_value_msgpack_cannot_hold() -> None:
    @handles(0x9001)
    def give(con: Connection, m: Message) -> object:
        return object()

    with pytest.raises(TypeError, match="msgpack cannot hold it"):
        dispatcher_of(give).dispatch(cast(Connection, Peer()), Message(0x9001, tid=1))


# what is wrong with a module


def test_handles_needs_a_type() -> None:
    with pytest.raises(TypeError, match="at least one message type"):
        handles()
    with pytest.raises(TypeError, match="neither a message type number"):
        handles(int)


def test_a_module_without_handlers() -> None:
    with pytest.raises(PluginError, match="shop: has neither functions with @handles nor one"):
        dispatcher_of()


def test_two_handlers_of_one_type() -> None:
    @handles(0x9001)
    def one(con: Connection, m: Message) -> None: ...

    @handles(0x9001, 0x9002)
    def two(con: Connection, m: Message) -> None: ...

    with pytest.raises(PluginError, match=r"shop: both .*one and .*two handle type 0x9001"):
        dispatcher_of(one, two)


def test_one_handler_under_two_names() -> None:
    @handles(0x9001)
    def one(con: Connection, m: Message) -> None: ...

    assert dispatcher_of(one, one).message_types == {0x9001}


# start and stop


def test_hooks_run_in_order_with_options_where_they_ask_for_them() -> None:
    said: list[object] = []

    @at_start
    def first() -> None:
        said.append("first")

    @at_start
    async def second(options: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        said.append(options)

    @at_stop
    def last() -> None:
        said.append("last")

    @handles(0x9001)
    def handler(con: Connection, m: Message) -> None: ...

    async def main() -> None:
        dispatcher = dispatcher_of(first, handler, second, last, size=3)
        for hook in (dispatcher.on_start(), dispatcher.on_stop()):
            assert hook is not None
            await hook

    asyncio.run(main())
    assert said == ["first", {"size": 3}, "last"]
