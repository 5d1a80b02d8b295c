"""`mpmsgr serve` with faults in its configuration: lossless traffic through them is complete."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.session.endpoint import Timing
from tests.processes.pool_serving import Serve

COUNT, CLIENTS = 150, 5
#: Reconnects without waiting.
QUICK = Timing(initial_backoff_s=0.01, max_backoff_s=0.05)
ECHO = 0x9001

MODULES = {
    "notes": """
        from mpmsgr import handles

        @handles(0x9001)
        def echo(con, m):
            with open(f"seen-{con.peer_addr.nonce}", "a") as file:
                print(m.front.decode(), file=file)
            con.send_message(m.reply(m.front, data=m.data))
    """
}
TOML = """
    [inject]
    seed = 4
    socket_failures = 8
    short_reads = 0.1
    short_writes = 0.1
    delay_probability = 0.05
    delay_max_s = 0.01
    internal_delay_s = 0.001
"""


async def session(address: str) -> int:
    """Ask in windows of ten; the nonce by which the server knows us."""
    async with Messenger("client.?", timing=QUICK) as messenger:
        con: Any = messenger.get_connection(address)
        for first in range(0, COUNT, 10):
            asked = [
                Message(ECHO, b"%d" % i, data=bytes([i % 256]) * (50 * i))
                for i in range(first, first + 10)
            ]
            replies = await asyncio.gather(*(con.request(m, timeout=20) for m in asked))
            assert [(m.front, m.data) for m in replies] == [(m.front, m.data) for m in asked]
        assert con.last_reset is None
        return messenger.addr.nonce


@pytest.mark.parametrize("workers", [2, 0])
def test_everything_arrives_once_and_in_order(workers: int) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(session(server.address) for _ in range(CLIENTS)))

    with Serve(MODULES, workers=workers, toml=TOML) as server:
        for nonce in asyncio.run(asyncio.wait_for(main(), 60)):
            assert server.written(f"seen-{nonce}") == [str(i) for i in range(COUNT)]
        assert len(server.lines("injected socket failure")) >= 10
        server.stop()  # not always clean: the last acks may have gone with their sockets
