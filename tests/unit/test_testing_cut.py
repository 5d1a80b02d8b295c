"""A line between client and service: it forwards everything, until it is to be cut."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import NamedTuple

import pytest

from mpmsgr.loop import LoopThread
from mpmsgr.testing.cut import Cut, Line, Towards

TEXT = bytes(range(256)) * 8


class Ends(NamedTuple):
    """Both ends of a connection through *line*."""

    line: Line
    thread: LoopThread
    client: socket.socket
    service: socket.socket


@contextmanager
def through_a_line() -> Iterator[Ends]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        LoopThread("lines") as thread,
        closing_line(Line(listener.getsockname(), thread)) as line,
        closing(socket.create_connection(line.place, timeout=10)) as client,
        closing(listener.accept()[0]) as service,
    ):
        service.settimeout(10)
        client.sendall(b"hi")
        assert service.recv(2, socket.MSG_WAITALL) == b"hi"
        yield Ends(line, thread, client, service)


@contextmanager
def closing_line(line: Line) -> Iterator[Line]:
    try:
        yield line
    finally:
        line.hang_up()


def read_all(sock: socket.socket) -> bytes:
    """What comes until the connection ends."""
    got = bytearray()
    try:
        while data := sock.recv(4096):
            got += data
    except ConnectionResetError:
        pass
    return bytes(got)


def send(sock: socket.socket) -> None:
    try:
        sock.sendall(TEXT)
    except OSError:  # cut meanwhile
        pass


@pytest.mark.parametrize("towards", ["service", "client"])
@pytest.mark.parametrize("byte", [1, 2, 100, len(TEXT)])
def test_exactly_so_many_bytes_arrive(byte: int, towards: Towards) -> None:
    with through_a_line() as ends, ThreadPoolExecutor(1) as pool:
        source, sink = ends.client, ends.service
        if towards == "client":
            source, sink = sink, source
        cut = Cut(ends.line, ends.thread, byte, towards, 10.0)
        sent = pool.submit(send, source)
        assert read_all(sink) == TEXT[:byte]
        assert read_all(source) == b""
        sent.result()
        assert cut.wait().happened


def test_the_other_direction_does_not_count() -> None:
    with through_a_line() as ends:
        cut = Cut(ends.line, ends.thread, 3, "client", 10.0)
        ends.client.sendall(TEXT)
        assert ends.service.recv(len(TEXT), socket.MSG_WAITALL) == TEXT
        assert (cut.left, cut.happened) == (3, False)
        cut.cancel()
        ends.service.sendall(TEXT)
        assert ends.client.recv(len(TEXT), socket.MSG_WAITALL) == TEXT
        assert not cut.happened


def test_now() -> None:
    with through_a_line() as ends:
        assert Cut(ends.line, ends.thread, 0, "service", 10.0).happened
        assert read_all(ends.client) == read_all(ends.service) == b""
