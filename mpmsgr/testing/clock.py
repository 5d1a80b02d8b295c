"""A loop whose time passes only when it is told to, and the clock that tells it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from mpmsgr.testing.network import Network

#: Never 0, which means "not yet" to some.
_BEGIN_S = 1000.0
#: Nothing happens for so long by the clock on the wall: what somebody waits for needs time to pass.
_STUCK_S = 3.0


class Clock:
    """The time of one loop, in seconds: it stands still but for `advance`.

    Whatever is due meanwhile happens at its time, in order. A jump is made when the loop has
    nothing else to do; what other threads do for it is not waited for.
    """

    def __init__(self) -> None:
        self.now = _BEGIN_S
        self._until = _BEGIN_S
        self._arrived: asyncio.Future[None] | None = None
        self._flies = False
        self._waiting: set[Future[Any]] = set()

    async def advance(self, seconds: float) -> None:
        """On the loop: let so much time pass; returns when all that is due by then is done."""
        if seconds < 0:
            raise ValueError(f"{seconds} s: time does not go back")
        if self._arrived is not None:
            raise RuntimeError("the clock is being advanced already")
        self._until = self.now + seconds
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            await self._arrived
        finally:
            self._arrived = None

    def fly(self) -> None:
        """From now on time passes by itself, as fast as it can: for the end."""
        self._flies = True

    def idle(self, seconds: float | None) -> bool:
        """The loop has nothing to do for *seconds* (None: for ever): jump, if time may pass.

        False: it may not.
        """
        if self._flies and seconds is not None:
            self.now += seconds
            return True
        if self._arrived is None or self._arrived.done():
            return False
        left = self._until - self.now
        if seconds is not None and seconds < left:
            self.now += seconds
        elif left > 0:
            self.now = self._until
        else:
            self._arrived.set_result(None)
        return True

    @contextmanager
    def waited_for(self, call: Future[Any]) -> Iterator[None]:
        """Within the block *call* is cancelled as soon as nothing happens without more time."""
        self._waiting.add(call)
        try:
            yield
        finally:
            self._waiting.discard(call)

    def waiting(self) -> list[Future[Any]]:
        """Calls that are waited for."""
        return list(self._waiting)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with *clock* for its time and *network*, in memory, for its connections."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(_Selector(self.clock))
        self.network = Network(self)

    def time(self) -> float:
        """The clock's."""
        return self.clock.now

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int
    ) -> tuple[asyncio.Transport, Any]:
        """To whoever listens there in the network. Raises ConnectionRefusedError."""
        return self.network.connect(protocol_factory, host, port)


class _Selector(selectors.DefaultSelector):
    """Asked by the loop to wait until its next timer, it has the clock jump there instead.

    Only the end of a wait for nothing is of interest: with a timeout of 0 the loop is not idle.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors`."""
        ready = super().select(0)
        if ready or timeout == 0 or self._clock.idle(timeout):
            return ready
        ready = super().select(_STUCK_S)
        if not ready:
            waiting = self._clock.waiting()
            ready = super().select(0)  # or a call that came just now has woken us
            for call in waiting if not ready else ():
                call.cancel()
        return ready
