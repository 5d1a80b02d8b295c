"""Main of a load process: a plan comes in on stdin, progress and the report leave on stdout.

Lines of JSON. In: the plan, ``"go"``, and ``"stop"`` to send no more; end of file ends the process.
Out: ``{"op": "connected"}`` once every client has a session, ``{"op": "progress", "counts": {sent,
answered, errors}}`` while it runs, ``{"op": "report", "report": ...}`` at the end, or
``{"op": "failed", attempts, cause}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from mpmsgr import loop
from mpmsgr.errors import ConnectError
from mpmsgr.load.generator import Generator
from mpmsgr.load.plan import LoadPlan


def main() -> int:
    """Run the plan on stdin; 0 if a report was written."""
    plan = LoadPlan.from_dict(json.loads(sys.stdin.readline()))
    return loop.run(_serve(plan))


async def _serve(plan: LoadPlan) -> int:
    generator = Generator(plan, lambda counts: _say(op="progress", counts=counts))
    orders = _Orders(generator)
    try:
        await generator.connect()
    except ConnectError as error:
        await generator.close()
        _say(op="failed", attempts=error.attempts, cause=str(error.cause or ""))
        return 1
    loop.relax_collector()
    _say(op="connected")
    await orders.go.wait()
    report = await generator.run()
    await generator.close()
    _say(op="report", report=report.to_wire())
    return 0


class _Orders:
    """What the parent says after the plan."""

    def __init__(self, generator: Generator) -> None:
        self.go = asyncio.Event()
        self._generator = generator
        asyncio.get_running_loop().add_reader(sys.stdin, self._read)

    def _read(self) -> None:
        orders = os.read(sys.stdin.fileno(), 256)
        if not orders:
            os._exit(1)
        if b"go" in orders:
            self.go.set()
        if b"stop" in orders:
            self._generator.stop_sending()


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
