"""Which lane a message goes to, as its handler declared it."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack

from mpmsgr.dispatch.handling import DEFAULT, Handling
from mpmsgr.wire.crc import Bytes

#: A key's lane: what the key is (a field's name, a byte range) and its value, encoded.
KeyName = tuple[object, bytes]


def key_of(handling: Handling, front: Bytes) -> KeyName | None:
    """The key of a message with *front*; None where it has none: its session's lane takes it."""
    key = handling.key
    if isinstance(key, tuple):
        start, stop = key
        return (key, bytes(front[start:stop])) if len(front) >= stop else None
    try:
        fields = msgpack.unpackb(front, strict_map_key=False)
        return (key, msgpack.packb(fields[key]))
    except (TypeError, ValueError, LookupError, msgpack.exceptions.UnpackException):
        return None


class Routes:
    """Handlings by message type. plain: every message goes to the lane of its session."""

    def __init__(self, handlings: Mapping[int, Handling] | None = None) -> None:
        self._handlings = dict(handlings or {})
        self.plain = all(h.ordering == "session" for h in self._handlings.values())

    def of(self, type_: int) -> Handling:
        """How messages of *type_* are handled."""
        return self._handlings.get(type_, DEFAULT)
