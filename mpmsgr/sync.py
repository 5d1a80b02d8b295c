"""The blocking twin of `mpmsgr.connect`: the same code, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from mpmsgr.errors import SessionReset
from mpmsgr.messenger.client import connect as _connect
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.stream import MessageStream
from mpmsgr.wire.crc import Bytes

T = TypeVar("T")


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
        with self._lock:
            if self._closed:
                work.close()
                raise SessionReset(self._con.peer_addr)
            call = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._calls.add(call)
        try:
            return call.result()
        finally:
            self._calls.discard(call)

    def close(self) -> None:
        """Refuse calls from now on; returns when those of other threads have ended."""
        with self._lock:
            self._closed = True
        wait(list(self._calls))


@contextmanager
def connect(addr: str, **options: Any) -> Iterator[SyncConnection]:
    """Connect to the service at *addr*; options and errors as in `mpmsgr.connect`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mpmsgr.sync", daemon=True)
    thread.start()
    try:
        entered = _connect(addr, **options)
        opened = asyncio.run_coroutine_threadsafe(entered.__aenter__(), loop).result()
        con = SyncConnection(opened, loop)
        try:
            yield con
        finally:
            asyncio.run_coroutine_threadsafe(entered.__aexit__(None, None, None), loop).result()
            con.close()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
