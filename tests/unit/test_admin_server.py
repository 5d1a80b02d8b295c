"""The admin socket: requests in lines, answers in order, bad clients hurt nobody."""

from __future__ import annotations

import json
import selectors
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpmsgr.admin import server as server_module
from mpmsgr.admin.lines import MAX_REQUEST_BYTES, Request
from mpmsgr.admin.server import MAX_CLIENTS, AdminServer, Reply
from tests.support import eventually


class Host:
    """A loop around a server; `echo` is answered with its arguments, `later` not yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.later: list[Reply] = []
        self.selector = selectors.DefaultSelector()
        self.server = AdminServer(path, self.selector, self.handle)

    def handle(self, request: Request, reply: Reply) -> None:
        match request.verb:
            case "echo":
                reply.end(request.args)
            case "later":
                self.later.append(reply)
            case "many":
                reply.end("x" * request.args["size"])
            case "broken":
                raise RuntimeError("a bug")
            case verb:
                raise ValueError(f"no verb {verb}")

    def turn(self) -> None:
        for key, _ in self.selector.select(0):
            if self.selector.get_map().get(key.fd) is key:
                key.data()

    def until(self, condition: Callable[[], Any]) -> None:
        """Turn until *condition* holds."""

        def turned() -> Any:
            self.turn()
            return condition()

        eventually(turned)

    def close(self) -> None:
        self.server.close()
        assert len(self.selector.get_map()) == 0
        self.selector.close()


class Peer:
    """A client in the same thread: turns the loop until it has what it waits for."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(host.path))
        self.sock.setblocking(False)
        self.data = b""
        self.at_end = False

    def send(self, data: bytes) -> None:
        left = memoryview(data)

        def sent() -> bool:
            nonlocal left
            try:
                left = left[self.sock.send(left) :]
            except BlockingIOError:
                pass
            self.host.turn()
            return not left

        eventually(sent)

    def ask(self, verb: str, **args: Any) -> None:
        self.send(json.dumps({"verb": verb, "args": args}).encode() + b"\n")

    def read(self) -> None:
        self.host.turn()
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.data += data
        self.at_end |= not data

    def line(self) -> Any:
        def first() -> bytes:
            self.read()
            return self.data.partition(b"\n")[1]

        eventually(first)
        line, _, self.data = self.data.partition(b"\n")
        return json.loads(line)

    def ended(self) -> bool:
        self.read()
        return self.at_end


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as folder:
        host = Host(Path(folder) / "admin.sock")
        yield host
        host.close()


@pytest.fixture
def peer(host: Host) -> Iterator[Peer]:
    peer = Peer(host)
    yield peer
    peer.sock.close()


def test_only_its_owner_may_connect(host: Host) -> None:
    assert stat.S_IMODE(host.path.stat().st_mode) == 0o600


def test_a_request_in_pieces(peer: Peer) -> None:
    for byte in b'{"verb":"echo","args":{"n":1}}\n':
        peer.send(bytes([byte]))
    assert peer.line() == {"more": False, "value": {"n": 1}}


def test_many_requests_at_once_are_answered_in_order(peer: Peer) -> None:
    peer.send(b'{"verb":"echo"}\n' * 3000)  # deeper than any recursion
    assert [peer.line()["value"] for _ in range(3000)] == [{}] * 3000


def test_the_next_request_waits_for_the_answer(host: Host, peer: Peer) -> None:
    peer.ask("later")
    peer.ask("echo", n=2)
    host.until(lambda: host.later)
    host.turn()
    (reply,) = host.later
    assert reply.is_wanted
    reply.piece([1, 2])
    reply.end([3])
    reply.end("void")
    assert not reply.is_wanted
    assert peer.line() == {"more": True, "value": [1, 2]}
    assert peer.line() == {"more": False, "value": [3]}
    assert peer.line() == {"more": False, "value": {"n": 2}}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"\xff\x00garbage", "must be one line of JSON"),
        (b"[" * 60000, "must be one line of JSON"),
        (b"7", "must be an object"),
        (b'{"verb": 3}', "must be an object"),
        (b'{"verb": "echo", "args": []}', '"args" must be an object'),
        (b'{"verb": "fly"}', "no verb fly"),
    ],
)
def test_garbage_is_refused_and_the_connection_lives(peer: Peer, line: bytes, text: str) -> None:
    peer.send(line + b"\n")
    said = peer.line()
    assert said["error"] == "request"
    assert text in said["text"]
    peer.ask("echo", n=1)
    assert peer.line()["value"] == {"n": 1}


def test_a_request_without_end_ends_the_connection(peer: Peer) -> None:
    peer.send(b"x" * (MAX_REQUEST_BYTES + 1))
    assert peer.line()["text"] == f"must be at most {MAX_REQUEST_BYTES} bytes"
    eventually(peer.ended)


def test_a_bug_is_an_answer_too(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    peer.ask("broken")
    assert peer.line() == {"error": "failed", "text": "RuntimeError: a bug"}
    assert "a bug" in caplog.text


def test_who_does_not_read_is_cut_off(
    host: Host, peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "MAX_UNREAD_BYTES", 1 << 20)
    other = Peer(host)
    with other.sock:
        peer.ask("many", size=4 << 20)
        host.until(lambda: "does not read" in caplog.text)
        other.ask("echo", n=1)
        assert other.line()["value"] == {"n": 1}
    eventually(peer.ended)


def test_a_long_answer_waits_for_its_reader(peer: Peer) -> None:
    peer.ask("many", size=4 << 20)
    assert len(peer.line()["value"]) == 4 << 20


def test_who_hung_up_gets_no_answer(host: Host, peer: Peer) -> None:
    peer.ask("later")
    host.until(lambda: host.later)
    peer.sock.close()
    host.later[0].piece([1])
    host.later[0].piece([2])
    assert not host.later[0].is_wanted


def test_who_has_shut_down_its_side_still_gets_the_answer(host: Host, peer: Peer) -> None:
    peer.ask("later")
    peer.sock.shutdown(socket.SHUT_WR)
    host.until(lambda: host.later)
    host.later[0].end("here")
    assert peer.line()["value"] == "here"
    eventually(peer.ended)


def test_silent_clients_do_not_keep_others_out(host: Host) -> None:
    silent = [Peer(host) for _ in range(MAX_CLIENTS)]
    host.turn()
    for _ in silent:
        host.turn()
    silent[0].ask("later")
    host.until(lambda: host.later)
    late = Peer(host)
    late.ask("echo", n=1)
    assert late.line()["value"] == {"n": 1}
    eventually(silent[1].ended, what="the one that was idle for longest had to go")
    assert host.later[0].is_wanted, "not the one that waits for its answer"
    for peer in (*silent, late):
        peer.sock.close()
