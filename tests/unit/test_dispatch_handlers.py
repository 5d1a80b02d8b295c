"""Handlers as functions: what @handles takes, what they may return, @on_start and @on_stop."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import msgpack
import pytest

from mpmsgr import Connection, Dispatcher, Message, PayloadError, PluginError, handles, message
from mpmsgr import on_start as at_start
from mpmsgr import on_stop as at_stop
from mpmsgr.dispatch import payload
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.dispatcher import Task
from mpmsgr.dispatch.handlers import FunctionDispatcher, every, is_handler
from mpmsgr.dispatch.handling import DEFAULT, Handling, declared
from mpmsgr.dispatch.routes import Routes, key_of
from mpmsgr.dispatch.verdicts import Poison, Reject, Retry, Verdict


@pytest.fixture(autouse=True)
def _classes_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_classes", {})


class Peer:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.state: dict[Any, Any] = {"n": 1}

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


@pytest.mark.parametrize("verdict", [Retry(1), Reject("no"), Poison("bad")])
def test_a_verdict_is_no_reply_even_if_it_is_returned(verdict: Verdict) -> None:
    @handles(0x9001)
    def judge(con: Connection, m: Message) -> Verdict:
        return verdict

    @handles(0x9002)
    async def judge_later(con: Connection, m: Message) -> Verdict:
        return verdict

    for type_ in (0x9001, 0x9002):
        with pytest.raises(type(verdict)) as raised:
            ask(dispatcher_of(judge, judge_later), Message(type_, tid=1))
        assert raised.value is verdict


def test_a_delay_below_zero() -> None:
    with pytest.raises(ValueError, match="after is -1: must be 0 seconds or more"):
        Retry(-1)
    with pytest.raises(ValueError, match="after is nan"):
        Retry(float("nan"))


# how a type is handled


def test_what_handles_says_is_known_of_each_type() -> None:
    @handles(0x9001, 0x9002, key="room", deadline=(1, 3), max_attempts=0, streaming=True)
    def one(con: Connection, m: Message) -> None: ...

    @handles(0x9003)
    def other(con: Connection, m: Message) -> None: ...

    dispatcher = dispatcher_of(one, other)
    said = Handling("key", "room", 1.0, 3.0, 0, True)
    assert [dispatcher.handling(type_) for type_ in (0x9001, 0x9002)] == [said, said]
    assert dispatcher.handling(0x9003) == dispatcher.handling(0x9009) == DEFAULT


@pytest.mark.parametrize(
    ("arguments", "handling"),
    [
        ({}, DEFAULT),
        ({"ordering": "none"}, Handling("none")),
        ({"key": "room"}, Handling("key", "room")),
        ({"key": "room", "ordering": "key"}, Handling("key", "room")),
        ({"key": slice(4)}, Handling("key", (0, 4))),
        ({"key": slice(2, 6, 1)}, Handling("key", (2, 6))),
        ({"deadline": 5}, Handling(soft_s=2.5, hard_s=5.0)),
        ({"deadline": (5, 5)}, Handling(soft_s=5.0, hard_s=5.0)),
    ],
)
def test_arguments_of_handles(arguments: dict[str, Any], handling: Handling) -> None:
    assert declared(**arguments) == handling
    wire = msgpack.unpackb(msgpack.packb(handling.as_wire()))
    assert Handling.from_wire(wire) == handling, "the same in another process"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"ordering": "random"}, "ordering is 'random': must be session, key, none"),
        ({"ordering": "key"}, "ordering is 'key', key is None"),
        ({"ordering": "none", "key": "room"}, "ordering is 'none', key is 'room'"),
        ({"key": slice(2, None)}, "must be a field's name, or slice"),
        ({"key": slice(4, 4)}, "must be a field's name, or slice"),
        ({"key": slice(-4, None)}, "must be a field's name, or slice"),
        ({"key": slice(0, 8, 2)}, "must be a field's name, or slice"),
        ({"max_attempts": -1}, "max_attempts is -1"),
        ({"deadline": 0}, "deadline is 0: must be seconds above 0"),
        ({"deadline": (3, 1)}, "the soft one first"),
    ],
)
def test_wrong_arguments_of_handles(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        handles(0x9001, **arguments)


def test_a_chain_handles_a_type_as_its_first_taker_says() -> None:
    @handles(0x9001, ordering="none")
    def first(con: Connection, m: Message) -> None: ...

    @handles(0x9001, 0x9002, ordering="key", key="room")
    def second(con: Connection, m: Message) -> None: ...

    @handles(0x9003)
    def ordinary(con: Connection, m: Message) -> None: ...

    class Anything(Dispatcher):
        def handling(self, type_: int) -> Handling:
            return Handling(streaming=True)

    chain = Chain()
    for dispatcher in (dispatcher_of(first), dispatcher_of(second), dispatcher_of(ordinary)):
        chain.add_tail(dispatcher)
    assert chain.routes() == {0x9001: Handling("none"), 0x9002: Handling("key", "room")}
    assert chain.handling(0x9009) == DEFAULT, "nobody takes it"
    chain.add_head(Anything())
    assert chain.handling(0x9001) == chain.handling(0x9009) == Handling(streaming=True)


@pytest.mark.parametrize(
    ("key", "front", "value"),
    [
        ("room", msgpack.packb({"room": "a", "n": 1}), msgpack.packb("a")),
        ("room", msgpack.packb({"n": 1, "room": [1, None]}), msgpack.packb([1, None])),
        ("room", msgpack.packb({"n": 1}), None),
        ("room", msgpack.packb([1, 2]), None),
        ("room", b"", None),
        ("room", msgpack.packb({"room": "a"})[:-1], None),
        ("room", b"\xc1", None),
        ((2, 4), b"abcdef", b"cd"),
        ((2, 4), b"abcd", b"cd"),
        ((2, 4), b"abc", None),
    ],
)
def test_the_key_of_a_message(key: Any, front: bytes, value: bytes | None) -> None:
    name = key_of(Handling("key", key), front)
    assert name == (None if value is None else (key, value))


def test_keys_of_different_fields_are_different() -> None:
    front = msgpack.packb({"room": "a", "name": "a"})
    assert key_of(Handling("key", "room"), front) != key_of(Handling("key", "name"), front)


def test_routes_know_whether_there_is_anything_to_route() -> None:
    assert Routes().plain
    assert Routes({1: Handling(streaming=True)}).plain
    assert not Routes({1: Handling(), 2: Handling("none")}).plain
    assert Routes({2: Handling("none")}).of(1) == DEFAULT


# state


def test_a_third_parameter_is_the_state() -> None:
    @handles(0x9001)
    def count(con: Connection, m: Message, state: dict[str, int]) -> int:
        state["n"] += 1
        return state["n"]

    @handles(0x9002)
    async def count_later(con: Connection, m: Message, state: dict[str, int]) -> int:
        state["n"] += 1
        return state["n"]

    @handles(0x9003)
    def plain(con: Connection, m: Message, *, state: str = "of its own") -> str:
        return state

    for type_, value in ((0x9001, 2), (0x9002, 2), (0x9003, "of its own")):
        (reply,) = ask(dispatcher_of(count, count_later, plain), Message(type_, tid=1))
        assert payload.decode(reply) == value


def test_a_state_needs_an_order() -> None:
    @handles(0x9001, ordering="none")
    def count(con: Connection, m: Message, state: dict[str, int]) -> None: ...

    with pytest.raises(PluginError, match=r"shop: .*count takes a state, which needs an order"):
        dispatcher_of(count)


# regular calls


def test_functions_that_are_called_regularly() -> None:
    calls: list[object] = []

    @every(2)
    def clean() -> None:
        calls.append("clean")

    @every(0.5)
    def report(service: Any) -> None:
        calls.append(service)

    module = ModuleType("shop")
    module.clean, module.report = clean, report  # type: ignore[attr-defined]
    chain = Chain()
    chain.add_tail(FunctionDispatcher(module, {}))
    assert [(task.name, task.seconds) for task in chain.every()] == [
        ("shop.clean", 2.0),
        ("shop.report", 0.5),
    ]
    service: Any = object()
    chain.task("shop.clean")(service)
    chain.task("shop.report")(service)
    assert calls == ["clean", service]
    with pytest.raises(KeyError):
        chain.task("shop.open")


def test_a_dispatcher_may_have_regular_calls_too() -> None:
    def tidy(service: Any) -> None: ...

    class Regular(Dispatcher):
        def every(self) -> list[Task]:
            return [Task("tidy", 1.0, tidy)]

    chain = Chain()
    chain.add_tail(Regular())
    assert chain.task("tidy") is tidy


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_every_needs_a_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be seconds above 0"):
        every(seconds)


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
