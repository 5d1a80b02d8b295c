"""A service in the test's own process, where time passes only when the test says so."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.loop import LoopThread
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.sync import SyncConnection, connect_on
from mpmsgr.testing.clock import Clock, VirtualLoop
from mpmsgr.testing.cut import Cut, Way, check_free
from mpmsgr.testing.local import LocalService
from mpmsgr.testing.network import Network
from mpmsgr.testing.service import TIMEOUT_S
from mpmsgr.wire.address import EntityAddr

_HOST, _PORT = "192.0.2.2", 6800

T = TypeVar("T")


class VirtualService(LocalService):
    """A service and its clients on one loop with a clock of its own; made by `serve_virtual`.

    Connections are in memory. Every time-out of a client counts the clock's seconds.
    """

    def __init__(self, thread: LoopThread) -> None:
        super().__init__(thread)
        assert isinstance(thread.loop, VirtualLoop)
        self._loop = thread.loop

    @property
    def now(self) -> float:
        """The time, in seconds since some moment."""
        return self._loop.clock.now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass; returns when all that is due by then has been done."""
        self._thread.call(self._loop.clock.advance(seconds))

    async def _listen(self) -> None:
        messenger = self.messenger
        messenger.endpoint.addr = EntityAddr.of(_HOST, _PORT, messenger.addr.nonce)
        self._loop.network.listen(_HOST, _PORT, lambda: PipeTransport(messenger.driver, None))
        self.address = f"{_HOST}:{_PORT}"

    def connect(self, *, timeout: float = TIMEOUT_S, **options: Any) -> SyncConnection:
        """See `Service.connect`."""
        make = partial(_Client, clock=self._loop.clock)
        con = connect_on(self._thread, make, self.address, timeout=timeout, **options)
        return self._clients.enter_context(con)

    @asynccontextmanager
    async def aconnect(
        self, *, timeout: float = TIMEOUT_S, **options: Any
    ) -> AsyncIterator[MessengerConnection]:
        """Not here: the test's own loop has another clock."""
        raise NotImplementedError("a service with a virtual clock has blocking clients only")
        yield

    def _way(self, con: MessengerConnection) -> tuple[Way, LoopThread]:
        return _Wire(con, self._loop.network), self._thread

    @contextmanager
    def visit(self) -> Iterator[None]:
        """See `Service.visit`; at its end time flies, for clients wait for their last acks."""
        with super().visit():
            try:
                yield
            finally:
                self._thread.call(self._fly())

    async def _fly(self) -> None:
        self._loop.clock.fly()


class _Client(SyncConnection):
    """Raises AssertionError where it would wait for ever, as time stands still."""

    def __init__(self, con: MessengerConnection, loop: AbstractEventLoop, clock: Clock) -> None:
        super().__init__(con, loop)
        self._clock = clock

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        call = self._begin(work)
        with self._clock.waited_for(call):
            try:
                return call.result()
            except CancelledError:
                hint = "submit() the request, then advance() the service"
                raise AssertionError(f"nothing happens while time stands still: {hint}") from None


class _Wire:
    """The connection in memory of one client."""

    def __init__(self, con: MessengerConnection, network: Network) -> None:
        self._con, self._network = con, network

    def arrange(self, cut: Cut) -> None:
        """See `Way`."""
        pipe = self._con.session.pipe
        end = self._network.end_of(pipe.handle) if pipe is not None else None
        if end is None:
            raise ValueError(f"{self._con} is not connected, or no client of this service")
        self._end = end if cut.towards == "service" else end.other
        check_free(self._end.cut)
        self._end.cut = cut
        if not cut.left:
            self._end.break_off()

    def withdraw(self, cut: Cut) -> None:
        """See `Way`."""
        if self._end.cut is cut:
            self._end.cut = None


@contextmanager
def serve_virtual(
    *modules: str | Dispatcher, folder: Path | str = ".", config: Path | str | None = None
) -> Iterator[VirtualService]:
    """``with serve_virtual("shop.orders") as service``: as `serve_local`, with a virtual clock.

    ``service.advance(60)`` is a minute, for @every, Retry, time-outs, keepalives, at no cost.
    """
    with VirtualService.serving(modules, folder, config, VirtualLoop) as service:
        yield service
