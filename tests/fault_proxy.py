"""A TCP proxy that breaks what goes through it: cut, stall, slow, half-open, corrupt.

Seeded: what befalls the n-th connection depends on the seed and n alone. In a process of its own:
``python -m tests.fault_proxy --listen HOST:PORT --target HOST:PORT --seed N``; TERM or Ctrl-C end
it, its last line tells how often what was done. In tests: `FaultProxy` on a loop, or
`proxy_in_thread`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from random import Random
from typing import cast

import crc32c

from tests.loopback import HOST

Place = tuple[str, int]


class Kind(Enum):
    """What can befall a connection."""

    CUT = "cut"  # both sockets closed, with or without RST
    STALL = "stall"  # one direction stands still for a while
    SLOW = "slow"  # some bytes of one direction arrive one by one
    HALF_OPEN = "half-open"  # one side is cut, the other is not told for a while
    CORRUPT = "corrupt"  # one bit of a message flips


ALL = tuple(Kind)
#: These end the connection, sooner or later.
FATAL = (Kind.CUT, Kind.HALF_OPEN, Kind.CORRUPT)

#: About where a handshake is, in bytes of one direction: every fourth fault happens there.
_HANDSHAKE_BYTES = 400
#: Longest pauses, in seconds: of a direction that stalls, of a side that is not told.
_STALL_S, _HOLD_S = 0.3, 0.5
_SLOW_TICK_S = 0.001
_SLOW_BYTES = 64
_MSG_TAG = 7
_HEADER = struct.Struct("<22xIII15xI")  # front, middle and data length, crc
_LINGER_RST = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards connections to *target* with faults of *kinds*, about one in *mean_bytes*.

    counts: connections and faults so far, by name.
    """

    def __init__(
        self,
        target: Place | None,
        seed: int,
        *,
        mean_bytes: int = 20_000,
        kinds: Sequence[Kind] = ALL,
    ) -> None:
        self.target = target
        self.kinds = tuple(kinds)
        self.mean_bytes = mean_bytes
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = HOST, port: int = 0) -> Place:
        """Accept from now on; returns where."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._link().near, host, port)
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    async def close(self) -> None:
        """Cut everything and stop."""
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.end()
        while self._links:
            await asyncio.sleep(0.001)
        await self._server.wait_closed()

    def forget(self, link: Link) -> None:
        """*link* has no socket any more."""
        self._links.discard(link)

    def _link(self) -> Link:
        self.counts["connections"] += 1
        link = Link(self, Random(f"{self._seed}/{self.counts['connections']}"))
        self._links.add(link)
        return link


class Link:
    """One proxied connection: a leg to the client (near), one to the server (far), two flows."""

    def __init__(self, proxy: FaultProxy, rng: Random) -> None:
        self.rng = rng
        self.near, self.far = Leg(self), Leg(self)
        self.near.flow, self.far.flow = Flow(self, self.far), Flow(self, self.near)
        self._proxy = proxy
        self._dial: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.plan()

    def plan(self) -> None:
        """Choose the next fault, and the byte of which flow it strikes at."""
        flow = self.rng.choice((self.near, self.far)).flow
        assert flow is not None
        kind = self.rng.choice(self._proxy.kinds)
        early = not flow.passed and kind is not Kind.CORRUPT and self.rng.random() < 0.25
        mean = self._proxy.mean_bytes
        ahead = self.rng.random() * _HANDSHAKE_BYTES if early else self.rng.expovariate(1 / mean)
        flow.fault, flow.fault_at = kind, flow.passed + int(ahead)

    def strike(self, flow: Flow, kind: Kind) -> None:
        """The time of a fault has come."""
        self._proxy.counts[kind.value] += 1
        if kind is Kind.CUT:
            self.end(reset=self.rng.random() < 0.5)
        elif kind is Kind.STALL:
            flow.wait(self.rng.random() * _STALL_S)
            self.plan()
        elif kind is Kind.SLOW:
            flow.slow_left = _SLOW_BYTES
            self.plan()
        elif kind is Kind.HALF_OPEN:
            self._half_open()
        else:
            flow.corrupt = False
            self.plan()

    def _half_open(self) -> None:
        gone, left = self.rng.sample((self.near, self.far), 2)
        for leg in (self.near, self.far):
            leg.swallow()
        gone.end(reset=True)
        hold_s = self.rng.random() * _HOLD_S
        self._timer = asyncio.get_running_loop().call_later(hold_s, left.end)

    def connected(self, leg: Leg) -> None:
        """A leg has its socket: the near one waits for the far one."""
        if leg is self.near:
            leg.hold("no far side", True)
            self._dial = asyncio.get_running_loop().create_task(self._connect())
        else:
            self.near.hold("no far side", False)

    async def _connect(self) -> None:
        target = self._proxy.target
        assert target is not None
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, *target)
        except OSError:
            self.end()
        if not self.near.alive:
            self.end()
        self._dial = None
        self._forget_if_gone()

    def lost(self, leg: Leg) -> None:
        """A socket is gone: end the other one, unless it is being deceived."""
        other = self.far if leg is self.near else self.near
        if not other.deceived:
            other.close()
        self._forget_if_gone()

    def _forget_if_gone(self) -> None:
        if self._dial is None and not self.near.alive and not self.far.alive:
            if self._timer is not None:
                self._timer.cancel()
            self._proxy.forget(self)

    def end(self, reset: bool = False) -> None:
        """Cut both."""
        for leg in (self.near, self.far):
            leg.end(reset)


class Flow:
    """Bytes of one direction on their way to leg *to*.

    fault: strikes when `passed` reaches `fault_at`; corrupt: as soon as there is a message.
    """

    def __init__(self, link: Link, to: Leg) -> None:
        self.to = to
        self.passed = 0
        self.fault: Kind | None = None
        self.fault_at = 0
        self.slow_left = 0
        self.corrupt = False
        self.swallowing = False
        self._link = link
        self._queue = bytearray()
        self._waiting: asyncio.TimerHandle | None = None

    def take(self, data: bytes) -> None:
        """Bytes came; send on what may go."""
        if not self.swallowing:
            self._queue += data
            self._pump()

    def wait(self, seconds: float) -> None:
        """Stand still."""
        self._waiting = asyncio.get_running_loop().call_later(seconds, self._go_on)

    def stop(self) -> None:
        """Send nothing any more."""
        self.swallowing = True
        self._queue.clear()
        if self._waiting is not None:
            self._waiting.cancel()

    def _go_on(self) -> None:
        self._waiting = None
        self._pump()

    def _pump(self) -> None:
        while self._queue and self._waiting is None:
            fault, room = self.fault, self.fault_at - self.passed
            if fault is not None and room <= 0:
                self.fault = None
                self.corrupt = fault is Kind.CORRUPT
                if not self.corrupt:
                    self._link.strike(self, fault)
            elif self.slow_left:
                self.slow_left -= 1
                self._pass(1)
                self.wait(_SLOW_TICK_S)
            elif fault is not None and room < len(self._queue):
                self._pass(room)
            else:
                if self.corrupt and flip_bit(self._queue, self._link.rng):
                    self._link.strike(self, Kind.CORRUPT)
                self._pass(len(self._queue))

    def _pass(self, size: int) -> None:
        self.passed += size
        self.to.write(bytes(self._queue[:size]))
        del self._queue[:size]


def flip_bit(data: bytearray, rng: Random) -> bool:
    """Flip one bit of the first message in *data*; False when none begins there.

    Only what its checksums cover, for no receiver could notice anything else: header, parts,
    and the checksums themselves.
    """
    for at in range(len(data) - _HEADER.size):
        if data[at] != _MSG_TAG:
            continue
        front, middle, rest, crc = _HEADER.unpack_from(data, at + 1)
        if crc32c.crc32c(data[at + 1 : at + 50], 0xFFFFFFFF) ^ 0xFFFFFFFF == crc:
            covered = min(_HEADER.size + front + middle + rest + 12, len(data) - at - 1)
            data[at + 1 + rng.randrange(covered)] ^= 1 << rng.randrange(8)
            return True
    return False


class Leg(asyncio.Protocol):
    """One socket of a link; *flow* takes what it reads."""

    flow: Flow

    def __init__(self, link: Link) -> None:
        self.alive = False
        self.deceived = False
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._holds: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.alive = True
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link.connected(self)

    def data_received(self, data: bytes) -> None:
        self.flow.take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive, self._transport = False, None
        self.flow.stop()
        self._link.lost(self)

    def pause_writing(self) -> None:
        self._source().hold("full", True)

    def resume_writing(self) -> None:
        self._source().hold("full", False)

    def _source(self) -> Leg:
        return self._link.far if self is self._link.near else self._link.near

    def hold(self, why: str, on: bool) -> None:
        """Read nothing as long as there is a reason not to."""
        before = bool(self._holds)
        self._holds = self._holds | {why} if on else self._holds - {why}
        if self._transport is not None and bool(self._holds) != before:
            if self._holds:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send *data*, if there is still a socket."""
        if self._transport is not None:
            self._transport.write(data)

    def swallow(self) -> None:
        """What this leg reads goes nowhere, and it is not told that the other one is gone."""
        self.deceived = True
        self.flow.stop()

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()

    def end(self, reset: bool = False) -> None:
        """Close at once; *reset*: with RST."""
        if self._transport is None:
            return
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
        self._transport.abort()


@contextmanager
def proxy_in_thread(proxy: FaultProxy) -> Iterator[Place]:
    """Run *proxy* on a loop of its own; yields where it listens."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(5.0)
    finally:
        asyncio.run_coroutine_threadsafe(proxy.close(), loop).result(5.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(args: argparse.Namespace) -> None:
    kinds = [Kind(name) for name in args.kind or ()] or ALL
    proxy = FaultProxy(args.target, args.seed, mean_bytes=args.mean_bytes, kinds=kinds)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    host, port = await proxy.start(*args.listen)
    print(f"ready on {host}:{port}", flush=True)
    await stopped.wait()
    await proxy.close()
    print(json.dumps(proxy.counts), flush=True)


def _place(text: str) -> Place:
    host, port = text.rsplit(":", 1)
    return host, int(port)


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="tests.fault_proxy")
    parser.add_argument("--listen", type=_place, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--target", type=_place, required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--mean-bytes", type=int, default=20_000, metavar="B")
    names = [kind.value for kind in Kind]
    parser.add_argument("--kind", action="append", choices=names, help="default: all")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
