"""A TCP proxy that forwards every byte: what breaks connections in tests is built on it."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import cast

from mpmsgr.messenger.accepter import Accepter

Place = tuple[str, int]

#: SO_LINGER on, 0 seconds: closing sends RST.
_LINGER_RST = (1).to_bytes(4, sys.byteorder) + bytes(4)


class Proxy:
    """Forwards connections to *target*, on the running loop."""

    def __init__(self, target: Place | None) -> None:
        self.target = target
        self.links: set[Link] = set()
        self._accepter: Accepter | None = None
        self._all_gone = asyncio.Event()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Place:
        """Accept from now on; returns where."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        listener.setblocking(False)
        self._accepter = Accepter([listener], self._accepted)
        self._accepter.start()
        name = listener.getsockname()
        return name[0], name[1]

    async def close(self) -> None:
        """Cut everything and stop."""
        assert self._accepter is not None
        await self._accepter.stop()  # who was accepted is connected then: asyncio's does not wait
        for link in list(self.links):
            link.end()
        if self.links:
            await self._all_gone.wait()

    def _accepted(self) -> Leg:
        link = self.link()
        self.links.add(link)
        self._all_gone.clear()
        return link.near

    def gone(self, link: Link) -> None:
        """*link* has no socket any more."""
        self.links.discard(link)
        if not self.links:
            self._all_gone.set()

    def link(self) -> Link:
        """A link for a new connection."""
        return Link(self)


class Link:
    """One proxied connection: a leg to the client (near), one to the server (far), two flows."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.near, self.far = Leg(self), Leg(self)
        self.near.flow, self.far.flow = self.flow(self.far), self.flow(self.near)
        self._dial: asyncio.Task[None] | None = None

    def flow(self, to: Leg) -> Flow:
        """What goes to leg *to*."""
        return Flow(to)

    def connected(self, leg: Leg) -> None:
        """A leg has its socket: the near one waits for the far one."""
        if leg is self.near:
            leg.hold("no far side", True)
            self._dial = asyncio.get_running_loop().create_task(self._connect())
        else:
            self.near.hold("no far side", False)
            self.near.flow.go_on()

    async def _connect(self) -> None:
        assert self.proxy.target is not None
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, *self.proxy.target)
        except OSError:
            self.end()
        if not self.near.alive:
            self.end()
        self._dial = None
        self._forget_if_gone()

    def lost(self, leg: Leg) -> None:
        """A socket is gone: end the other one, unless it is being deceived."""
        other = self.other(leg)
        if not other.deceived:
            other.close()
        self._forget_if_gone()

    def other(self, leg: Leg) -> Leg:
        """The other leg."""
        return self.far if leg is self.near else self.near

    def _forget_if_gone(self) -> None:
        if self._dial is None and not self.near.alive and not self.far.alive:
            self.gone()

    def gone(self) -> None:
        """There is no socket any more."""
        self.proxy.gone(self)

    def end(self, reset: bool = False) -> None:
        """Cut both."""
        for leg in (self.near, self.far):
            leg.end(reset)


class Flow:
    """Bytes of one direction on their way to leg *to*; passed: how many went."""

    def __init__(self, to: Leg) -> None:
        self.to = to
        self.passed = 0
        self.swallowing = False
        self.queue = bytearray()
        self._waiting: asyncio.TimerHandle | None = None

    def take(self, data: bytes) -> None:
        """Bytes came; send on what may go."""
        if not self.swallowing:
            self.queue += data
            self._pump()

    def wait(self, seconds: float) -> None:
        """Stand still."""
        self._waiting = asyncio.get_running_loop().call_later(seconds, self.go_on)

    def stop(self) -> None:
        """Send nothing any more."""
        self.swallowing = True
        self.queue.clear()
        if self._waiting is not None:
            self._waiting.cancel()

    def go_on(self) -> None:
        """What it stood still for is over."""
        self._waiting = None
        self._pump()

    def _pump(self) -> None:
        # asyncio of Python 3.11.2 reads a socket that was paused when it came to be.
        while self.queue and self._waiting is None and not self.to.is_new:
            self.step()

    def step(self) -> None:
        """Something is queued: send some of it, or wait, or stop."""
        self.send(len(self.queue))

    def send(self, size: int) -> None:
        """Let *size* bytes pass."""
        self.passed += size
        self.to.write(bytes(self.queue[:size]))
        del self.queue[:size]


class Leg(asyncio.Protocol):
    """One socket of a link; *flow* takes what it reads."""

    flow: Flow

    def __init__(self, link: Link) -> None:
        self.is_new = True
        self.alive = False
        self.deceived = False
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._holds: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self.alive, self.is_new = True, False
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link.connected(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self.flow.take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.alive, self._transport = False, None
        self.flow.stop()
        self._link.lost(self)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._link.other(self).hold("full", True)

    def resume_writing(self) -> None:
        """See asyncio."""
        self._link.other(self).hold("full", False)

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
