"""The admin socket: a few clients on a selector, answered line by line, never waited for."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpmsgr.admin.lines import MAX_REQUEST_BYTES, Request, decode_request, encode

log = logging.getLogger("mpmsgr.admin")

#: One more than these, and whoever is idle has to go.
MAX_CLIENTS = 16
#: What may wait for a client that does not read: its answer ends there.
MAX_UNREAD_BYTES = 32 << 20

Handler = Callable[[Request, "Reply"], None]


class Reply:
    """The answer to one request, given now or later, in pieces or at once; a second end is void."""

    def __init__(self, client: Client) -> None:
        self._client: Client | None = client

    @property
    def is_wanted(self) -> bool:
        """Is it not given yet, and the client still there?"""
        return self._client is not None and not self._client.closed

    def piece(self, rows: list[Any]) -> None:
        """Some rows of a long list; `end` follows."""
        if self._client is not None:
            self._client.put(encode(more=True, value=rows))

    def end(self, value: Any) -> None:
        """The value, or the rows that were left."""
        self._finish(encode(more=False, value=value))

    def fail(self, kind: str, text: str) -> None:
        """There is no answer: *kind* is a word for programs, *text* for people."""
        self._finish(encode(error=kind, text=text))

    def _finish(self, line: bytes) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.put(line)
            client.answered()


class AdminServer:
    """Listens at *path* (mode 0600) and gives each request to *handler*; see `lines`.

    *selector* is the one of the owner's loop, with callables as data. Raises OSError.
    """

    def __init__(self, path: Path, selector: selectors.BaseSelector, handler: Handler) -> None:
        self.selector = selector
        self.handler = handler
        self._clients: list[Client] = []  # whoever was served last comes last
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.setblocking(False)
            self._listener.bind(str(path))
            path.chmod(0o600)  # before it listens: nobody connects in between
            self._listener.listen(MAX_CLIENTS)
        except OSError:
            self._listener.close()
            raise
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it is gone already, or we have no descriptor for it
            return
        if len(self._clients) >= MAX_CLIENTS:
            idle = next((c for c in self._clients if not c.is_served), self._clients[0])
            idle.close()
        self._clients.append(Client(self, sock))

    def served(self, client: Client) -> None:
        """*client* has asked something."""
        self._clients.remove(client)
        self._clients.append(client)

    def gone(self, client: Client) -> None:
        """*client* is closed."""
        self._clients.remove(client)

    def close(self) -> None:
        """Close the socket and every client."""
        for client in list(self._clients):
            client.close()
        self.selector.unregister(self._listener)
        self._listener.close()


class Client:
    """One connection: what came of a request, what waits to be read."""

    def __init__(self, server: AdminServer, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._server, self._sock = server, sock
        self._in, self._out = bytearray(), bytearray()
        self.is_served = self.closed = False
        self._at_end = self._is_serving = False
        self._events = selectors.EVENT_READ
        server.selector.register(sock, self._events, self._on_event)

    def put(self, line: bytes) -> None:
        """Write *line*, or keep what does not fit yet."""
        if self.closed:
            return
        self._out += line
        self._write()
        if len(self._out) > MAX_UNREAD_BYTES:
            log.warning("an admin client does not read its answer: closed")
            self.close()

    def answered(self) -> None:
        """The request is answered; the next one may be here."""
        self.is_served = False
        if not self._is_serving:  # else its loop goes on, however many requests there are
            self._serve()
            self._watch()

    def close(self) -> None:
        """Close it, whatever it waits for."""
        if not self.closed:
            self.closed = True
            if self._events:
                self._server.selector.unregister(self._sock)
            self._sock.close()
            self._server.gone(self)

    def _on_event(self) -> None:
        self._write()
        if not self.closed and not self.is_served and not self._at_end:
            self._read()
        self._serve()
        self._watch()

    def _read(self) -> None:
        try:
            data = self._sock.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._in += data
        self._at_end = not data

    def _write(self) -> None:
        if self._out and not self.closed:
            try:
                sent = self._sock.send(self._out, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            del self._out[:sent]

    def _serve(self) -> None:
        """Answer the requests that are here, until one is not answered at once."""
        self._is_serving = True
        while not self.closed and not self.is_served:
            line, newline, rest = self._in.partition(b"\n")
            if not newline:
                break
            self._in = rest
            self._begin(bytes(line))
        self._is_serving = False
        if len(self._in) > MAX_REQUEST_BYTES and not self.is_served:
            self.put(encode(error="request", text=f"must be at most {MAX_REQUEST_BYTES} bytes"))
            self.close()

    def _begin(self, line: bytes) -> None:
        reply = Reply(self)
        self.is_served = True
        self._server.served(self)
        try:
            self._server.handler(decode_request(line), reply)
        except ValueError as exc:
            reply.fail("request", str(exc))
        except Exception as exc:
            log.exception("an admin request failed: %r", line[:200])
            reply.fail("failed", f"{type(exc).__name__}: {exc}")

    def _watch(self) -> None:
        """Wait for what is possible now; a client that has hung up and got its answer is closed."""
        if self.closed:
            return
        if self._at_end and not self.is_served and not self._out:
            self.close()
            return
        wants_read = not self.is_served and not self._at_end
        events = selectors.EVENT_READ if wants_read else 0
        events |= selectors.EVENT_WRITE if self._out else 0
        if events == self._events:
            return
        selector = self._server.selector
        if not self._events:
            selector.register(self._sock, events, self._on_event)
        elif not events:
            selector.unregister(self._sock)
        else:
            selector.modify(self._sock, events, self._on_event)
        self._events = events
