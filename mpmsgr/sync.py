"""The blocking twin of `mpmsgr.connect`: the same code, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from mpmsgr.errors import SessionReset
from mpmsgr.loop import LoopThread
from mpmsgr.messenger.client import connect as _connect
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.stream import MessageStream
from mpmsgr.wire.crc import Bytes

T = TypeVar("T")
C = TypeVar("C", bound="SyncConnection")


class SyncConnection:
    """A connection whose methods block the calling thread; any thread may call them."""

    def __init__(self, con: MessengerConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._con, self._loop = con, loop
        self._lock = threading.Lock()
        self._calls: set[Future[Any]] = set()
        self._closed = False

    def request(self, m: Any, data: Bytes = b"", *, timeout: float | None = None) -> Any:
        """See `MessengerConnection.request`."""
        return self._wait(self._con.request(m, data, timeout=timeout))

    def submit(self, m: Any, data: Bytes = b"", *, timeout: float | None = None) -> Future[Any]:
        """Begin a `request` and do not wait for it: the future of its reply, or of its error."""
        return self._begin(self._con.request(m, data, timeout=timeout))

    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send_message`."""

        async def send() -> bool:
            return self._con.send_message(m, data)

        return self._wait(send())

    def ping(self, timeout: float | None = None) -> float:
        """See `MessengerConnection.ping`."""
        return self._wait(self._con.ping(timeout))

    def messages(self, type_: int | type) -> Iterator[Any]:
        """Pushed messages of *type_*, from now on; each step blocks until there is one."""

        async def begin() -> MessageStream:
            return self._con.messages(type_)

        return self._steps(self._wait(begin()))

    def _steps(self, stream: MessageStream) -> Iterator[Any]:
        while True:
            yield self._wait(stream.__anext__())

    @property
    def connection(self) -> MessengerConnection:
        """The connection underneath, for its facts."""
        return self._con

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._begin(work).result()

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._closed:
                work.close()
                raise SessionReset(self._con.peer_addr)
            call = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def close(self) -> None:
        """Refuse calls from now on; returns when those of other threads have ended."""
        with self._lock:
            self._closed = True
        wait(list(self._calls))


@contextmanager
def connect(addr: str, **options: Any) -> Iterator[SyncConnection]:
    """Connect to the service at *addr*; options and errors as in `mpmsgr.connect`."""
    with (
        LoopThread("mpmsgr.sync") as thread,
        connect_on(thread, SyncConnection, addr, **options) as con,
    ):
        yield con


@contextmanager
def connect_on(
    thread: LoopThread,
    make: Callable[[MessengerConnection, asyncio.AbstractEventLoop], C],
    addr: str,
    **options: Any,
) -> Iterator[C]:
    """The same with what *make* makes, on the loop of *thread*, which may do other things too."""
    entered = _connect(addr, **options)
    con = make(thread.call(entered.__aenter__()), thread.loop)
    try:
        yield con
    finally:
        thread.call(entered.__aexit__(None, None, None))
        con.close()
