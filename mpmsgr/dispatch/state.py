"""The state of a lane: a dict that a handler may change, committed with what it sends.

What is committed is its msgpack encoding. A handler works on a decoded copy; when it has completed,
the copy is encoded again, and only if that differs is there something to commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgpack

from mpmsgr.errors import MessengerError

#: msgpack holds nothing that is nested deeper; so much of a path is shown then.
_DEEPEST, _LONGEST = 1024, 60


class StateError(MessengerError):
    """A state that cannot be kept: *path* names the value, *text* what is wrong with it."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        super().__init__(f"{path} {text}")


class State:
    """State of one lane, in the process that runs its handlers.

    packed: what is committed, b"" = nothing; limit: bytes that may be.
    """

    __slots__ = ("_value", "limit", "packed")

    def __init__(self, packed: bytes = b"", limit: int = 1 << 16) -> None:
        self.packed = packed
        self.limit = limit
        self._value: dict[Any, Any] | None = None

    @property
    def value(self) -> dict[Any, Any]:
        """The copy to work on."""
        if self._value is None:
            self._value = _decoded(self.packed) if self.packed else {}
        return self._value

    def encode(self) -> bytes | None:
        """The encoding of a changed copy, None if it is as committed.

        Raises StateError for what msgpack cannot hold, and above the limit.
        """
        if self._value is None:
            return None
        if not self._value and not self.packed:
            return None
        try:
            packed: bytes = msgpack.packb(self._value)
        except (TypeError, ValueError, OverflowError) as err:
            raise _misfit(self._value) or StateError("state", str(err)) from None
        if packed == self.packed:
            return None
        if len(packed) > self.limit:
            raise _too_large(self._value, len(packed), self.limit)
        return packed if self._value else b""

    def commit(self, packed: bytes) -> None:
        """*packed*, the encoding of the copy, is the state from now on."""
        self.packed = packed

    def roll_back(self) -> None:
        """Forget what was done to the copy."""
        self._value = None


def _decoded(packed: bytes) -> dict[Any, Any]:
    state: dict[Any, Any]
    try:
        state = msgpack.unpackb(packed, strict_map_key=False)
    except TypeError:  # a tuple is a key somewhere, and comes back as a list
        state = msgpack.unpackb(packed, strict_map_key=False, object_pairs_hook=_with_tuples)
    return state


def _with_tuples(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_tuples(key): value for key, value in pairs}


def _tuples(key: Any) -> Any:
    return tuple(map(_tuples, key)) if isinstance(key, list) else key


def _misfit(state: dict[Any, Any]) -> StateError | None:
    """The error for the first value in *state* that msgpack cannot hold."""
    levels = [_parts("state", state)]
    while levels:
        path, value = next(levels[-1], ("", None))
        if not path:
            levels.pop()
        elif isinstance(value, dict | list | tuple):
            if len(levels) > _DEEPEST:
                return StateError(f"{path[:_LONGEST]}...", "is nested too deeply")
            levels.append(_parts(path, value))
        elif (text := _why_not(value)) is not None:
            return StateError(path, f"is {type(value).__name__}: msgpack cannot hold it ({text})")
    return None


def _parts(
    path: str, value: dict[Any, Any] | list[Any] | tuple[Any, ...]
) -> Iterator[tuple[str, Any]]:
    """What is in *value*, and its path."""
    if not isinstance(value, dict):
        yield from ((f"{path}[{i}]", part) for i, part in enumerate(value))
        return
    for key, part in value.items():
        yield f"{path} key {key!r}", key
        yield f"{path}[{key!r}]", part


def _why_not(value: Any) -> str | None:
    """Why msgpack cannot hold *value*, None if it can."""
    try:
        msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as err:
        return str(err)
    return None


def _too_large(value: dict[Any, Any], size: int, limit: int) -> StateError:
    sizes = {key: len(msgpack.packb(part)) for key, part in value.items()}
    largest = max(sizes, key=lambda key: sizes[key])
    text = f"takes {sizes[largest]} of {size} bytes, at most {limit} may be kept (state_bytes)"
    return StateError(f"state[{largest!r}]", text)
