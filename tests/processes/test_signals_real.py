"""Signals to a server whose worker is inside one long call into C."""

from __future__ import annotations

import os
import signal

from mpmsgr import Message, sync
from mpmsgr.cli.exit_codes import ExitCode
from tests.processes.pool_serving import IO, WORKER, Serve

MODULES = {
    "spins": """
        import re
        from mpmsgr import handles

        @handles(0x8001)
        def spin(con, m):
            open("begun", "w").close()
            re.match(r"(a+)+$", "a" * 60 + "b")
    """,
    "waits": """
        import asyncio
        from mpmsgr import handles

        @handles(0x8001)
        async def wait(con, m):
            open("begun", "w").close()
            await asyncio.Event().wait()
    """,
}


def test_the_life_of_a_server() -> None:
    with Serve(MODULES, "spins", workers=1, flags=("--graceful-timeout", "600")) as server:
        (io,), (worker,) = server.pids(IO), server.pids(WORKER)
        with sync.connect(server.address, timeout=10) as con:
            con.send_message(Message(0x8001, b""))
            server.until((server.directory / "begun").exists, "it spins")

            os.kill(worker, signal.SIGUSR1)
            server.until(lambda: server.lines(" in spin"), "its stacks")
            os.kill(io, signal.SIGUSR1)
            server.until(lambda: server.lines("stacks of the I/O process"), "its stacks")
            assert len(server.lines("WARNING")) == 2, "nobody minds"

            server.signal(signal.SIGTTIN)
            server.until(lambda: server.lines("worker 1 (generation 1) is ready"), "one more")
            server.signal(signal.SIGTTOU)
            server.until(lambda: server.pids(WORKER) == [worker], "one less: who has nothing to do")

            server.signal(signal.SIGINT)
            server.until(lambda: server.lines("got SIGINT"), "it stops")
            server.signal(signal.SIGINT)
            assert server.wait() == ExitCode.UNFINISHED
        assert server.lines("mpmsgr: stopped unfinished", "worker 0")


def test_what_no_worker_had_in_hand_is_missed_too() -> None:
    """Without workers nobody has to be killed for it."""
    with Serve(MODULES, "waits", workers=0, flags=("--graceful-timeout", "0.2")) as server:
        with sync.connect(server.address, timeout=10) as con:
            con.send_message(Message(0x8001, b""))
            server.until((server.directory / "begun").exists, "it waits")
            server.signal(signal.SIGTERM)
            assert server.wait() == ExitCode.UNFINISHED
        said = "mpmsgr: stopped unfinished: not everything in work was handled"
        assert server.lines(said), server.log
