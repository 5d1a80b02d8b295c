"""The blocking client: from one thread or many, its errors, its pushes, its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mpmsgr import (
    ConnectError,
    Connection,
    Message,
    Messenger,
    RemoteError,
    RequestTimeout,
    SessionReset,
    sync,
)
from tests.loopback import ANY_PORT
from tests.support import eventually
from tests.unit.messenger_peers import ECHO, FAIL, PUSH, SILENT, Recorder, place

SPREAD = 0x9010


class Pushes(Recorder):
    """For SPREAD: pushes as many messages as front says, before and after the reply."""

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        if m.type != SPREAD:
            return super().dispatch(con, m)
        count = int(bytes(m.front))
        for i in range(count):
            con.send_message(Message(PUSH, b"%d" % i))
        con.send_message(m.reply())
        return None


class Server:
    """A messenger on a loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.messenger = self.run(self._start())
        self.place = place(self.messenger)

    async def _start(self) -> Messenger:
        messenger = Messenger("svc.0", drain_s=0.2)
        messenger.add_dispatcher_tail(Pushes())
        await messenger.bind(ANY_PORT)
        return messenger

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def stop(self) -> None:
        self.run(self.messenger.shutdown())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def ask(con: sync.SyncConnection, text: bytes) -> bytes:
    return bytes(con.request(Message(ECHO, text), timeout=10).front)


def test_a_request(server: Server) -> None:
    with sync.connect(server.place, timeout=5) as con:
        assert ask(con, b"x") == b"x"
        assert con.send_message(Message(SILENT)) is True
        assert 0 <= con.ping(5) < 5
        assert con.connection.peer_addr == server.messenger.addr


def test_many_threads(server: Server) -> None:
    with sync.connect(server.place, timeout=5) as con, ThreadPoolExecutor(8) as threads:
        texts = [b"%d" % i for i in range(400)]
        assert list(threads.map(lambda text: ask(con, text), texts)) == texts


def test_errors_are_those_of_the_other_client(server: Server) -> None:
    with sync.connect(server.place, timeout=5) as con:
        with pytest.raises(RemoteError, match="as it was told"):
            con.request(Message(FAIL), timeout=5)
        with pytest.raises(RequestTimeout):
            con.request(Message(SILENT), timeout=0.02)
        with pytest.raises(TypeError, match="neither a message type number"):
            con.messages(str)


def test_nobody_there() -> None:
    with (
        pytest.raises(ConnectError, match="Connection refused"),
        sync.connect("127.0.0.1:1", timeout=0.1),
    ):
        raise AssertionError("not reached")


def test_what_the_block_raises_comes_out(server: Server) -> None:
    with pytest.raises(KeyError, match="mine"), sync.connect(server.place, timeout=5):
        raise KeyError("mine")


def test_pushes_from_the_moment_they_are_asked_for(server: Server) -> None:
    with sync.connect(server.place, timeout=5) as con:
        pushes = con.messages(PUSH)
        con.request(Message(SPREAD, b"20"), timeout=5)
        assert [bytes(next(pushes).front) for _ in range(20)] == [b"%d" % i for i in range(20)]


def test_the_session_ends_while_threads_wait(server: Server) -> None:
    with sync.connect(server.place, timeout=5) as con, ThreadPoolExecutor(3) as threads:
        pushes = con.messages(PUSH)
        waiting = [
            threads.submit(con.request, Message(SILENT)),
            threads.submit(con.request, Message(SILENT)),
            threads.submit(next, pushes),
        ]
        eventually(lambda: len(con._calls) == 3)
        server.run(server.messenger.shutdown())
        for call in waiting:
            with pytest.raises(SessionReset):
                call.result(10)


def test_the_block_ends_while_threads_wait(server: Server) -> None:
    with ThreadPoolExecutor(1) as threads:
        with sync.connect(server.place, timeout=5) as con:
            waiting = threads.submit(con.request, Message(SILENT))
            eventually(lambda: con._calls)
        with pytest.raises(SessionReset):
            waiting.result(10)
        for call in (lambda: ask(con, b"x"), lambda: con.ping(5), lambda: con.messages(PUSH)):
            with pytest.raises(SessionReset):
                call()


def test_threads_that_go_on_asking_never_hang(server: Server) -> None:
    def ask_on(con: sync.SyncConnection) -> int:
        for count in range(1_000_000):
            try:
                ask(con, b"x")
            except SessionReset:
                return count
        raise AssertionError("it never ended")

    with ThreadPoolExecutor(4) as threads:
        with sync.connect(server.place, timeout=5) as con:
            counts = [threads.submit(ask_on, con) for _ in range(4)]
            for _ in range(20):
                ask(con, b"y")
        assert all(count.result(10) > 0 for count in counts)
