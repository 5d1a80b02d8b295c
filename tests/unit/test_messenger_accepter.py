"""Accept errors: a pause, never the end, never a busy loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import subprocess
import sys
import time
from resource import RLIM_INFINITY
from typing import Any

import pytest

from mpmsgr import Message, sync
from mpmsgr.messenger import accepter as module
from mpmsgr.messenger.accepter import Accepter, bind_sockets, check_fd_limit
from tests.loopback import ANY_PORT
from tests.support import eventually, eventually_async
from tests.unit.messenger_peers import ECHO, both_loops

DESCRIPTORS = 40


class Listener:
    """A listening socket whose accept fails as long as *error* is set; counts its calls."""

    def __init__(self) -> None:
        (self.socket,) = bind_sockets([ANY_PORT])
        self.error = 0
        self.calls = 0

    def accept(self) -> Any:
        self.calls += 1
        if self.error:
            raise OSError(self.error, "on purpose")
        return self.socket.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)


class Protocol(asyncio.Protocol):
    """Counts connections, and closes them."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).count += 1
        transport.close()


def dial(listener: Listener) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=5)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "_MAX_PAUSE_S", 0.04)
    monkeypatch.setattr(Protocol, "count", 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.usefixtures("_quick")
@both_loops
async def test_an_error_pauses_and_then_all_goes_on(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()
    accepter = Accepter([listener], Protocol)  # type: ignore[list-item]
    listener.error = number
    accepter.start()
    with dial(listener), dial(listener):
        began = time.monotonic()
        await eventually_async(lambda: accepter.errors >= 4)
        assert time.monotonic() - began >= 0.01 + 0.02 + 0.04, "longer each time"
        assert listener.calls <= 2 * accepter.errors + 2, "it does not spin"
        assert Protocol.count == 0
        listener.error = 0
        await eventually_async(lambda: Protocol.count == 2)
    assert len(caplog.records) == accepter.errors
    assert "accepting failed (on purpose), again in 0.01 s" in caplog.text
    with dial(listener):
        await eventually_async(lambda: Protocol.count == 3)
    await accepter.stop()


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
@pytest.mark.usefixtures("_quick")
@both_loops
async def test_an_error_of_one_connection_is_nothing(number: int) -> None:
    class Once(Listener):
        def accept(self) -> Any:
            self.calls += 1
            if self.calls == 1:
                raise OSError(number, "on purpose")
            return self.socket.accept()

    listener = Once()
    accepter = Accepter([listener], Protocol)  # type: ignore[list-item]
    accepter.start()
    with dial(listener):
        await eventually_async(lambda: Protocol.count == 1)
    assert accepter.errors == 0
    await accepter.stop()


@both_loops
async def test_a_socket_that_another_process_shut_down() -> None:
    listener = Listener()
    accepter = Accepter([listener], Protocol)  # type: ignore[list-item]
    accepter.start()
    copy = listener.dup()
    copy.shutdown(socket.SHUT_RDWR)
    copy.close()
    await eventually_async(lambda: listener.calls)
    calls = listener.calls
    await asyncio.sleep(0.02)
    assert listener.calls == calls, "it is not asked again"
    await accepter.stop()


@both_loops
async def test_stopping_refuses_for_copies_too() -> None:
    listener = Listener()
    where = listener.getsockname()
    accepter = Accepter([listener], Protocol)  # type: ignore[list-item]
    accepter.start()
    with contextlib.closing(listener.dup()):
        await accepter.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where, timeout=5)


@pytest.mark.usefixtures("_quick")
@both_loops
async def test_stopping_during_a_pause() -> None:
    listener = Listener()
    accepter = Accepter([listener], Protocol)  # type: ignore[list-item]
    listener.error = errno.EMFILE
    accepter.start()
    with dial(listener):
        await eventually_async(lambda: accepter.errors)
        await accepter.stop()
        calls = listener.calls
        await asyncio.sleep(0.03)
        assert listener.calls == calls


def test_a_server_out_of_descriptors_pauses_and_recovers() -> None:
    command = [sys.executable, "-m", "tests.unit.messenger_crowded", str(DESCRIPTORS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        host, port = address.split(":")
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            crowd = [
                stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
                for _ in range(DESCRIPTORS + 20)
            ]
            for sock in crowd:
                sock.settimeout(0)
            told = eventually(lambda: [sock for sock in crowd if is_closed(sock)], 10)
            assert told, "who cannot be served is hung up on, not left waiting"
            eventually(lambda: time.monotonic() > began + 0.8)
        # They have left: it serves again.
        with sync.connect(address, timeout=10) as con:
            con.request(Message(ECHO), timeout=10)
        lasted = time.monotonic() - began
        server.stdin.close()
        facts = json.loads(server.stdout.readline())
        assert server.wait(10) == 0
    assert 2 <= facts["errors"] <= 10
    assert facts["cpu_s"] < lasted / 2, "it did not spin"


def is_closed(sock: socket.socket) -> bool:
    """Did the server hang up on *sock* before it said hello?"""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("limit", "max_sessions", "warned"),
    [(1024, 0, False), (1024, 1023, False), (1024, 1024, True), (RLIM_INFINITY, 1 << 20, False)],
)
def test_more_sessions_than_descriptors_are_warned_of(
    limit: int,
    max_sessions: int,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "raise_fd_limit", lambda: limit)
    check_fd_limit(max_sessions)
    assert [record.getMessage() for record in caplog.records] == [
        "max_sessions = 1024: only 1024 files may be open, raise it (LimitNOFILE=, ulimit -Hn)"
    ] * warned
