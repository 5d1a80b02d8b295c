"""Requests over real sockets: replies, time-outs, error replies, sessions that die meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

import mpmsgr
from mpmsgr import (
    ConnectError,
    Connection,
    Dispatcher,
    ErrorCode,
    Message,
    PayloadError,
    RemoteError,
    RequestTimeout,
    SessionReset,
    message,
)
from mpmsgr.dispatch import payload
from mpmsgr.dispatch.payload import reply_to
from mpmsgr.wire.message import ERROR_REPLY
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    FAIL,
    SILENT,
    Recorder,
    both_loops,
    client,
    connected,
    pair,
    peer,
    pending,
    place,
    server_side,
    serving,
)

CLOSED_PORT = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _classes_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_classes", {})


def parts(m: Message) -> tuple[bytes, bytes, bytes]:
    return bytes(m.front), bytes(m.middle), bytes(m.data)


# replies


@both_loops
async def test_a_reply() -> None:
    async with pair() as (server, con):
        reply = await con.request(Message(ECHO, b"f", b"m", b"d"), timeout=5)
        assert parts(reply) == (b"f", b"m", b"d")
        assert (str(reply.src), reply.nonce) == ("svc.0", server.addr.nonce)
        assert (con.is_connected, con.peer_addr) == (True, server.addr)


@both_loops
async def test_many_at_once_each_gets_its_own() -> None:
    async with pair() as (_, con):
        texts = [b"%d" % i for i in range(2000)]
        replies = await asyncio.gather(*(con.request(Message(ECHO, t), timeout=9) for t in texts))
        assert [bytes(reply.front) for reply in replies] == texts
        assert pending(con) == 0


@both_loops
async def test_requests_before_the_session_is_there() -> None:
    async with serving() as server, client() as messenger:
        con = messenger.get_connection(place(server))
        replies = await asyncio.gather(
            *(con.request(Message(ECHO, b"%d" % i), timeout=5) for i in range(3))
        )
        assert [bytes(reply.front) for reply in replies] == [b"0", b"1", b"2"]


@both_loops
async def test_two_connections_to_one_place_are_one() -> None:
    async with serving() as server, client() as messenger:
        assert messenger.get_connection(place(server)) is messenger.get_connection(place(server))


@both_loops
async def test_an_object_gets_an_object_or_a_value() -> None:
    @message(0x9101)
    @dataclass
    class Add:
        n: int

    @message(0x9102)
    @dataclass
    class Sum:
        of: int

    class Adder(Dispatcher):
        def dispatch(self, con: Connection, m: Message) -> None:
            n = payload.decode(m).n
            value = {1: Sum(1), 2: {"plain": 2}, 3: Message(0x9103)}[n]
            con.send_message(reply_to(m, value))

    async with pair(Adder()) as (_, con):
        assert await con.request(Add(1), timeout=5) == Sum(1)
        assert await con.request(Add(2), timeout=5) == {"plain": 2}
        bare = await con.request(Add(3), timeout=5)
        assert (type(bare), bare.type) == (Message, 0x9103)


@both_loops
async def test_a_reply_that_does_not_fit_its_class() -> None:
    @message(0x9101)
    @dataclass
    class Add:
        n: int

    class Liar(Dispatcher):
        def dispatch(self, con: Connection, m: Message) -> None:
            con.send_message(m.reply(b"\x81\x90\x01"))  # a map with a list as its key

    async with pair(Liar()) as (_, con):
        with pytest.raises(PayloadError):
            await con.request(Add(1), timeout=5)
        assert con.is_connected


# error replies


@both_loops
async def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (_, con):
        with pytest.raises(RemoteError) as raised:
            await con.request(Message(FAIL), timeout=5)
        assert raised.value.code == ErrorCode.HANDLER_FAILED
        assert raised.value.text == "handler failed: RuntimeError: as it was told"
        assert str(raised.value) == "handler failed: RuntimeError: as it was told (code 2)"
        assert "Traceback" in caplog.text
        assert parts(await con.request(Message(ECHO, b"on"), timeout=5))[0] == b"on"


@both_loops
async def test_a_type_nobody_handles() -> None:
    async with pair(Recorder(ECHO)) as (_, con):
        with pytest.raises(RemoteError, match=r"nobody handles message type 0x9001 \(code 1\)"):
            await con.request(Message(SILENT), timeout=5)


class ErrorReplies(Dispatcher):
    """Answers every message with an error reply with this front."""

    def __init__(self, front: bytes) -> None:
        self.front = front

    def dispatch(self, con: Connection, m: Message) -> None:
        con.send_message(m.reply(self.front, type=ERROR_REPLY))


@pytest.mark.parametrize("front", [b"", b"\xc1", b"\x81\x90\x01", b"\x05"])
@both_loops
async def test_an_error_reply_nobody_can_read(front: bytes) -> None:
    async with pair(ErrorReplies(front)) as (_, con):
        with pytest.raises(RemoteError, match="unreadable error reply"):
            await con.request(Message(SILENT), timeout=5)
        assert con.is_connected


# time-outs


@both_loops
async def test_no_reply_in_time() -> None:
    async with pair() as (server, con):
        with pytest.raises(RequestTimeout) as raised:
            await con.request(Message(SILENT, tid=99), timeout=0.05)
        error = raised.value
        assert (error.type, error.tid, error.timeout_s, error.state) == (SILENT, 99, 0.05, "open")
        assert str(error) == (
            f"no reply from {place(server)} to type 0x9001 tid 99 within 0.05 s (session open)"
        )
        assert pending(con) == 0


@both_loops
async def test_no_reply_since_nobody_is_there() -> None:
    async with client() as messenger:
        con = peer(messenger, CLOSED_PORT)
        with pytest.raises(RequestTimeout) as raised:
            await con.request(Message(ECHO), timeout=0.1)
        assert raised.value.state == (
            "connecting, cannot connect to 127.0.0.1:1: Connection refused"
        )
        con.mark_down()


@both_loops
async def test_a_reply_that_comes_too_late_is_dropped() -> None:
    seen, server_seen = Recorder(), Recorder()
    async with pair(server_seen) as (server, con):
        con.messenger.add_dispatcher_tail(seen)
        with pytest.raises(RequestTimeout):
            await con.request(Message(SILENT, tid=99), timeout=0.05)
        server_side(server).send_message(Message(SILENT, b"late", tid=99))
        await con.request(Message(ECHO), timeout=5)
        assert seen.messages == []
        assert [m.type for m in server_seen.messages] == [SILENT, ECHO], "no complaint about it"


@both_loops
async def test_a_cancelled_request_is_forgotten() -> None:
    async with pair() as (_, con):
        task = asyncio.ensure_future(con.request(Message(SILENT)))
        await eventually_async(lambda: pending(con))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pending(con) == 0


# no session


@both_loops
async def test_nobody_there() -> None:
    async with client() as messenger:
        con = peer(messenger, CLOSED_PORT)
        with pytest.raises(ConnectError) as raised:
            await con.wait_connected(0.1)
        error = raised.value
        assert str(error.address) == CLOSED_PORT
        assert error.attempts >= 1
        assert error.cause == "cannot connect to 127.0.0.1:1: Connection refused"
        plural = "attempt" if error.attempts == 1 else "attempts"
        assert str(error) == (
            f"no session with 127.0.0.1:1 after {error.attempts} {plural}: {error.cause}"
        )
        con.mark_down()


@both_loops
async def test_connect_takes_the_error_along() -> None:
    with pytest.raises(ConnectError, match="Connection refused"):
        async with mpmsgr.connect(CLOSED_PORT, timeout=0.1):
            raise AssertionError("not reached")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70, "a..b"])
@both_loops
async def test_names_that_are_no_host(host: str) -> None:
    async with client() as messenger:
        con = peer(messenger, f"{host}:6800")
        await eventually_async(lambda: con.session.cause, 10)
        assert con.session.cause.startswith(f"cannot connect to {host}:6800: ")
        con.mark_down()


@pytest.mark.parametrize("addr", ["", "127.0.0.1", "127.0.0.1:x", "::1:5", "h:1/x", ":6800"])
@both_loops
async def test_what_is_no_address(addr: str) -> None:
    async with client() as messenger:
        with pytest.raises(ValueError, match="address"):
            messenger.get_connection(addr)


@both_loops
async def test_refused_is_told_to_dispatchers() -> None:
    seen = Recorder()
    async with client() as messenger:
        messenger.add_dispatcher_tail(seen)
        con = peer(messenger, CLOSED_PORT)
        await eventually_async(lambda: seen.events.count("refused") >= 3)
        con.mark_down()


# sessions that die


async def dies(con: Any, *, final: bool) -> SessionReset:
    """The error with which a pending request ends; what comes after it is checked too."""
    with pytest.raises(SessionReset) as raised:
        await con.request(Message(SILENT), timeout=20)
    assert pending(con) == 0
    if final:
        with pytest.raises(SessionReset):
            await con.request(Message(ECHO), timeout=5)
        with pytest.raises(SessionReset):
            await con.ping(5)
        with pytest.raises(ConnectError):
            await con.wait_connected(5)
        assert con.send_message(Message(ECHO)) is False
    return raised.value


@both_loops
async def test_the_server_closes_the_session() -> None:
    async with pair() as (server, con):
        asyncio.get_running_loop().call_later(0.02, asyncio.ensure_future, server.shutdown())
        error = await dies(con, final=True)
        assert str(error) == f"session with {place(server)} was reset, 0 messages dropped"


@both_loops
async def test_we_end_the_session() -> None:
    async with pair() as (_, con):
        asyncio.get_running_loop().call_soon(con.mark_down)
        await dies(con, final=True)


@both_loops
async def test_we_shut_down() -> None:
    async with pair() as (_, con):
        asyncio.get_running_loop().call_later(0.02, asyncio.ensure_future, con.messenger.shutdown())
        await dies(con, final=True)


@both_loops
async def test_the_server_forgets_the_session() -> None:
    seen = Recorder()
    async with pair() as (server, con):
        con.messenger.add_dispatcher_tail(seen)
        asyncio.get_running_loop().call_later(0.02, lambda: server_side(server).mark_down())
        error = await dies(con, final=False)
        assert con.last_reset is error
        await con.wait_connected(5)
        assert parts(await con.request(Message(ECHO, b"on"), timeout=5))[0] == b"on"
        assert seen.events == ["remote_reset", "connect"]


@both_loops
async def test_a_reset_names_what_was_dropped() -> None:
    async with pair() as (server, con):
        server_side(server).mark_down()
        requests = [
            asyncio.ensure_future(con.request(Message(SILENT, tid=t), timeout=20)) for t in (5, 6)
        ]
        errors = await asyncio.gather(*requests, return_exceptions=True)
        for error in errors:
            assert isinstance(error, SessionReset)
            assert (error.lost, set(error.tids)) == (2, {5, 6})
            assert "2 messages dropped" in str(error)


@both_loops
async def test_a_disposable_session_ends_with_its_socket() -> None:
    async with pair() as (server, con):
        con.mark_disposable()
        asyncio.get_running_loop().call_later(0.02, lambda: server_side(server).mark_down())
        await dies(con, final=True)


@both_loops
async def test_a_server_that_restarts_is_another_incarnation() -> None:
    async with serving() as server:
        where = place(server)
        messenger = client()
        async with messenger:
            con = await connected(messenger, where)
            # Its sockets go away without a word, as when the process is killed.
            await server.stop_accepting()
            waiting = asyncio.ensure_future(con.request(Message(SILENT), timeout=20))
            await eventually_async(lambda: pending(con))
            server_side(server).mark_down()
            async with serving(bind=where) as again:
                with pytest.raises(SessionReset):
                    await waiting
                await con.wait_connected(5)
                assert con.peer_addr == again.addr
                assert parts(await con.request(Message(ECHO, b"x"), timeout=5))[0] == b"x"


# keepalive


@both_loops
async def test_ping() -> None:
    async with pair() as (_, con):
        assert 0 <= await con.ping(5) < 5
        assert con.last_keepalive_ack is not None


# what cannot be sent


@both_loops
async def test_messages_that_cannot_be_sent() -> None:
    async with pair() as (_, con):
        with pytest.raises(ValueError, match="message type is 65536"):
            await con.request(Message(1 << 16), timeout=5)
        with pytest.raises(ValueError, match="message front has"):
            con.send_message(Message(ECHO, bytes((16 << 20) + 1)))
        with pytest.raises(TypeError, match="neither a message type number"):
            con.messages(str)
        assert pending(con) == 0
        await con.request(Message(ECHO), timeout=5)
