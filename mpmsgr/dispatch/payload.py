"""Payloads of application messages: dataclasses and plain values as msgpack in front.

version 1   fields of the type's registered class, as a map   (or bytes nobody here reads)
version 2   one plain value: what a handler function returned
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import msgpack

from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.errors import MessengerError, RemoteError
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import ERROR_REPLY, FIRST_APPLICATION_TYPE, Message

T = TypeVar("T")

FIELDS, VALUE = 1, 2
_classes: dict[int, type] = {}


class PayloadError(MessengerError):
    """A payload that does not fit: *type* of the message, *text* what is wrong with it."""

    def __init__(self, type_: int, text: str) -> None:
        self.type, self.text = type_, text
        super().__init__(f"payload of message type {type_:#x}: {text}")


@dataclass_transform()
def message(type_: int) -> Callable[[type[T]], type[T]]:
    """Make a class a dataclass whose instances travel as messages of *type_* (0x8001 to 0xffff).

    Raises ValueError for a type that belongs to Ceph or to another class.
    """
    if not FIRST_APPLICATION_TYPE <= type_ <= 0xFFFF:
        raise ValueError(f"message type {type_:#x}: applications have 0x8001 to 0xffff")

    def register(cls: type[T]) -> type[T]:
        known = _classes.get(type_)
        if known is not None and _identity(known) != _identity(cls):
            raise ValueError(f"message type {type_:#x} is taken by {known.__qualname__}")
        if not dataclasses.is_dataclass(cls):
            cls = dataclasses.dataclass(cls)
        cls.message_type = type_  # type: ignore[attr-defined]
        _classes[type_] = cls
        return cls

    return register


def _identity(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def type_of(thing: int | type) -> int:
    """Message type number of a number or a registered class. Raises TypeError for anything else."""
    number = thing if isinstance(thing, int) else getattr(thing, "message_type", None)
    if not isinstance(number, int):
        raise TypeError(f"{thing!r} is neither a message type number nor a class with @message")
    return number


def to_message(obj: Any, data: Bytes = b"") -> Message:
    """The message that carries *obj*: a Message as it is, or an instance of a registered class."""
    if isinstance(obj, Message):
        return obj
    fields = {f.name: getattr(obj, f.name) for f in dataclasses.fields(obj)}
    return Message(type_of(type(obj)), pack(type_of(type(obj)), fields), data=data, version=FIELDS)


def pack(type_: int, value: Any) -> bytes:
    """*value* as msgpack. Raises TypeError naming what msgpack cannot hold."""
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as err:
        raise TypeError(f"message type {type_:#x}: msgpack cannot hold it: {err}") from None
    return packed


def unpack(m: Message) -> Any:
    """The msgpack value in front. Raises PayloadError."""
    try:
        return msgpack.unpackb(m.front, strict_map_key=False)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as err:
        # TypeError: a map whose key is a list or a map.
        raise PayloadError(m.type, f"front is no msgpack: {err}") from None


def decode(m: Message) -> Any:
    """Set and return ``m.obj``: an instance of the type's class, a plain value, or None.

    Raises PayloadError when the fields do not fit the class, or it refuses a value (ValueError).
    """
    if m.version == VALUE:
        m.obj = unpack(m)
    elif m.type in _classes:
        m.obj = _instance(m, _classes[m.type])
    return m.obj


def _instance(m: Message, cls: type) -> Any:
    fields = unpack(m)
    if not isinstance(fields, dict):
        raise PayloadError(m.type, f"front is a {type(fields).__name__}, not a map of fields")
    try:
        return cls(**fields)
    except (TypeError, ValueError) as err:
        raise PayloadError(m.type, f"{cls.__name__}: {err}") from None


def reply_to(m: Message, value: Any) -> Message:
    """The reply that carries what a handler returned for *m*."""
    if isinstance(value, Message):
        value.tid = value.tid or m.tid
        value.priority = value.priority or m.priority
        return value
    if hasattr(value, "message_type"):
        reply = to_message(value)
        reply.tid, reply.priority = m.tid, m.priority
        return reply
    return m.reply(pack(m.type, value), version=VALUE)


def wants_error(type_: int, tid: int) -> bool:
    """Can the sender of such a message make sense of an error reply? Ceph's types cannot."""
    return tid != 0 and type_ >= FIRST_APPLICATION_TYPE


def error_reply(tid: int, priority: int, code: ErrorCode | int, text: str) -> Message:
    """The error reply to the request with *tid*."""
    front = pack(ERROR_REPLY, {"code": int(code), "text": text})
    return Message(ERROR_REPLY, front, tid=tid, priority=priority)


def remote_error(m: Message) -> RemoteError:
    """The exception for error reply *m*; one that cannot be read is still an error."""
    try:
        facts = unpack(m)
    except PayloadError as err:
        return RemoteError(0, f"unreadable error reply: {err.text}")
    if not isinstance(facts, dict):
        return RemoteError(0, f"unreadable error reply: {facts!r}")
    code, text = facts.pop("code", 0), facts.pop("text", "")
    return RemoteError(code if isinstance(code, int) else 0, str(text), facts)
