"""Payloads: classes and plain values as msgpack, error replies, and what does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest

from mpmsgr import ErrorCode, Message, message
from mpmsgr.dispatch import payload
from mpmsgr.dispatch.payload import (
    FIELDS,
    VALUE,
    PayloadError,
    decode,
    error_reply,
    remote_error,
    reply_to,
    to_message,
    type_of,
    wants_error,
)
from mpmsgr.wire.message import ERROR_REPLY


@pytest.fixture(autouse=True)
def _classes_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_classes", {})


def add_class() -> Any:
    @message(0x9001)
    class Add:
        n: int
        by: list[int] = field(default_factory=list)

    return Add


# classes


def test_a_class_becomes_a_dataclass_with_its_type() -> None:
    add = add_class()
    assert add(1) == add(n=1, by=[])
    assert type_of(add) == add.message_type == 0x9001
    assert type_of(17) == 17


def test_a_dataclass_stays_what_it_is() -> None:
    @message(0x9002)
    @dataclass(frozen=True, order=True)
    class Point:
        x: int

    assert Point(1) < Point(2)
    assert hash(Point(1)) == hash(Point(1))


@pytest.mark.parametrize("number", [0, 0x7FFF, 0x8000, 0x10000, -1])
def test_types_applications_cannot_have(number: int) -> None:
    with pytest.raises(ValueError, match="applications have 0x8001 to 0xffff"):
        message(number)


def test_two_classes_cannot_share_a_type() -> None:
    add_class()
    with pytest.raises(ValueError, match=r"type 0x9001 is taken by add_class\.<locals>\.Add"):
        message(0x9001)(type("Other", (), {}))


def test_the_same_class_may_be_registered_again() -> None:
    first = add_class()
    assert add_class() is not first  # as when a module is reloaded
    assert isinstance(decode(to_message(first(2))), add_class()) is False


@pytest.mark.parametrize("thing", ["add", object, None, 1.5])
def test_what_has_no_type(thing: Any) -> None:
    with pytest.raises(TypeError, match="neither a message type number nor a class with @message"):
        type_of(thing)


# there and back


def test_an_object_there_and_back() -> None:
    add = add_class()
    m = to_message(add(3, [1, 2]), b"bulk")
    assert (m.type, m.version, m.data) == (0x9001, FIELDS, b"bulk")
    assert msgpack.unpackb(m.front) == {"n": 3, "by": [1, 2]}
    assert decode(m) == m.obj == add(3, [1, 2])


def test_missing_fields_take_their_defaults() -> None:
    add = add_class()
    assert decode(Message(0x9001, msgpack.packb({"n": 1}))) == add(1)


def test_a_message_is_passed_as_it_is() -> None:
    m = Message(5, b"front")
    assert to_message(m) is m


def test_bytes_of_an_unknown_type_stay_bytes() -> None:
    m = Message(0x9009, b"\xc1 no msgpack")
    assert decode(m) is None
    assert m.obj is None


@pytest.mark.parametrize("value", [None, 0, -1, 2.5, "text", b"\x00", [1, [2]], {"a": {1: b"x"}}])
def test_plain_values(value: object) -> None:
    m = reply_to(Message(0x9009, tid=7, priority=200), value)
    assert (m.type, m.tid, m.priority, m.version) == (0x9009, 7, 200, VALUE)
    assert decode(m) == value


def test_a_reply_of_a_class() -> None:
    add = add_class()
    m = reply_to(Message(0x9009, tid=7, priority=200), add(1))
    assert (m.type, m.tid, m.priority) == (0x9001, 7, 200)
    assert decode(m) == add(1)


def test_a_reply_that_is_a_message_keeps_what_it_says() -> None:
    asked = Message(0x9009, tid=7, priority=200)
    plain = reply_to(asked, Message(0x9010, b"x"))
    assert (plain.type, plain.tid, plain.priority) == (0x9010, 7, 200)
    own = reply_to(asked, Message(0x9010, b"x", tid=8, priority=64))
    assert (own.tid, own.priority) == (8, 64)


# what does not fit


@pytest.mark.parametrize(
    ("front", "text"),
    [
        (b"", "front is no msgpack"),
        (b"\xc1", "front is no msgpack"),
        (b"\x93\x01", "front is no msgpack"),
        (b"\x01trailing", "front is no msgpack"),
        (b"\x81\x90\x01", "front is no msgpack"),  # a list as a key
        (b"\xa1\xff", "front is no msgpack"),  # no UTF-8
        (b"\xdd\xff\xff\xff\xff", "front is no msgpack"),  # 4 Gi elements claimed
        (b"\x91" * 2000 + b"\x01", "front is no msgpack"),  # nested too deeply
        (msgpack.packb([1]), "front is a list, not a map of fields"),
        (msgpack.packb({"n": 1, "m": 2}), "unexpected keyword argument 'm'"),
        (msgpack.packb({}), "missing 1 required positional argument: 'n'"),
        (msgpack.packb({1: 2}), "keywords must be strings"),
    ],
)
def test_fields_that_do_not_fit(front: bytes, text: str) -> None:
    add_class()
    with pytest.raises(PayloadError) as raised:
        decode(Message(0x9001, front))
    assert raised.value.type == 0x9001
    assert text in raised.value.text


def test_a_class_that_refuses_a_value() -> None:
    @message(0x9003)
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n <= 0:
                raise ValueError("n must be positive")

    with pytest.raises(PayloadError, match="Positive: n must be positive"):
        decode(Message(0x9003, msgpack.packb({"n": 0})))


def test_what_msgpack_cannot_hold() -> None:
    with pytest.raises(TypeError, match="type 0x9009: msgpack cannot hold it"):
        reply_to(Message(0x9009), object())
    with pytest.raises(TypeError, match="msgpack cannot hold it"):
        reply_to(Message(0x9009), 1 << 64)


# errors


def test_an_error_reply_there_and_back() -> None:
    m = error_reply(9, 200, ErrorCode.WORKER_LOST, "worker 1 was lost")
    assert (m.type, m.tid, m.priority) == (ERROR_REPLY, 9, 200)
    assert msgpack.unpackb(m.front) == {"code": 4, "text": "worker 1 was lost"}
    error = remote_error(m)
    assert (error.code, error.text, error.facts) == (4, "worker 1 was lost", {})


def test_facts_of_an_error_reply() -> None:
    front = msgpack.packb({"code": 1001, "text": "no", "limit": 3})
    error = remote_error(Message(ERROR_REPLY, front))
    assert (error.code, error.text, error.facts) == (1001, "no", {"limit": 3})


@pytest.mark.parametrize(
    ("front", "text"),
    [
        (b"\xc1", "unreadable error reply: front is no msgpack"),
        (b"\x81\x90\x01", "unreadable error reply: front is no msgpack"),
        (msgpack.packb("oh"), "unreadable error reply: 'oh'"),
        (msgpack.packb({"code": "x", "text": 5}), "5"),
        (b"\x80", ""),
    ],
)
def test_an_error_reply_nobody_can_read_is_an_error_still(front: bytes, text: str) -> None:
    error = remote_error(Message(ERROR_REPLY, front))
    assert error.code == 0
    assert error.text.startswith(text)


@pytest.mark.parametrize(
    ("type_", "tid", "wanted"),
    [(0x8001, 1, True), (0xFFFF, 1, True), (0x8001, 0, False), (0x8000, 1, False), (17, 1, False)],
)
def test_who_understands_an_error_reply(type_: int, tid: int, wanted: bool) -> None:
    assert wants_error(type_, tid) is wanted
