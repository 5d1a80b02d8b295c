"""Clients of a `Serve`, as tests of the pool run them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

from mpmsgr import Connection, Dispatcher, Message, Messenger
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_serving import WORKER, Serve

WAIT_S = 30.0


class Strays(Dispatcher):
    """Keeps what comes to a client without being a reply that somebody waits for."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def dispatch(self, con: Connection, m: Message) -> bool:
        """Take everything."""
        self.messages.append(m)
        return True


@contextlib.asynccontextmanager
async def session(
    server: Serve, strays: Strays | None = None
) -> AsyncIterator[MessengerConnection]:
    """An open session, of a client of its own."""
    async with Messenger("client.?", drain_s=0.5) as messenger:
        if strays is not None:
            messenger.add_dispatcher_head(strays)
        con = messenger.get_connection(server.address)
        assert isinstance(con, MessengerConnection)
        await con.wait_connected(WAIT_S)
        yield con


@contextlib.asynccontextmanager
async def sessions(server: Serve, count: int) -> AsyncIterator[list[MessengerConnection]]:
    """So many of them."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(session(server)) for _ in range(count)]


async def settle(server: Serve, who: int, workers: int) -> None:
    """Have each of the *workers* answer once more: all that it said before has arrived then.

    who: a message type that is answered with the pid of its worker.
    """

    async def answers() -> list[int]:
        async with sessions(server, 2 * workers) as cons:
            replies = [await con.request(Message(who), timeout=WAIT_S) for con in cons]
        return sorted({unpack(reply) for reply in replies})

    deadline = time.monotonic() + WAIT_S
    while len(pids := server.pids(WORKER)) < workers or await answers() != pids:
        assert time.monotonic() < deadline, f"of the workers {pids} not all answer"
