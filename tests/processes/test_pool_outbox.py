"""Clients that do not read, against a real server: what waits, what is dropped, what is said."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.supervisor import ExitCode
from tests.processes.pool_serving import WORKER, Serve, kill
from tests.support import eventually_async

ECHO, STREAM, TELL, FILL, WHO, PUSH = 0x9001, 0x9002, 0x9003, 0x9004, 0x9005, 0x9006
WAIT_S = 20.0

MODULES = {
    "talks": """
        import os
        from mpmsgr import Message, OutboxFull, handles

        def note(file, text):
            with open(file, "a") as lines:
                print(text, file=lines)

        @handles(0x9001)
        def echo(con, m):
            note("echoed", m.front.decode())
            con.send_message(m.reply(m.front))

        @handles(0x9002, streaming=True)
        async def stream(con, m):
            count = int(m.front)
            for number in range(count):
                await con.send(Message(0x9006, b"%d" % number, data=bytes(1000)))
                note("streamed", con.id)
            return count

        @handles(0x9003)
        def tell(con, m):
            there = con.connection(int(m.front))
            for number in range(100):
                there.send_message(Message(0x9006, b"%d" % number, data=bytes(1000)))
            return os.getpid()

        @handles(0x9004, streaming=True)
        def fill(con, m):
            try:
                while True:
                    con.send_message(Message(0x9006, data=bytes(1000)))
            except OutboxFull:
                note("filled", con.id)

        @handles(0x9005)
        def who(con, m):
            return [os.getpid(), con.id]
    """
}
TOML = """
    dispatch_bytes = 100000
    [policy.client]
    outbox_bytes = "20000"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    with Serve(MODULES, toml=TOML) as server:
        yield server


@asynccontextmanager
async def connection(server: Serve) -> Any:
    """An open connection of a client of its own."""
    async with Messenger("client.?", drain_s=0.1) as messenger:
        con = messenger.get_connection(server.address)
        assert isinstance(con, MessengerConnection)
        await con.wait_connected(WAIT_S)
        yield con


def handle(con: MessengerConnection) -> PipeTransport:
    assert con.session.pipe is not None
    assert isinstance(con.session.pipe.handle, PipeTransport)
    return con.session.pipe.handle


def ask(con: MessengerConnection, type_: int, front: object = "", size: int = 0) -> Any:
    m = Message(type_, str(front).encode(), data=bytes(size))
    return asyncio.ensure_future(con.request(m, timeout=WAIT_S))


async def fill(server: Serve, con: MessengerConnection, other: MessengerConnection) -> None:
    """Have the outbox of *con* filled with what it does not read."""
    con.messages(PUSH)
    before = len(server.written("filled"))
    handle(con).pause_reading()
    con.send_message(Message(FILL))
    await eventually_async(lambda: len(server.written("filled")) > before, WAIT_S)
    await several(other)


async def several(other: MessengerConnection) -> None:
    """So many round trips that whatever else was to be done has been done."""
    for _ in range(50):
        await ask(other, ECHO, "other", 5000)


def echoed(server: Serve) -> list[str]:
    """What was echoed to others than `several`."""
    return [line for line in server.written("echoed") if line != "other"]


async def streamed(server: Serve, con: MessengerConnection) -> None:
    """A handler of *con* pushes, and must be waiting for room."""
    before = len(server.written("streamed"))
    await eventually_async(lambda: len(server.written("streamed")) >= before + 15, WAIT_S)


def numbers(messages: list[Message]) -> list[int]:
    return [int(m.front) for m in messages]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 2 * WAIT_S))


def test_a_slow_reader_slows_its_handler_and_nobody_else(server: Serve) -> None:
    async def main() -> None:
        async with connection(server) as con, connection(server) as other:
            pushes = con.messages(PUSH)
            handle(con).pause_reading()
            asked = ask(con, STREAM, 200)
            await streamed(server, con)
            await several(other)
            assert len(server.written("streamed")) < 100
            handle(con).resume_reading()
            assert numbers([await anext(pushes) for _ in range(200)]) == list(range(200))
            assert unpack(await asked) == 200

    run(main())
    assert server.lines("pushes dropped") == []


