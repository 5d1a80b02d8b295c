"""A service for tests of what its plugin may count on: with workers, or (`local`) without."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop

from mpmsgr import Message, Messenger, RemoteError
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from tests.loopback import ANY_PORT
from tests.unit.messenger_peers import TEST_S, client, connected, place
from tests.unit.pool_site import DeathError, Plugin, Site, chain_of
from tests.unit.pool_under_test import WAIT_S, Pool

Test = Callable[..., Coroutine[Any, Any, None]]


def on_uvloop(test: Test) -> Callable[..., None]:
    """The coroutine function as a test on the loop that servers use."""

    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(_handle)
            runner.run(asyncio.wait_for(test(*args, **kwargs), TEST_S))

    return functools.wraps(test)(run)


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), DeathError):
        loop.default_exception_handler(context)


#: The test runs with the handlers in the process of the sockets, and with two workers.
with_and_without_workers = pytest.mark.parametrize("workers", [0, 2], ids=["local", "pool"])


@asynccontextmanager
async def pool(
    plugin: Plugin, workers: int = 1, **options: Any
) -> AsyncIterator[tuple[Pool, Messenger]]:
    """A pool with *workers*, and a client's messenger; in the end all is accounted for."""
    with TemporaryDirectory(dir="/tmp") as directory:
        made = Pool(directory, plugin, **options)
        try:
            await made.start(workers)
            async with client(drain_s=0.1) as messenger:
                yield made, messenger
            await made.settled()
        finally:
            await made.stop()


@asynccontextmanager
async def service(
    plugin: Plugin, workers: int, **options: Any
) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """A server with *workers*, or without any, and a client's messenger."""
    if workers:
        async with pool(plugin, workers, **options) as (made, messenger):
            yield made.messenger, messenger
        return
    async with Messenger("svc.0", drain_s=0.1, **options) as server:
        await server.use_chain(chain_of(plugin(Site("local"))))
        await server.bind(ANY_PORT)
        async with client(drain_s=0.1) as messenger:
            yield server, messenger


@asynccontextmanager
async def pool_and_session(
    plugin: Plugin, workers: int = 1, **options: Any
) -> AsyncIterator[tuple[Pool, MessengerConnection]]:
    """A pool with *workers*, and an open connection of a client's."""
    async with pool(plugin, workers, **options) as (made, messenger):
        yield made, await session(made, messenger)


@asynccontextmanager
async def service_and_session(
    plugin: Plugin, workers: int, **options: Any
) -> AsyncIterator[tuple[Messenger, MessengerConnection]]:
    """A server with *workers*, or without any, and an open connection of a client's."""
    async with service(plugin, workers, **options) as (server, messenger):
        yield server, await session(server, messenger)


@asynccontextmanager
async def sessions(
    server: Pool | Messenger, count: int
) -> AsyncIterator[tuple[MessengerConnection, ...]]:
    """Open connections of so many clients."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(drain_s=0.1)) for _ in range(count)]
        yield tuple([await session(server, messenger) for messenger in clients])


async def session(server: Pool | Messenger, messenger: Messenger) -> MessengerConnection:
    """An open connection of the client's."""
    served = server.messenger if isinstance(server, Pool) else server
    return await connected(messenger, place(served))


def ask(
    con: MessengerConnection, type_: int, front: object = b"", **parts: Any
) -> asyncio.Task[Message]:
    """A request on its way; *front* as text."""
    raw = front if isinstance(front, bytes) else str(front).encode()
    return asyncio.ensure_future(con.request(Message(type_, raw, **parts), timeout=WAIT_S))


async def answer(con: MessengerConnection, type_: int, front: object = b"", **parts: Any) -> Any:
    """What a handler returns for it."""
    return unpack(await ask(con, type_, front, **parts))


async def refused(request: asyncio.Task[Message]) -> tuple[int, str]:
    """Code and text of the error reply to *request*."""
    with pytest.raises(RemoteError) as raised:
        await request
    return raised.value.code, raised.value.text


def text(m: Message) -> str:
    """The front of *m*."""
    return bytes(m.front).decode()
