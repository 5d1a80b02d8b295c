"""The servers that are measured: each runs as processes of its own and knows its clients."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from bench import children
from bench.http_clients import HttpClients
from bench.msgr_clients import MsgrClients
from bench.server import Server
from bench.zmq_clients import ZmqClients

_ZERO_COPY_FROM = 32 << 10


class Clients(Protocol):
    """Clients that can be driven."""

    def drive(self, requests: int) -> int:
        """Make *requests* round trips per client; returns how many there were in all."""

    def close(self) -> None:
        """End the connections."""


class Contender(Protocol):
    """A running server with its clients."""

    pids: list[int]
    """The processes whose CPU counts."""
    clients: Clients

    def stop(self) -> None:
        """End clients and processes."""


class MsgrEcho:
    """`mpmsgr serve workers.echo:Echo` with one worker, of this checkout or another.

    fast: it is not the worker that answers, but the I/O process.
    """

    def __init__(
        self,
        clients: int,
        in_flight: int,
        size: int,
        *,
        checkout: Path | None = None,
        fast: bool = False,
    ) -> None:
        toml = 'io_modules = ["workers.echo:FastEcho"]' if fast else ""
        self._server = Server("workers.echo:Echo", workers=1, toml=toml, checkout=checkout)
        self.pids = [self._server.io_pid(), *self._server.worker_pids()]
        host, _, port = self._server.address.rpartition(":")
        self.clients: Clients = MsgrClients((host, int(port)), clients, in_flight, size)

    def stop(self) -> None:
        """End clients and processes."""
        self.clients.close()
        self._server.stop()


class ZmqEcho:
    """A pyzmq ROUTER/DEALER broker with one worker over ipc, clients over tcp.

    *how* is one of `bench.zmq_broker`, with the cheaper of copy and nocopy for the size; or plain,
    the guide's broker and pyzmq's defaults, which copy whatever the size.
    """

    def __init__(self, how: str, clients: int, in_flight: int, size: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        front, back = f"tcp://127.0.0.1:{_free_port()}", f"ipc://{self._directory.name}/back"
        copy = "copy" if how == "plain" or size < _ZERO_COPY_FROM else "nocopy"
        loop = "poll" if how == "plain" else how
        module = ("-m", "bench.zmq_broker")
        self._processes = [
            children.start(*module, "broker", loop, front, back, copy),
            children.start(*module, "worker", back, copy),
        ]
        self.pids = [process.pid for process in self._processes]
        self.clients: Clients = ZmqClients(front, clients, in_flight, size)

    def stop(self) -> None:
        """End clients and processes."""
        self.clients.close()
        for process in self._processes:
            children.stop(process)
        self._directory.cleanup()


class HttpEcho:
    """uvicorn with a plain ASGI application, in one process and as lean as its options make it."""

    PACKAGES = ("uvicorn", "httptools", "uvloop")

    def __init__(self, clients: int, in_flight: int, size: int) -> None:
        address = ("127.0.0.1", _free_port())
        self._process = children.start(
            *("-m", "uvicorn", "--host", address[0], "--port", str(address[1])),
            *("--http", "httptools", "--loop", "uvloop", "--ws", "none", "--lifespan", "off"),
            *("--no-access-log", "--no-proxy-headers", "--log-level", "warning"),
            # Between its turns a connection rests for longer than the default of 5 s.
            *("--timeout-keep-alive", "3600", "--factory", "bench.http_echo:create_app"),
        )
        _wait_until_listening(address, self._process)
        self.pids = [self._process.pid]
        self.clients: Clients = HttpClients(address, clients, in_flight, size)

    def stop(self) -> None:
        """End clients and process."""
        self.clients.close()
        children.stop(self._process)

    @classmethod
    def missing_packages(cls) -> list[str]:
        """Those of its packages that are not installed here."""
        return [name for name in cls.PACKAGES if find_spec(name) is None]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_listening(address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    """Poll every 20 ms until *process* takes a connection; RuntimeError if it ends instead."""
    while process.poll() is None:
        try:
            socket.create_connection(address).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"the server ended with status {process.returncode} before it was ready")
