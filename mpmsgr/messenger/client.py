"""`mpmsgr.connect`: a messenger and one connection, for programs that talk to one service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.messenger import Messenger


@asynccontextmanager
async def connect(
    addr: str,
    *,
    timeout: float | None = 10.0,
    name: str = "client.?",
    peer_type: str | int = "svc",
    dispatchers: Sequence[Dispatcher] = (),
    verify_address: bool = True,
    **options: Any,
) -> AsyncIterator[MessengerConnection]:
    """Connect to the service at *addr*, ``HOST:PORT[/NONCE]``; wait until the session is open.

    timeout: seconds for that; dispatchers: for messages that are neither replies nor streamed;
    options: of `Messenger`. Raises ConnectError with the last cause. Leaving the block waits for
    the acks of what was sent, then closes the session.
    """
    async with Messenger(name, **options) as messenger:
        for dispatcher in dispatchers:
            messenger.add_dispatcher_tail(dispatcher)
        con = messenger.get_connection(addr, peer_type, verify_address=verify_address)
        assert isinstance(con, MessengerConnection)
        try:
            await con.wait_connected(timeout)
        except BaseException:
            con.mark_down()
            raise
        yield con
