"""Listening sockets: making them, and accepting on them without ever stopping or spinning."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable, Collection

from mpmsgr.errors import ConfigError
from mpmsgr.wire.address import EntityAddr, split_bind

log = logging.getLogger("mpmsgr.accepter")

PORT_MIN, PORT_MAX = 6800, 7300
BACKLOG = 512
#: Sockets accepted per wake-up before other work gets its turn.
_AT_ONCE = 64
_PAUSE_S, _MAX_PAUSE_S = 0.05, 1.0
_OUT_OF_FDS = {errno.EMFILE, errno.ENFILE}
#: Errors of the one connection that was being accepted, not of accepting.
_PEER_GONE = {errno.ECONNABORTED, errno.EPROTO, errno.ECONNRESET, errno.EPERM}


def parse_bind(text: str) -> tuple[str, range]:
    """``HOST:PORT``, ``HOST:A-B``, ``[ip6]:PORT`` -> host and the ports to try, in order.

    Port 0, or none, is Ceph's range. Raises ConfigError.
    """
    split = split_bind(text) or split_bind(f"{text}:0")
    if split is None:
        allowed = "HOST:PORT, HOST:FROM-TO or [IPV6]:PORT, ports below 65536"
        raise ConfigError("bind", text, allowed)
    host, low, high = split
    return host, range(low, high + 1) if high else range(PORT_MIN, PORT_MAX + 1)


def bind_sockets(binds: list[str], avoid_ports: Collection[int] = ()) -> list[socket.socket]:
    """One listening, non-blocking socket per bind. Raises ConfigError saying what is in the way."""
    with contextlib.ExitStack() as made:
        sockets = [made.enter_context(_bind_one(text, avoid_ports)) for text in binds]
        made.pop_all()
    return sockets


def _bind_one(text: str, avoid_ports: Collection[int]) -> socket.socket:
    host, ports = parse_bind(text)
    try:
        family, *_rest, name = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except OSError as err:
        raise ConfigError("bind", text, f"{host} cannot be resolved: {err.strerror}") from None
    last: OSError | None = None
    for port in ports:
        if port in avoid_ports:
            continue
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if len(ports) == 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((name[0], port, *name[2:]))
            # Accepted sockets inherit it: the port can be given by number once this one is closed.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.listen(BACKLOG)
        except OSError as err:
            sock.close()
            last = err
            if err.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
        else:
            sock.setblocking(False)
            return sock
    why = last.strerror if last is not None else "every port is to be avoided"
    raise ConfigError("bind", text, f"{host} port {_span(ports)}: {why}")


def _span(ports: range) -> str:
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"


def raise_fd_limit() -> int:
    """Raise RLIMIT_NOFILE to its hard limit; return what is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_fd_limit(max_sessions: int) -> None:
    """Log if the limit leaves no descriptor for each of so many sessions (0 = no limit of them)."""
    limit = raise_fd_limit()
    if 0 <= limit <= max_sessions:
        text = "max_sessions = %d: only %d files may be open, raise it (LimitNOFILE=, ulimit -Hn)"
        log.warning(text, max_sessions, limit)


class Accepter:
    """Accepts on *listeners*; each socket gets a protocol of *factory*.

    errors: how often accepting failed; an error pauses it for a while, longer each time.
    """

    def __init__(
        self, listeners: list[socket.socket], factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self.errors = 0
        self._listeners = listeners
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._spare = _spare_descriptor()
        self._pause_s = _PAUSE_S
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accept from now on."""
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    async def stop(self) -> None:
        """Refuse new connections from now on, also those that reach copies of the descriptors."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._listeners = []
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._close_spare()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as err:
                if err.errno == errno.EINVAL:  # another holder of the socket has shut it down
                    self._loop.remove_reader(listener.fileno())
                    return
                if err.errno not in _PEER_GONE:
                    self._failed(listener, err)
                    return
            else:
                self._pause_s = _PAUSE_S
                self._serve(sock, EntityAddr.from_socket(peer))

    def _serve(self, sock: socket.socket, peer: EntityAddr) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._connect(sock, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket, peer: EntityAddr) -> None:
        try:
            sock.getpeername()
            await self._loop.connect_accepted_socket(self._factory, sock)
        except OSError as err:
            log.warning("peer %s: gone at once: %s", peer, err.strerror)
            sock.close()

    def _failed(self, listener: socket.socket, err: OSError) -> None:
        self.errors += 1
        log.error("accepting failed (%s), again in %.2f s", err.strerror, self._pause_s)
        if err.errno in _OUT_OF_FDS:
            self._drop_one(listener)
        self._loop.remove_reader(listener.fileno())
        self._timers[listener] = self._loop.call_later(self._pause_s, self._resume, listener)
        self._pause_s = min(self._pause_s * 2, _MAX_PAUSE_S)

    def _drop_one(self, listener: socket.socket) -> None:
        """With the spare descriptor take a waiting peer and close it: it need not time out."""
        self._close_spare()
        with contextlib.suppress(OSError):
            listener.accept()[0].close()
        with contextlib.suppress(OSError):  # somebody else was faster
            self._spare = _spare_descriptor()

    def _close_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _resume(self, listener: socket.socket) -> None:
        del self._timers[listener]
        self._loop.add_reader(listener.fileno(), self._accept, listener)


def _spare_descriptor() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
