"""Who holds a place of the HTTP server, and who has to go."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mpmsgr.admin.http import _AT_ONCE, HttpServer
from tests.support import eventually

pytest.importorskip("prometheus_client")


@pytest.fixture
def where(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """One without a server to tell of: it says so, which is an answer as well."""
    server = HttpServer("127.0.0.1:0", tmp_path)
    host, _, port = server.address.rpartition(":")
    yield host, int(port)
    server.close()


def get(where: tuple[str, int]) -> int:
    connection = http.client.HTTPConnection(*where, timeout=2)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("said", [b"", b"GET /livez HT", b"GET /livez HTTP/1.0\r\nAccept: "])
def test_silent_clients_hold_up_nobody(where: tuple[str, int], said: bytes) -> None:
    with ExitStack() as stack:
        silent = []
        for _ in range(3 * _AT_ONCE):
            silent.append(stack.enter_context(socket.create_connection(where, timeout=5)))
            silent[-1].sendall(said)
        assert [get(where) for _ in range(3)] == [503] * 3
        assert silent[0].recv(1) == b"", "the oldest had to go"
        if not said:
            silent[-1].sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            assert silent[-1].recv(9) == b"HTTP/1.0 ", "the newest did not"


def test_who_has_asked_stays_until_it_is_answered(
    where: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answer = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> tuple[int, str, bytes]:
        begun.release()
        answer.wait(10)
        return 200, "text/plain", b""

    monkeypatch.setattr("mpmsgr.admin.http.Pages.get", slow)
    with ExitStack() as stack:
        asking = []
        for _ in range(_AT_ONCE):
            asking.append(stack.enter_context(socket.create_connection(where, timeout=5)))
            asking[-1].sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            assert begun.acquire(timeout=5)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            get(where)
        answer.set()
        assert [sock.recv(12) for sock in asking] == [b"HTTP/1.0 200"] * _AT_ONCE
    assert eventually(lambda: get(where), 5) == 200
