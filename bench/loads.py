"""The loads of the table of cost targets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """A row of the table."""

    size: int
    clients: int
    in_flight: int
    requests: int
    """Round trips per client and burst; clients make a burst's requests before it begins."""
    bursts: int = 1
    """So many of them make a turn, between half a second and two of a server's CPU."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """What clients are made with."""
        return self.clients, self.in_flight, self.size

    def text(self) -> str:
        """The row's name."""
        return f"{self.size} B, {self.clients} clients x {self.in_flight} in flight"


LOADS = {
    "64x16": Load(64, 50, 16, 1200),
    "64x1": Load(64, 50, 1, 600),
    "2k": Load(2 << 10, 50, 16, 1000),
    "2kx1": Load(2 << 10, 50, 1, 500),
    "4k": Load(4 << 10, 50, 16, 800),
    "64k": Load(64 << 10, 8, 2, 250, bursts=4),
    "1m": Load(1 << 20, 4, 2, 60, bursts=4),
}
