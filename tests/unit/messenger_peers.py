"""What tests of the messenger share: both event loops, dispatchers that remember, a forwarder."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from mpmsgr import Connection, Dispatcher, Message, Messenger
from mpmsgr.messenger.connection import LocalConnection, MessengerConnection
from mpmsgr.session.endpoint import Timing
from tests.loopback import ANY_PORT

ECHO, SILENT, FAIL, PUSH = 0x8001, 0x9001, 0x9002, 0x9003
#: Nothing here takes so long; what hangs shall say where.
TEST_S = 30.0
#: Reconnects without waiting.
QUICK = Timing(initial_backoff_s=0.01, max_backoff_s=0.05)

Test = Callable[..., Coroutine[Any, Any, None]]


def both_loops(test: Test) -> Any:
    """The coroutine function as a test on asyncio's own loop and on uvloop."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(test(**fixtures), TEST_S))

    own = inspect.signature(test).parameters.values()
    factory = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([factory, *own])  # type: ignore[attr-defined]
    run.__name__, run.__module__, run.__doc__ = test.__name__, test.__module__, test.__doc__
    loops = [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ]
    return pytest.mark.parametrize("loop_factory", loops)(run)


class Recorder(Dispatcher):
    """Echoes, fails, or stays silent by type; remembers messages and events.

    echo: send the message back; fail: raise; anything else of *types* is only kept.
    """

    def __init__(self, *types: int) -> None:
        self.message_types: Collection[int] = types
        self.messages: list[Message] = []
        self.events: list[str] = []
        self.cons: list[Connection] = []

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        self.messages.append(m)
        if m.type == ECHO:
            con.send_message(m.reply(m.front, m.middle, m.data))
        elif m.type == FAIL:
            raise RuntimeError("as it was told")
        return None

    def handle_connect(self, con: Connection) -> None:
        self._event("connect", con)

    def handle_accept(self, con: Connection) -> None:
        self._event("accept", con)

    def handle_reset(self, con: Connection) -> None:
        self._event("reset", con)

    def handle_remote_reset(self, con: Connection) -> None:
        self._event("remote_reset", con)

    def handle_refused(self, con: Connection) -> None:
        self._event("refused", con)

    def _event(self, name: str, con: Connection) -> None:
        self.events.append(name)
        if con not in self.cons:
            self.cons.append(con)


@asynccontextmanager
async def serving(
    dispatcher: Dispatcher | None = None, bind: str = ANY_PORT, **options: Any
) -> AsyncIterator[Messenger]:
    """A bound `svc.0` with *dispatcher*, a `Recorder` by default."""
    async with Messenger("svc.0", **{"drain_s": 0.5, **options}) as server:
        server.add_dispatcher_tail(dispatcher or Recorder())
        await server.bind(bind)
        yield server


@asynccontextmanager
async def pair(
    dispatcher: Dispatcher | None = None, **options: Any
) -> AsyncIterator[tuple[Messenger, MessengerConnection]]:
    """A server and a client's open connection to it; *options* are the client messenger's."""
    async with serving(dispatcher) as server, client(**options) as messenger:
        yield server, await connected(messenger, place(server))


def client(**options: Any) -> Messenger:
    """A client that reconnects at once."""
    return Messenger("client.?", **{"drain_s": 0.5, "timing": QUICK, **options})


def peer(messenger: Messenger, addr: str, **options: Any) -> MessengerConnection:
    """A connection that opens in the background."""
    con = messenger.get_connection(addr, **options)
    assert isinstance(con, MessengerConnection)
    return con


async def connected(messenger: Messenger, addr: str, **options: Any) -> MessengerConnection:
    """An open connection."""
    con = peer(messenger, addr, **options)
    await con.wait_connected(5.0)
    return con


def place(messenger: Messenger) -> str:
    """HOST:PORT of a bound messenger."""
    return str(messenger.addr).partition("/")[0]


def server_side(server: Messenger) -> MessengerConnection:
    """The server's connection of its only session."""
    (session,) = server.endpoint.registry
    return server.connection_of(session)


def pending(con: LocalConnection) -> int:
    """Requests without a reply so far."""
    return len(con._requests)
