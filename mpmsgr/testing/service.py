"""A service under test, as its clients see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

from mpmsgr import sync
from mpmsgr.loop import LoopThread
from mpmsgr.messenger.client import connect
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.sync import SyncConnection
from mpmsgr.testing.cut import Cut, Line, Towards, Way
from mpmsgr.testing.mishap import Mishap
from mpmsgr.wire.address import split_address

TIMEOUT_S = 10.0
#: How long a client that ends waits for the acks of what it sent, in seconds.
_DRAIN_S = 1.0
_Client = MessengerConnection | SyncConnection


class Service:
    """What all services under test can do. *address*: HOST:PORT, for clients of any kind.

    Clients made here reach it through a proxy each, so that they can be `cut` off.
    """

    def __init__(self) -> None:
        self.address = ""
        self._clients = ExitStack()
        self._lines: dict[MessengerConnection, Line] = {}
        self._proxies: LoopThread | None = None
        self._mishaps: list[Mishap] = []
        self._stack = ExitStack()

    # clients

    def connect(self, *, timeout: float = TIMEOUT_S, **options: Any) -> SyncConnection:
        """A new session, which ends with the test; options as for `mpmsgr.connect`."""
        options = {"drain_s": _DRAIN_S, "verify_address": False, **options}
        line = self._clients.enter_context(self._line())
        con = self._clients.enter_context(
            sync.connect("{}:{}".format(*line.place), timeout=timeout, **options)
        )
        self._known(con.connection, line)
        return con

    @asynccontextmanager
    async def aconnect(
        self, *, timeout: float = TIMEOUT_S, **options: Any
    ) -> AsyncIterator[MessengerConnection]:
        """The same for coroutines: ``async with service.aconnect() as con``."""
        options = {"drain_s": _DRAIN_S, "verify_address": False, **options}
        with self._line() as line:
            async with connect("{}:{}".format(*line.place), timeout=timeout, **options) as con:
                self._known(con, line)
                yield con

    @contextmanager
    def _line(self) -> Iterator[Line]:
        if self._proxies is None:
            self._proxies = self._clients.enter_context(LoopThread("mpmsgr.testing"))
        host, port, _ = split_address(self.address)
        line = Line((host, port), self._proxies)
        try:
            yield line
        finally:
            line.hang_up()

    def _known(self, con: MessengerConnection, line: Line) -> None:
        self._lines = {con: line for con, line in self._lines.items() if not con.failed}
        self._lines[con] = line

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Within the block: a test. Clients that it makes end with it, and what it arranged to go
        wrong must have happened.
        """
        before = self._clients, self._mishaps, self._proxies
        self._clients, self._mishaps, self._proxies = ExitStack(), [], None
        try:
            with self._clients:
                yield
                self._wait_for_mishaps()
        finally:
            for mishap in self._mishaps:
                mishap.cancel()
            self._clients, self._mishaps, self._proxies = before

    def _wait_for_mishaps(self) -> None:
        for mishap in self._mishaps:
            if not mishap.settled:
                mishap.wait()

    # what goes wrong

    def cut(
        self,
        client: _Client,
        *,
        byte: int = 0,
        towards: Towards = "service",
        timeout: float = TIMEOUT_S,
    ) -> Cut:
        """Break the TCP connection of *client*, which this service made, as soon as *byte* more
        bytes have passed *towards* the service or the client: all of them arrive, and nothing else.
        0: now. Returns at once: see `Mishap`.
        """
        way, thread = self._way(client.connection if isinstance(client, SyncConnection) else client)
        cut = Cut(way, thread, byte, towards, timeout)
        self._mishaps.append(cut)
        return cut

    def _way(self, con: MessengerConnection) -> tuple[Way, LoopThread]:
        line = self._lines.get(con)
        if line is None:
            raise ValueError(f"{con} is no client that this service made")
        return line, line.thread
