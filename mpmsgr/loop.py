"""The event loop of our processes: uvloop on Linux, asyncio's own elsewhere."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

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
