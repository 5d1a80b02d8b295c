"""Event loops: that of our processes (uvloop on Linux, else asyncio's own), and one in a thread."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

#: Objects made before the collector looks for cycles again. Messages and parcels are many, live for
#: milliseconds and form no cycles; with the default of 700 it walks those in flight all the time.
_GC_THRESHOLDS = (20_000, 20, 20)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on the best loop there is."""
    factory = None
    if sys.platform.startswith("linux"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def relax_collector() -> None:
    """Have the cycle collector look less often, and never at what exists now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


class LoopThread:
    """While entered, *loop* (a new one of asyncio's by default) runs in a thread of its own."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.call(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* there; what it returns or raises."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()
