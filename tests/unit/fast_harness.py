"""Services with fast dispatch: with workers, and without in both ways that it can be asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, Message, Messenger
from mpmsgr.dispatch.handlers import handles
from mpmsgr.messenger.fast import FastSink
from mpmsgr.pool.fast import FastService
from tests.loopback import ANY_PORT
from tests.unit.messenger_peers import client
from tests.unit.pool_harness import pool
from tests.unit.pool_site import Plugin, Site, chain_of

FAST, SLOW, BOTH = 0x9A01, 0x9A02, 0x9A03

#: Its dispatcher is added to an ordinary messenger; is one of a server's I/O modules, without
#: workers, and with them.
everywhere = pytest.mark.parametrize("setting", ["added", "local", "pool"])


class Quick(Dispatcher):
    """Echoes FAST, and notes what happens: (callback, connection id, front)."""

    message_types = frozenset({FAST})

    def __init__(self) -> None:
        self.log: list[tuple[str, int, bytes]] = []
        self.cons: list[Connection] = []

    def noted(self, *names: str) -> list[bytes]:
        """Fronts of what was noted under *names*."""
        return [front for name, _, front in self.log if name in names]

    def _note(self, name: str, con: Connection, front: Any = b"") -> None:
        self.log.append((name, con.id, bytes(front)))

    def can_fast_dispatch_any(self) -> bool:
        return True

    def handle_fast_connect(self, con: Connection) -> None:
        self._note("connect", con)
        self.cons.append(con)

    def handle_fast_accept(self, con: Connection) -> None:
        self._note("accept", con)
        self.cons.append(con)

    def fast_dispatch(self, con: Connection, m: Message) -> None:
        self._note("fast", con, m.front)
        con.send_message(m.reply(m.front, m.middle, m.data))


class Watcher(Quick):
    """Sees every message before it goes anywhere."""

    def fast_preprocess(self, con: Connection, m: Message) -> None:
        self._note("sees", con, m.front)


class Slow:
    """A plugin that answers SLOW with what it got, and keeps all else."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(SLOW)
        def slow(con: Connection, m: Message) -> Message:
            return m.reply(b"slow " + bytes(m.front))

        @handles(BOTH, FAST)
        def both(con: Connection, m: Message) -> None:
            self.messages.append(m)

        return [slow, both]


@asynccontextmanager
async def fast_service(
    quick: Dispatcher | Iterable[Dispatcher], setting: str, plugin: Plugin, **options: Any
) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """A server with *quick* dispatchers beside the *plugin*, and a client's messenger."""
    dispatchers = [quick] if isinstance(quick, Dispatcher) else list(quick)
    if setting == "pool":
        async with pool(plugin, 2, **options) as (made, messenger):
            service = FastService(made.messenger, made.front)
            await made.messenger.use_io_chain(chain_of(dispatchers), service.connection_of)
            yield made.messenger, messenger
        return
    async with Messenger("svc.0", drain_s=0.1, **options) as server:
        await server.use_chain(chain_of(plugin(Site("local"))))
        if setting == "added":
            for dispatcher in dispatchers:
                server.add_dispatcher_head(dispatcher)
        else:
            await server.use_io_chain(chain_of(dispatchers))
        await server.bind(ANY_PORT)
        async with client(drain_s=0.1) as messenger:
            yield server, messenger


def fast_sink(server: Messenger) -> FastSink:
    """What is between sessions and dispatchers there."""
    assert isinstance(server.driver.sink, FastSink)
    return server.driver.sink
