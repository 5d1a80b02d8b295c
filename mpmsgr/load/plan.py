"""What a load run shall do: the one input of the generator, checked once, sendable as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from mpmsgr.errors import ConfigError

ECHO = 0x8001
"""The type whose replies bring every part back as it was."""

MAX_SIZE = 16 << 20
"""Bytes; the default cap of a server on one front."""


@dataclass(frozen=True)
class LoadPlan:
    """Many clients, each one session with a fixed number of requests in flight.

    Exactly one of `count` and `duration_s` is set. Raises ConfigError naming the field.
    """

    address: str
    """HOST:PORT of the server, optionally with /NONCE."""
    clients: int = 1
    """Sessions, over all processes."""
    in_flight: int = 1
    """Unanswered requests each client keeps up."""
    size: int = 64
    """Payload bytes of one request, all parts together."""
    count: int | None = None
    """Requests in total, over all clients."""
    duration_s: float | None = None
    """Seconds during which new requests are sent."""
    type: int = ECHO
    """Message type (u16). 0x8001 must echo all parts, others return the front in middle."""
    processes: int = 1
    """Processes the clients are spread over."""
    peer_type: str = "svc"
    """Entity type of the server."""
    connect_timeout_s: float = 10.0
    """Seconds for all clients of a process to get their session."""
    reply_timeout_s: float = 10.0
    """Seconds without any reply after which what is outstanding counts as lost."""
    first_client: int = 1
    """Number of the first client (client.N); shards of one plan do not overlap."""

    def __post_init__(self) -> None:
        _check("address", self.address, "HOST:PORT", bool(self.address))
        _check("clients", self.clients, "1 or more", self.clients >= 1)
        _check("in_flight", self.in_flight, "1 or more", self.in_flight >= 1)
        _check("size", self.size, f"0 to {MAX_SIZE} bytes", 0 <= self.size <= MAX_SIZE)
        _check("type", self.type, "1 to 65535", 0 < self.type <= 0xFFFF)
        _check("processes", self.processes, "1 or more", self.processes >= 1)
        if (self.count is None) == (self.duration_s is None):
            raise ConfigError("count", self.count, "either a count or a duration")
        if self.count is not None:
            _check("count", self.count, "1 or more", self.count >= 1)
        if self.duration_s is not None:
            _check("duration_s", self.duration_s, "more than 0 seconds", self.duration_s > 0)

    @property
    def echo(self) -> bool:
        """True if every part must come back as it was."""
        return self.type == ECHO

    def shards(self) -> list[LoadPlan]:
        """The plan of each process: clients and count spread evenly, never an idle process."""
        processes = min(self.processes, self.clients, self.count or self.clients)
        clients = spread(self.clients, processes)
        counts = spread(self.count, processes) if self.count is not None else [None] * processes
        first = [self.first_client + sum(clients[:i]) for i in range(processes)]
        return [
            replace(self, processes=1, clients=clients[i], count=counts[i], first_client=first[i])
            for i in range(processes)
        ]

    def client_counts(self) -> list[int | None]:
        """Requests of each client, None without a bound."""
        if self.count is None:
            return [None] * self.clients
        return [*spread(self.count, self.clients)]

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> LoadPlan:
        """The plan `as_dict` was made of."""
        return cls(**fields)


def spread(total: int, parts: int) -> list[int]:
    """*total* as *parts* numbers that differ by one at most, larger ones first."""
    share, rest = divmod(total, parts)
    return [share + (i < rest) for i in range(parts)]


def _check(field: str, value: object, allowed: str, ok: bool) -> None:
    if not ok:
        raise ConfigError(field, value, allowed)
