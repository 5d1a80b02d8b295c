"""A connection that is made and reset before the event loop hears of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from mpmsgr import Message
from mpmsgr.messenger.connection import MessengerConnection
from tests.loopback import HOST
from tests.support import eventually_async
from tests.unit.messenger_peers import ECHO, both_loops, client, connected, place, serving

_LINGER_RST = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    """Close *sock* with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
    sock.close()


def unhandled() -> list[dict[str, Any]]:
    """What the running loop has to complain about, from now on."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(context))
    return found


@both_loops
async def test_a_server_takes_no_notice() -> None:
    async with serving() as server, client() as messenger:
        complaints = unhandled()
        for _ in range(3):
            reset(socket.create_connection((server.addr.host, server.addr.port)))
        con = await connected(messenger, place(server))
        await con.request(Message(ECHO, b"still there"), timeout=5.0)
        assert not complaints
        assert server.endpoint.counters.accepted == 1


def test_a_client_tries_again_at_once() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        connect = loop.create_connection
        hostile = socket.create_server((HOST, 0))
        resets = 0

        async def connect_and_be_reset(factory: Any, host: str, port: int) -> Any:
            nonlocal resets
            if resets == 2:
                return await connect(factory, host, port)
            sock = socket.create_connection(hostile.getsockname())
            sock.setblocking(False)
            reset(hostile.accept()[0])
            await eventually_async(lambda: _is_gone(sock))
            resets += 1
            return await connect(factory, sock=sock)

        loop.create_connection = connect_and_be_reset
        complaints = unhandled()
        async with serving() as server, client() as messenger:
            con = messenger.get_connection(place(server))
            assert isinstance(con, MessengerConnection)
            await con.wait_connected(5.0)
        assert resets == 2
        assert not complaints
        hostile.close()

    asyncio.run(main())


def _is_gone(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return True
    return False
