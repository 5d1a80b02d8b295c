"""A network in memory under a virtual clock: it chunks, delays, refuses, stalls and cuts.

Everything random comes from one seeded generator, so a seed is a whole history.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from mpmsgr.session.pipe import Pipe
from mpmsgr.wire.address import EntityAddr


class Clock:
    """Virtual seconds; what is due at the same moment runs in the order it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0

    def call_at(self, at: float, act: Callable[..., None], *args: Any) -> None:
        """Call *act* at *at*, or now if that has passed."""
        self._asked += 1
        heapq.heappush(self._due, (max(at, self.now), self._asked, act, args))

    def step(self) -> None:
        """Run the next thing that is due; the time becomes its time."""
        self.now, _, act, args = heapq.heappop(self._due)
        self.steps += 1
        act(*args)

    def next_at(self) -> float:
        """When the next thing is due; infinity when nothing is."""
        return self._due[0][0] if self._due else float("inf")


@dataclass(frozen=True)
class Weather:
    """What the network does to a connection; probabilities unless seconds are named.

    cut: after a random number of bytes, in either direction; deaf: an end of a cut connection is
    not told (needs peers that watch each other); late: an accepted connection is handed over
    seconds later, so attempts overtake each other; stall: a direction stands still for a while;
    linger: an end hears of the cut seconds later, when what was on its way has arrived; truncate:
    what was on its way when an end closed is lost; latency_s: longest delay of a chunk.
    """

    refuse: float = 0.0
    blackhole: float = 0.0
    cut: float = 0.0
    deaf: float = 0.0
    late: float = 0.0
    stall: float = 0.0
    linger: float = 0.0
    truncate: float = 0.0
    latency_s: float = 0.004
    stall_s: float = 12.0
    late_s: float = 6.0
    linger_s: float = 4.0


CALM = Weather()
#: A handshake is about 300 bytes each way: every second cut falls into it.
_HANDSHAKE_BYTES, _CONVERSATION_BYTES = 340, 6000
_CHUNKS = ((1 << 30,), (200, 1000, 54), (1, 2, 9, 33, 60))


class Socketed(Protocol):
    """Who has sockets: told what happens to them."""

    label: str
    ip: str
    alive: bool

    def accepted(self, end: End, peer: EntityAddr, own: EntityAddr) -> Pipe:
        """Somebody connected."""

    def dialled(self, end: End, peer: EntityAddr) -> None:
        """Our connection is there."""

    def received(self, end: End, data: bytes) -> None:
        """Bytes came."""

    def lost(self, pipe: Pipe, cause: str, *, refused: bool = False) -> None:
        """The socket is gone, or never came to be."""


class End:
    """One end of a connection: what is on its way to it, and how that will fare."""

    def __init__(self, network: Network, host: Socketed, pipe: Pipe | None) -> None:
        self.network, self.host, self.pipe = network, host, pipe
        self.peer: End = self
        self.is_open = True
        self.chunks: tuple[int, ...] = _CHUNKS[0]
        self.budget: int | None = None  # bytes that still arrive before the cut
        self.stalled_until = 0.0
        self._coming = bytearray()
        self._due = False
        self._cut = False
        self._eof = False

    def write(self, data: bytes) -> None:
        """Send *data* to the other end."""
        if self.is_open and self.peer.is_open and not self._cut:
            self.peer._coming += data
            self.peer.await_arrival()

    def close(self) -> None:
        """Close this end; the other one reads what was sent, and then an end of file."""
        if not self.is_open:
            return
        self.is_open = False
        if self._cut:
            return
        peer, rng, weather = self.peer, self.network.rng, self.network.weather
        peer._eof = True
        if weather.truncate and rng.random() < weather.truncate:
            del peer._coming[rng.randrange(len(peer._coming) + 1) :]
        peer.await_arrival()

    def cut(self) -> None:
        """Break the connection; each end hears of it in its own time, a deaf one never."""
        for end in (self, self.peer):
            if end.is_open:
                end._hear_of_the_cut()
            end._cut = True

    def _hear_of_the_cut(self) -> None:
        rng, weather, clock = self.network.rng, self.network.weather, self.network.clock
        if rng.random() < weather.deaf:
            return
        heard_at = clock.now + rng.random() * 0.05
        if rng.random() < weather.linger:
            self.stalled_until = clock.now + rng.random() * weather.linger_s
            heard_at += self.stalled_until - clock.now + weather.latency_s
        clock.call_at(heard_at, self.lose, "the network cut it")

    def lose(self, cause: str) -> None:
        """Tell the owner that the socket is gone."""
        if self.is_open:
            self.is_open = False
            if self.pipe is not None:
                self.host.lost(self.pipe, cause)

    def await_arrival(self) -> None:
        """See to it that what is on its way arrives."""
        if not self._due and self.is_open and self.pipe is not None:
            self._due = True
            network = self.network
            delay = network.rng.random() * network.weather.latency_s
            at = max(network.clock.now, self.stalled_until) + delay
            network.clock.call_at(at, self._arrive)

    def _arrive(self) -> None:
        self._due = False
        if not self.is_open or not self.host.alive:
            return
        if self.network.clock.now < self.stalled_until:
            self.await_arrival()
            return
        size = self.network.rng.choice(self.chunks)
        if self.budget is not None:
            size = min(size, self.budget)
        data = bytes(self._coming[:size])
        del self._coming[:size]
        if data:
            self.host.received(self, data)
        if self.budget is not None:
            self.budget -= len(data)
            if not self.budget:
                self._coming.clear()
                self.cut()
                return
        if self._coming:
            self.await_arrival()
        elif self._eof:
            self.lose("end of file")


