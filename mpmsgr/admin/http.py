"""Metrics and health by HTTP, from a thread of the supervisor's process.

The thread knows the server by its admin socket only, as any other client: it shares nothing with
the loop, can neither hold it up nor start a process, and what it serves is proof that the loop
runs. (Children must be started by the main thread: they die with the thread that started them.)
"""

from __future__ import annotations

import logging
import select
import socket
import socketserver
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from mpmsgr.admin.client import AdminClient
from mpmsgr.admin.health import Check, progress, report
from mpmsgr.errors import AdminError, ConfigError
from mpmsgr.wire.address import split_bind

if TYPE_CHECKING:
    from mpmsgr.admin.metrics import Snapshot

log = logging.getLogger("mpmsgr.http")

#: Connections at once. One more, and whoever has been silent for longest has to go; where all have
#: asked for something, it is the one more.
_AT_ONCE = 8
#: How long a client may be silent before it has said what it wants.
_CLIENT_S = 5.0
#: How long the thread of one that has to go may take to end.
_GOING_S = 1.0
#: How long the loop, and the I/O process behind it, may take to answer.
_LOOP_S, _IO_S = 2.0, 1.0

_TEXT = "text/plain; charset=utf-8"
Answer = tuple[int, str, bytes]


class Pages:
    """What is served about the server of *run_dir*, as (status, content type, body)."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def get(self, target: str, accept: str) -> Answer:
        """The page of a request's target. Raises AdminError when the loop does not answer."""
        url = urlsplit(target)
        verbose = "verbose" in parse_qs(url.query, keep_blank_values=True)
        with AdminClient(self._run_dir, _LOOP_S) as client:
            match url.path:
                case "/livez":
                    client.call("health")
                    return _checked([], verbose)
                case "/readyz":
                    return _checked(_readiness(client), verbose)
                case "/healthz":
                    checks = _readiness(client)
                    return _checked([*checks, *progress(self._perf())], verbose)
                case "/metrics":
                    return self._metrics(client, accept)
        return HTTPStatus.NOT_FOUND, _TEXT, b"/metrics, /livez, /readyz, /healthz?verbose\n"

    def _metrics(self, client: AdminClient, accept: str) -> Answer:
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return HTTPStatus.OK, content_type, encode(cast(Any, self._snapshot(client)))

    def _snapshot(self, client: AdminClient) -> Snapshot:
        from mpmsgr.admin.metrics import Snapshot

        status, health, workers = (client.call(v) for v in ("status", "health", "workers"))
        return Snapshot(status, health, workers, client.call("perf", own=True), self._perf())

    def _perf(self) -> dict[str, Any] | None:
        """What the I/O process counts, None if it does not answer in time."""
        try:
            with AdminClient(self._run_dir, _IO_S) as client:
                perf: dict[str, Any] = client.call("perf")
                return perf
        except AdminError:
            return None


def _readiness(client: AdminClient) -> list[Check]:
    return [Check(**check) for check in client.call("health")["checks"]]


def _checked(checks: list[Check], verbose: bool) -> Answer:
    ok = all(check.ok for check in checks)
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    # Who is told no is told why, asked for or not.
    return status, _TEXT, (report(checks) if verbose or not ok else "ok\n").encode()


class HttpServer:
    """Serves `Pages` at *bind* (HOST:PORT) from a daemon thread, until closed.

    Raises ConfigError: the address cannot be used, or prometheus-client is not there.
    """

    def __init__(self, bind: str, run_dir: Path) -> None:
        _check_extra(bind)
        self._server = _bound(bind, Pages(run_dir))
        host, port = self._server.server_address[:2]
        shown = str(host)
        self.address = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()
        log.info("metrics and health at http://%s", self.address)

    def close(self) -> None:
        """Serve no more."""
        self._closed = True
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        # Not serve_forever: that looks twice a second whether it shall end.
        while not self._closed:
            self._server.handle_request()


class _Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, family: int, address: tuple[Any, ...], pages: Pages) -> None:
        self.address_family = family
        self.pages = pages
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._silent: dict[socket.socket, None] = {}  # have not said what they want, oldest first
        self._lock = threading.Lock()
        super().__init__(cast(Any, address), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up our name, which may take long.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._has_room():
            with self._lock:
                self._silent[request] = None
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def shutdown_request(self, request: Any) -> None:
        self.asked(request)  # before it is closed: `_hang_up` looks at those that are not
        super().shutdown_request(request)

    def asked(self, request: socket.socket) -> None:
        """*request* has said what it wants: it does not have to go for others."""
        with self._lock:
            self._silent.pop(request, None)

    def _has_room(self) -> bool:
        if self._room.acquire(blocking=False):
            return True
        return self._hang_up() and self._room.acquire(timeout=_GOING_S)

    def _hang_up(self) -> bool:
        """Have the thread of the oldest silent connection end; False: there is none."""
        with self._lock:
            silent = next((one for one in self._silent if not _has_bytes(one)), None)
            if silent is None:
                return False
            del self._silent[silent]
            with suppress(OSError):  # it has hung up itself
                silent.shutdown(socket.SHUT_RDWR)
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_S
    server_version, sys_version = "mpmsgr", ""

    def do_GET(self) -> None:
        """Answer a GET."""
        server = cast(_Server, self.server)
        server.asked(self.connection)
        try:
            status, content_type, body = server.pages.get(self.path, self.headers.get("Accept", ""))
        except AdminError as exc:
            status, content_type = HTTPStatus.SERVICE_UNAVAILABLE, _TEXT
            body = f"{exc}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """No line per request, but for who looks for them."""
        log.debug(format, *args)


def _has_bytes(sock: socket.socket) -> bool:
    """Is there something that its thread has not come to yet?"""
    poll = select.poll()  # unlike select, for descriptors of any number
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _bound(bind: str, pages: Pages) -> _Server:
    split = split_bind(bind)
    assert split is not None  # `Settings` has read it
    try:
        family, *_, address = socket.getaddrinfo(split[0], split[1], type=socket.SOCK_STREAM)[0]
        return _Server(family, address, pages)
    except OSError as exc:
        raise ConfigError("metrics_bind", bind, f"cannot be used: {exc.strerror}") from None


def _check_extra(bind: str) -> None:
    try:
        import prometheus_client  # noqa: F401 (is it there?)
    except ImportError:
        text = "needs prometheus-client: pip install 'mpmsgr[metrics]'"
        raise ConfigError("metrics_bind", bind, text) from None
