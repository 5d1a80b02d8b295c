"""Fault injection: what goes wrong on purpose, by configuration and seed (dispatch spec §10)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mpmsgr.wire.name import parse_type

if TYPE_CHECKING:
    from random import Random

    from mpmsgr.session.session import Session


@dataclass(frozen=True)
class Injection:
    """Faults and their scope. Everything off by default; probabilities from 0 to 1.

    seed: of all the draws. peer_types, sessions: entity types (labels) and session ids concerned,
    empty = all. socket_failures: one chance in N, at each read and handshake write, that the
    socket is cut; 0 = never. short_reads, short_writes: probability that a read or write moves a
    few bytes only. delay_probability, delay_max_s, delay_types: a received message (of these
    types, empty = all) is held for up to so many seconds, and what follows it too.
    internal_delay_s: each step of a handshake waits that long.
    """

    seed: int = 0
    peer_types: tuple[str, ...] = ()
    sessions: tuple[int, ...] = ()
    socket_failures: int = 0
    short_reads: float = 0.0
    short_writes: float = 0.0
    delay_probability: float = 0.0
    delay_max_s: float = 1.0
    delay_types: tuple[int, ...] = ()
    internal_delay_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        for name in ("short_reads", "short_writes", "delay_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: must be from 0 to 1")
        for name in ("socket_failures", "delay_max_s", "internal_delay_s"):
            if not 0 <= getattr(self, name) < math.inf:
                found = getattr(self, name)
                raise ValueError(f"{name} is {found!r}: must not be negative, nor infinite")
        for name, type_ in (("peer_types", str), ("sessions", int), ("delay_types", int)):
            for item in getattr(self, name):
                if not isinstance(item, type_):
                    raise ValueError(f"{name} has {item!r}: must be {type_.__name__}")
        for label in self.peer_types:
            parse_type(label)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Injection:
        """Read the ``[inject]`` table of a configuration. Raises ValueError naming the key."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                raise ValueError(f"{key!r} must be one of {', '.join(known)}")
            default = known[key].default
            if isinstance(default, tuple):
                if not isinstance(value, (list, tuple)):
                    raise ValueError(f"{key} is {value!r}: must be a list")
                values[key] = tuple(value)
            elif isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{key} is {value!r}: must be a number")
            elif isinstance(default, int) and not isinstance(value, int):
                raise ValueError(f"{key} is {value!r}: must be a whole number")
            else:
                values[key] = value
        return cls(**values)


class Injector:
    """Draws the faults of *injection*; the same seed and the same events, the same faults."""

    def __init__(self, injection: Injection, rng: Random) -> None:
        self.injection = injection
        self._rng = rng
        self._types = {parse_type(label) for label in injection.peer_types}

    def concerns(self, session: Session | None) -> bool:
        """Is *session* (None: undecided yet) in the scope?"""
        i = self.injection
        if session is None:
            return not self._types and not i.sessions
        in_types = not self._types or session.peer_type in self._types
        return in_types and (not i.sessions or session.id in i.sessions)

    def cuts(self, session: Session | None) -> bool:
        """Shall the socket be cut now?"""
        chances = self.injection.socket_failures
        return bool(chances) and self.concerns(session) and self._rng.randrange(chances) == 0

    def read_size(self, session: Session | None) -> int:
        """The most the next read may take, in bytes; 0 = as much as there is."""
        return self._few(self.injection.short_reads, session)

    def write_size(self, session: Session | None) -> int:
        """The most the next write may take, in bytes; 0 = all of it."""
        return self._few(self.injection.short_writes, session)

    def _few(self, probability: float, session: Session | None) -> int:
        if not probability or not self.concerns(session) or self._rng.random() >= probability:
            return 0
        return self._rng.randint(1, 16)

    def delay(self, session: Session, type_: int) -> float:
        """Seconds to hold a message of *type_* just received."""
        i = self.injection
        if not i.delay_probability or not self.concerns(session):
            return 0.0
        if i.delay_types and type_ not in i.delay_types:
            return 0.0
        if self._rng.random() >= i.delay_probability:
            return 0.0
        return i.delay_max_s * self._rng.random()


class DelayQueue:
    """Received messages of one session that are held back; the first one holds up the rest."""

    def __init__(self) -> None:
        self._held: list[tuple[float, Any]] = []

    def __len__(self) -> int:
        return len(self._held)

    def push(self, raw: Any, release_at: float) -> None:
        """Hold *raw* until *release_at*, and until everything before it is released."""
        self._held.append((release_at, raw))

    def due(self, now: float) -> list[Any]:
        """What may be delivered now, in order."""
        count = 0
        while count < len(self._held) and self._held[count][0] <= now:
            count += 1
        ready = [raw for _, raw in self._held[:count]]
        del self._held[:count]
        return ready

    @property
    def next_at(self) -> float:
        """When the first one is released."""
        return self._held[0][0]

    def flush(self) -> list[Any]:
        """Everything, now (a lossless fault, a replacement)."""
        held, self._held = self._held, []
        return [raw for _, raw in held]
