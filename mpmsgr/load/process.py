"""Main of a load process: a plan comes in on stdin, progress and the report leave on stdout.

Lines of JSON. In: the plan, then ``go``; end of file ends the process. Out: ``{"op": "connected"}``
once every client has a session, ``{"op": "progress", "counts": {sent, answered, errors}}`` while
it runs, ``{"op": "report", "report": ...}`` at the end, or ``{"op": "failed", attempts, cause}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from mpmsgr import loop
from mpmsgr.errors import ConnectError
from mpmsgr.load.generator import Generator
from mpmsgr.load.plan import LoadPlan

_STDIN = 0


def main() -> int:
    """Run the plan on stdin; 0 if a report was written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = LoadPlan.from_dict(json.loads(sys.stdin.buffer.readline()))
    return loop.run(_serve(plan))


async def _serve(plan: LoadPlan) -> int:
    go = asyncio.Event()
    asyncio.get_running_loop().add_reader(_STDIN, _read_stdin, go)
    generator = Generator(plan, lambda counts: _say(op="progress", counts=counts))
    try:
        await generator.connect()
    except ConnectError as error:
        _say(op="failed", attempts=error.attempts, cause=str(error.cause))
        return 1
    _say(op="connected")
    await go.wait()
    report = await generator.run()
    await generator.close()
    _say(op="report", report=report.to_wire())
    return 0


def _read_stdin(go: asyncio.Event) -> None:
    if not os.read(_STDIN, 64):
        os._exit(1)
    go.set()


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
