"""How messages of a type are handled, as their handler declared it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

ORDERINGS = ("session", "key", "none")

#: What decides the lane of a message: the name of a field of its payload, or a byte range of front.
Key = str | tuple[int, int]


@dataclass(frozen=True)
class Handling:
    """What `@handles` says of a type beside who handles it.

    ordering: messages of one *session* one after the other, of one *key* (whatever the session), or
    in no order (*none*); key: a field's name or (start, stop) in front, with ordering "key";
    soft_s, hard_s: seconds until the worker's stacks are logged, until it is killed (0 = never);
    max_attempts: deaths of its worker until a message goes to quarantine (None = the server's
    setting, 0 = no limit); streaming: what the handler sends leaves at once.
    """

    ordering: str = "session"
    key: Key | None = None
    soft_s: float = 0.0
    hard_s: float = 0.0
    max_attempts: int | None = None
    streaming: bool = False

    def as_wire(self) -> list[Any]:
        """Plain values, for another process."""
        return list(astuple(self))

    @classmethod
    def from_wire(cls, values: Sequence[Any]) -> Handling:
        """What `as_wire` gave."""
        ordering, key, *rest = values
        return cls(ordering, tuple(key) if isinstance(key, list | tuple) else key, *rest)


DEFAULT = Handling()


def declared(
    *,
    key: str | slice | None = None,
    ordering: str | None = None,
    deadline: float | tuple[float, float] | None = None,
    max_attempts: int | None = None,
    streaming: bool = False,
) -> Handling:
    """The record of the arguments of `@handles`. Raises ValueError naming the one that is wrong.

    deadline: (soft, hard) seconds; one number is the hard one, and half of it the soft one.
    """
    ordering = ordering or ("session" if key is None else "key")
    if ordering not in ORDERINGS:
        raise ValueError(f"ordering is {ordering!r}: must be {', '.join(ORDERINGS)}")
    if (ordering == "key") != (key is not None):
        raise ValueError(f"ordering is {ordering!r}, key is {key!r}: key goes with ordering 'key'")
    if max_attempts is not None and max_attempts < 0:
        raise ValueError(f"max_attempts is {max_attempts}: must be 0 (no limit) or more")
    soft, hard = _deadline(deadline)
    handling = Handling(ordering, _key(key), soft, hard, max_attempts, streaming)
    return DEFAULT if handling == DEFAULT else handling  # the one that takes the short way


def _key(key: str | slice | None) -> Key | None:
    if not isinstance(key, slice):
        return key
    start, stop = key.start or 0, key.stop
    if key.step not in (None, 1) or stop is None or not 0 <= start < stop:
        raise ValueError(f"key is {key!r}: must be a field's name, or slice(start, stop) of front")
    return start, stop


def _deadline(deadline: float | tuple[float, float] | None) -> tuple[float, float]:
    if deadline is None:
        return 0.0, 0.0
    soft, hard = deadline if isinstance(deadline, tuple) else (deadline / 2, deadline)
    if not 0 < soft <= hard:
        raise ValueError(f"deadline is {deadline!r}: must be seconds above 0, the soft one first")
    return float(soft), float(hard)