def test_requests_of_a_full_session_wait_beyond_the_memory_of_the_dispatch(server: Serve) -> None:
    async def main() -> None:
        async with connection(server) as con, connection(server) as other:
            await fill(server, con, other)
            before = echoed(server)
            asked = [ask(con, ECHO, i, 1000) for i in range(200)]
            await several(other)
            assert echoed(server) == before
            handle(con).resume_reading()
            assert numbers(await asyncio.gather(*asked)) == list(range(200))

    run(main())
    assert server.lines("requests without end") == []


def test_a_flood_is_refused_and_loses_nothing(server: Serve) -> None:
    async def main() -> None:
        async with connection(server) as con, connection(server) as other:
            await fill(server, con, other)
            asked = [ask(con, ECHO, i, 10_000) for i in range(100)]
            await eventually_async(lambda: server.lines("requests without end"), WAIT_S)
            handle(con).resume_reading()
            assert numbers(await asyncio.gather(*asked)) == list(range(100))
            assert con.last_reset is None

    run(main())


def test_pushes_from_another_worker_are_dropped_with_a_word(server: Serve) -> None:
    async def main() -> None:
        async with connection(server) as con, connection(server) as other:
            pushes = con.messages(PUSH)
            pid, id_ = unpack(await ask(con, WHO))
            handle(con).pause_reading()
            assert unpack(await ask(other, TELL, id_)) != pid
            await eventually_async(lambda: server.lines("pushes dropped"), WAIT_S)
            (dropped,) = re.findall(r"(\d+) pushes dropped", server.log)
            handle(con).resume_reading()
            got = numbers([await anext(pushes) for _ in range(100 - int(dropped))])
            assert got == list(range(100 - int(dropped)))

    run(main())


def test_a_worker_dies_while_a_session_is_held(server: Serve) -> None:
    async def main() -> None:
        async with connection(server) as con, connection(server) as other:
            pid, _ = unpack(await ask(con, WHO))
            await fill(server, con, other)
            asked = [ask(con, ECHO, i) for i in range(50)]
            await several(other)
            kill(pid)
            await eventually_async(lambda: pid not in server.pids(WORKER), WAIT_S)
            handle(con).resume_reading()
            assert numbers(await asyncio.gather(*asked)) == list(range(50))

    run(main())


def test_a_worker_dies_while_its_handler_waits_for_room(server: Serve) -> None:
    async def main() -> None:
        async with connection(server) as con:
            pushes = con.messages(PUSH)
            pid, _ = unpack(await ask(con, WHO))
            handle(con).pause_reading()
            asked = ask(con, STREAM, 100)
            await streamed(server, con)
            kill(pid)
            await eventually_async(lambda: pid not in server.pids(WORKER), WAIT_S)
            handle(con).resume_reading()
            assert unpack(await asked) == 100
            got = numbers([await anext(pushes) for _ in range(len(pushes._queue))])
            before = len(got) - 100
            assert 0 < before < 100, "what a handler streamed before it died has left"
            assert got == [*range(before), *range(100)]

    run(main())


def test_a_stop_says_what_was_not_delivered() -> None:
    with Serve(MODULES, toml=TOML, workers=1, flags=("--graceful-timeout", "0.5")) as server:

        async def main() -> None:
            async with connection(server) as con:
                con.messages(PUSH)
                handle(con).pause_reading()
                con.send_message(Message(STREAM, b"100"))
                await streamed(server, con)
                assert await asyncio.to_thread(server.stop) == ExitCode.UNFINISHED

        run(main())
        (line,) = server.lines("was reset,")
        (last,) = server.lines("stopped unfinished")
        said = re.search(r"session with 127.0.0.1:0/\d+ was reset, (\d+) messages dropped", line)
        assert said
        assert f"{said[1]} messages undelivered" in last
        assert 20 <= int(said[1]) <= 50