class Network:
    """Connections between hosts. *weather* may change at any time."""

    def __init__(self, clock: Clock, rng: Random, weather: Weather) -> None:
        self.clock, self.rng, self.weather = clock, rng, weather
        self.ends: list[End] = []
        self.hosts: list[Socketed] = []
        self._listening: dict[tuple[str, int], Socketed] = {}
        self._next_port = 40000

    def listen(self, host: Socketed, port: int) -> None:
        """*host* accepts connections at *port*, in the place of whoever did before."""
        self._listening[host.ip, port] = host

    def dial(self, host: Socketed, pipe: Pipe, ip: str, port: int) -> None:
        """Connect *pipe* of *host* to ip:port."""
        rng, clock, weather = self.rng, self.clock, self.weather
        luck = rng.random()
        if luck < weather.blackhole:
            return
        at = clock.now + rng.random() * weather.latency_s
        if luck < weather.blackhole + weather.refuse:
            clock.call_at(at, self._refuse, host, pipe)
        else:
            clock.call_at(at, self._connect, host, pipe, ip, port)

    def _refuse(self, host: Socketed, pipe: Pipe) -> None:
        if host.alive and not pipe.closed:
            host.lost(pipe, "connection refused", refused=True)

    def _connect(self, host: Socketed, pipe: Pipe, ip: str, port: int) -> None:
        server = self._listening.get((ip, port))
        if not host.alive or pipe.closed:
            return
        if server is None or not server.alive:
            self._refuse(host, pipe)
            return
        near, far = self.new_end(host, pipe), self.new_end(server, None)
        near.peer, far.peer = far, near
        self.ends = [end for end in self.ends if end.is_open] + [near, far]
        for end in (near, far):
            self._expose(end)
        clock, weather = self.clock, self.weather
        late = self.rng.random() < weather.late
        wait = self.rng.random() * (weather.late_s if late else weather.latency_s)
        self._next_port += 1
        from_ = EntityAddr.of(host.ip, self._next_port)
        clock.call_at(clock.now + wait, self._accept, far, from_, EntityAddr.of(ip, port))
        host.dialled(near, EntityAddr.of(ip, port))

    def new_end(self, host: Socketed, pipe: Pipe | None) -> End:
        """One end of a new connection, *host*'s."""
        return End(self, host, pipe)

    def _expose(self, end: End) -> None:
        """Decide what the weather will do to *end*."""
        rng, weather = self.rng, self.weather
        end.chunks = rng.choice(_CHUNKS)
        if rng.random() < weather.cut:
            longest = rng.choice((_HANDSHAKE_BYTES, _CONVERSATION_BYTES))
            end.budget = rng.randrange(1, longest)
        if rng.random() < weather.stall:
            self.stall(end)

    def stall(self, end: End) -> None:
        """Nothing reaches *end* for a while."""
        end.stalled_until = self.clock.now + self.rng.random() * self.weather.stall_s

    def _accept(self, far: End, peer: EntityAddr, own: EntityAddr) -> None:
        if not far.host.alive or not far.is_open:
            return
        far.pipe = far.host.accepted(far, peer, own)
        far.await_arrival()

    def clear_up(self) -> None:
        """The weather is calm from now on, for every connection there is, too."""
        self.weather = CALM
        for end in self.ends:
            end.budget = None
            end.stalled_until = 0.0

    def crash(self, host: Socketed) -> None:
        """The sockets of *host* are gone at once; their peers notice soon."""
        for end in self.ends:
            if end.host is host:
                end.close()
