"""The servers that are measured: each runs as processes of its own and knows its clients."""

from __future__ import annotations

import socket
import tempfile
from typing import Protocol

from bench import children
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

    name: str
    pids: list[int]
    """The processes whose CPU counts."""
    clients: Clients

    def stop(self) -> None:
        """End clients and processes."""


class ZmqServer:
    """A pyzmq ROUTER/DEALER broker with one worker over ipc, clients over tcp."""

    def __init__(self, how: str, clients: int, in_flight: int, size: int) -> None:
        self.name = f"pyzmq {how}"
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        front, back = f"tcp://127.0.0.1:{_free_port()}", f"ipc://{self._directory.name}/back"
        copy = "copy" if size < _ZERO_COPY_FROM else "nocopy"
        module = ("-m", "bench.zmq_broker")
        self._processes = [
            children.start(*module, "broker", how, front, back, copy),
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


class MsgrEcho:
    """`mpmsgr serve workers.echo:Echo` with one worker, and lean clients."""

    def __init__(self, clients: int, in_flight: int, size: int) -> None:
        self.name = "mpmsgr"
        self._server = Server("workers.echo:Echo", workers=1)
        self.pids = [self._server.io_pid(), *self._server.worker_pids()]
        host, _, port = self._server.address.rpartition(":")
        self.clients: Clients = MsgrClients((host, int(port)), clients, in_flight, size)

    def stop(self) -> None:
        """End clients and processes."""
        self.clients.close()
        self._server.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
