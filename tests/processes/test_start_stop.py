"""A server is started and stopped again and again: nothing of it stays."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mpmsgr import Message, sync
from tests.leaks import snapshot
from tests.processes.pool_serving import Serve

MODULES = {
    "echoes": """
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(front=m.front, data=bytes(m.data)))
    """
}
#: One payload travels in frames, the other through the arenas.
SIZES = (64, 200_000)
WAYS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


@pytest.fixture
def server() -> Iterator[Serve]:
    """Not started yet, on an address whose ports nobody else gets by chance."""
    high, low = divmod(os.getpid(), 1 << 16)
    host = f"127.{64 + high % 64}.{low >> 8}.{low & 255}"
    with socket.create_server((host, 0)) as probe:
        port = probe.getsockname()[1]
    server = Serve(MODULES, workers=1, bind=f"{host}:{port}")
    yield server
    server.close()


@pytest.mark.parametrize("cycles", [4, pytest.param(300, marks=pytest.mark.soak)])
def test_nothing_stays(server: Serve, cycles: int) -> None:
    server.start()  # makes what stays by right: the log, the compiled module
    assert server.stop() == 0
    ours, files = snapshot(), paths(server)
    for number in range(cycles):
        how = WAYS[number % 3]
        server.start()
        with sync.connect(server.address, timeout=10) as con:  # it is there until the end
            ask(con)
            assert_memory_has_no_name(server)
            server.signal(how)
            assert server.wait() == (-how if how is signal.SIGKILL else 0)
        if how is signal.SIGKILL:
            server.until(lambda: is_gone(server), "its children die with it", 2.0)
        assert is_gone(server)
        assert snapshot() == ours
        socket.create_server(address_of(server)).close()  # the port is free
        if how is not signal.SIGKILL:
            # What a killed one has left, the next one has cleared away.
            assert paths(server) == files


def ask(con: sync.SyncConnection) -> None:
    for size in SIZES:
        payload = bytes(size)
        assert con.request(Message(0x8001, b"", data=payload), timeout=10).data == payload


def assert_memory_has_no_name(server: Serve) -> None:
    """A name would outlive who is killed."""
    for process in (psutil.Process(server.process.pid), *server.children()):
        named = [m.path for m in process.memory_maps() if m.path.startswith(("/dev/shm", "/SYSV"))]
        assert not named


def is_gone(server: Serve) -> bool:
    # The kernel ends a process first and closes its sockets then.
    return not (server.children() or unix_sockets(server))


def paths(server: Serve) -> set[Path]:
    """Files in the directory that has its run directory and temporary files as well."""
    return set(server.directory.rglob("*"))


def unix_sockets(server: Serve) -> list[str]:
    """Of living processes, by path."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line for line in lines if str(server.directory) in line]


def address_of(server: Serve) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host, int(port)
