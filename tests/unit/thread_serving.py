"""A server on a loop in a thread, for tests of clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from mpmsgr import Dispatcher
from tests.unit.messenger_peers import place, serving

_WAIT_S = 10.0


class ThreadServer:
    """A `svc.0` with *dispatcher*; place: where it listens."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._serving = serving(dispatcher, drain_s=0.2)
        self.messenger = self.run(self._serving.__aenter__())
        self.place = place(self.messenger)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What *work* returns, on its loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    def stop(self) -> None:
        """End the messenger, the loop and the thread."""
        self.run(self._serving.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def serving_in_thread(dispatcher: Dispatcher) -> Iterator[ThreadServer]:
    """A server with *dispatcher*, stopped in the end."""
    server = ThreadServer(dispatcher)
    try:
        yield server
    finally:
        server.stop()
