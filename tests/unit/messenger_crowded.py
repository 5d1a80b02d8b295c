"""A server that may open few files: ``DESCRIPTORS``; says where it listens, then what happened.

It serves until its standard input ends; then it prints its accept errors and CPU seconds as JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from mpmsgr import Messenger, loop
from tests.loopback import ANY_PORT
from tests.unit.messenger_peers import Recorder, place


async def main() -> None:
    """Serve."""
    async with Messenger("svc.0", drain_s=0.1) as server:
        server.add_dispatcher_tail(Recorder())
        await server.bind(ANY_PORT)
        print(place(server), flush=True)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, ended.set)
        began = time.process_time()
        await ended.wait()
        (accepter,) = server.binding.accepters
        facts = {"errors": accepter.errors, "cpu_s": time.process_time() - began}
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    loop.run(main())
