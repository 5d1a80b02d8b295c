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
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from random import Random
from typing import cast

import crc32c

from mpmsgr.loop import LoopThread
from mpmsgr.testing.proxy import Flow, Leg, Link, Place, Proxy


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


class FaultProxy(Proxy):
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
        super().__init__(target)
        self.kinds = tuple(kinds)
        self.mean_bytes = mean_bytes
        self.counts: Counter[str] = Counter()
        self._seed = seed

    def link(self) -> Link:
        """See `Proxy`."""
        self.counts["connections"] += 1
        return FaultyLink(self, Random(f"{self._seed}/{self.counts['connections']}"))


class FaultyLink(Link):
    """A link that *rng* has plans with."""

    def __init__(self, proxy: FaultProxy, rng: Random) -> None:
        self.rng = rng
        self._faulty = proxy
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(proxy)
        self.plan()

    def flow(self, to: Leg) -> FaultyFlow:
        """See `Link`."""
        return FaultyFlow(self, to)

    def plan(self) -> None:
        """Choose the next fault, and the byte of which flow it strikes at."""
        flow = cast(FaultyFlow, self.rng.choice((self.near, self.far)).flow)
        kind = self.rng.choice(self._faulty.kinds)
        early = not flow.passed and kind is not Kind.CORRUPT and self.rng.random() < 0.25
        mean = self._faulty.mean_bytes
        ahead = self.rng.random() * _HANDSHAKE_BYTES if early else self.rng.expovariate(1 / mean)
        flow.fault, flow.fault_at = kind, flow.passed + int(ahead)

    def strike(self, flow: FaultyFlow, kind: Kind) -> None:
        """The time of a fault has come."""
        self._faulty.counts[kind.value] += 1
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

    def gone(self) -> None:
        """See `Link`."""
        if self._timer is not None:
            self._timer.cancel()
        super().gone()


class FaultyFlow(Flow):
    """A flow with a fault ahead.

    fault: strikes when `passed` reaches `fault_at`; corrupt: as soon as there is a message.
    """

    def __init__(self, link: FaultyLink, to: Leg) -> None:
        super().__init__(to)
        self.fault: Kind | None = None
        self.fault_at = 0
        self.slow_left = 0
        self.corrupt = False
        self._link = link

    def step(self) -> None:
        """See `Flow`."""
        fault, room = self.fault, self.fault_at - self.passed
        if fault is not None and room <= 0:
            self.fault = None
            self.corrupt = fault is Kind.CORRUPT
            if not self.corrupt:
                self._link.strike(self, fault)
        elif self.slow_left:
            self.slow_left -= 1
            self.send(1)
            self.wait(_SLOW_TICK_S)
        elif fault is not None and room < len(self.queue):
            self.send(room)
        else:
            if self.corrupt and flip_bit(self.queue, self._link.rng):
                self._link.strike(self, Kind.CORRUPT)
            self.send(len(self.queue))


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


@contextmanager
def proxy_in_thread(proxy: FaultProxy) -> Iterator[Place]:
    """Run *proxy* on a loop of its own; yields where it listens."""
    with LoopThread("fault-proxy") as thread:
        place = thread.call(proxy.start())
        try:
            yield place
        finally:
            thread.call(proxy.close())


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
