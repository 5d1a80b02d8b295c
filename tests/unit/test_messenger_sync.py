"""The blocking client: from one thread or many, its errors, its pushes, its end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mpmsgr import (
    ConnectError,
    Connection,
    Message,
    RemoteError,
    RequestTimeout,
    SessionReset,
    sync,
)
from tests.support import eventually
from tests.unit.messenger_peers import ECHO, FAIL, PUSH, SILENT, Recorder
from tests.unit.thread_serving import ThreadServer, serving_in_thread

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


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with serving_in_thread(Pushes()) as server:
        yield server


def ask(con: sync.SyncConnection, text: bytes) -> bytes:
    return bytes(con.request(Message(ECHO, text), timeout=10).front)


def test_a_request(server: ThreadServer) -> None:
    with sync.connect(server.place, timeout=5) as con:
        assert ask(con, b"x") == b"x"
        assert con.send_message(Message(SILENT)) is True
        assert 0 <= con.ping(5) < 5
        assert con.connection.peer_addr == server.messenger.addr


def test_requests_that_are_not_waited_for(server: ThreadServer) -> None:
    with sync.connect(server.place, timeout=5) as con:
        silent, failed = con.submit(Message(SILENT)), con.submit(Message(FAIL))
        replies = [con.submit(Message(ECHO, b"%d" % i), timeout=10) for i in range(20)]
        assert [bytes(reply.result(10).front) for reply in replies] == [
            b"%d" % i for i in range(20)
        ]
        with pytest.raises(RemoteError, match="as it was told"):
            failed.result(10)
        assert not silent.done()
    assert isinstance(silent.exception(0), SessionReset), "the session is over"
    with pytest.raises(SessionReset):
        con.submit(Message(ECHO))


def test_many_threads(server: ThreadServer) -> None:
    with sync.connect(server.place, timeout=5) as con, ThreadPoolExecutor(8) as threads:
        texts = [b"%d" % i for i in range(400)]
        assert list(threads.map(lambda text: ask(con, text), texts)) == texts


def test_errors_are_those_of_the_other_client(server: ThreadServer) -> None:
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


def test_what_the_block_raises_comes_out(server: ThreadServer) -> None:
    with pytest.raises(KeyError, match="mine"), sync.connect(server.place, timeout=5):
        raise KeyError("mine")


def test_pushes_from_the_moment_they_are_asked_for(server: ThreadServer) -> None:
    with sync.connect(server.place, timeout=5) as con:
        pushes = con.messages(PUSH)
        con.request(Message(SPREAD, b"20"), timeout=5)
        assert [bytes(next(pushes).front) for _ in range(20)] == [b"%d" % i for i in range(20)]


def test_the_session_ends_while_threads_wait(server: ThreadServer) -> None:
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


def test_the_block_ends_while_threads_wait(server: ThreadServer) -> None:
    with ThreadPoolExecutor(1) as threads:
        with sync.connect(server.place, timeout=5) as con:
            waiting = threads.submit(con.request, Message(SILENT))
            eventually(lambda: con._calls)
        with pytest.raises(SessionReset):
            waiting.result(10)
        for call in (lambda: ask(con, b"x"), lambda: con.ping(5), lambda: con.messages(PUSH)):
            with pytest.raises(SessionReset):
                call()


def test_threads_that_go_on_asking_never_hang(server: ThreadServer) -> None:
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
