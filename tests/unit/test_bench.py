"""bench: limits on the command line, and HTTP clients that believe no server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest

from bench.http_clients import HttpClients
from bench.limits import Limit
from tests.loopback import HOST

SIZE = 300
HEAD = b"HTTP/1.1 200 OK\r\ndate: now\r\nContent-Length: 300\r\n\r\n"


@contextmanager
def server(answer: bytes, wrong_at: int | None = None) -> Iterator[tuple[str, int]]:
    """One connection; every request is answered with *answer* and its body, a bit of it flipped."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while request := connection.recv(4096):
                while len(request.partition(b"\r\n\r\n")[2]) < SIZE:
                    request += connection.recv(4096)
                body = bytearray(request.partition(b"\r\n\r\n")[2])
                if wrong_at is not None:
                    body[wrong_at] ^= 1
                connection.sendall(answer + body)

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        thread.join(10)


def drive(address: tuple[str, int]) -> int:
    clients = HttpClients(address, clients=1, in_flight=1, size=SIZE)
    try:
        return clients.drive(3)
    finally:
        clients.close()


def test_http_clients_count_the_replies_they_have_checked() -> None:
    with server(HEAD) as address:
        assert drive(address) == 3


@pytest.mark.parametrize("wrong_at", [0, 7, 8, SIZE - 1])
def test_http_clients_notice_any_wrong_byte(wrong_at: int) -> None:
    with server(HEAD, wrong_at) as address, pytest.raises(RuntimeError, match="not what was sent"):
        drive(address)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD.replace(b"200 OK", b"500 No"),
        HEAD.replace(b"300", b"301"),
        HEAD.replace(b"Content-Length: 300", b"Transfer-Encoding: chunked"),
    ],
)
def test_http_clients_notice_another_head(answer: bytes) -> None:
    with server(answer) as address, pytest.raises(RuntimeError, match="not the reply that is due"):
        drive(address)


def test_http_clients_notice_a_longer_body() -> None:
    with server(HEAD + b"x") as address, pytest.raises(RuntimeError, match="not what was sent"):
        drive(address)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("a", Limit(None, "a", None)),
        ("a=0.6", Limit(None, "a", 0.6)),
        ("64k:a=1", Limit("64k", "a", 1.0)),
        ("64k:b", Limit("64k", "b", None)),
    ],
)
def test_a_limit_is_read(text: str, limit: Limit) -> None:
    assert Limit.read(text, ["64k"], ["a", "b"]) == limit


@pytest.mark.parametrize("text", ["", "c", "1m:a", "a=", "a=-1", "a=x", "64k:", "64k:a=1=2"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Limit.read(text, ["64k"], ["a", "b"])


def test_a_limit_without_a_load_concerns_all_of_them() -> None:
    assert Limit(None, "a", 1.0).concerns("64k")
    assert Limit("64k", "a", 1.0).concerns("64k")
    assert not Limit("1m", "a", 1.0).concerns("64k")
