"""Endpoints that move, stop, quarrel or doubt each other, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import socket
from random import Random

import pytest

from mpmsgr import (
    ConfigError,
    ConnectError,
    Message,
    Messenger,
    MessengerError,
    Policies,
    SessionReset,
)
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.session.auth import Authorizer, NoAuthentication, Verification
from mpmsgr.session.policy import LOSSLESS_CLIENT
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.v1.handshake import Connect
from tests.loopback import ANY_PORT, HOST
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    PUSH,
    SILENT,
    Recorder,
    both_loops,
    client,
    connected,
    pair,
    peer,
    place,
    serving,
)

WAIT_S = 10.0


def avoided_but(free: set[int]) -> set[int]:
    """Every port of Ceph's range but *free* ones."""
    return set(range(6800, 7301)) - free


def free_port() -> int:
    """A port of Ceph's range that nobody listens at."""
    ports = list(range(6800, 7301))
    Random().shuffle(ports)
    for port in ports:
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


# rebind


@both_loops
async def test_a_move_takes_none_of_the_ports_to_avoid() -> None:
    async with serving() as server:
        port = free_port()
        assert (await server.rebind(avoided_but({port, server.addr.port}))).port == port


@both_loops
async def test_every_bind_moves() -> None:
    async with Messenger("svc.1", drain_s=0.1) as server, client() as messenger:
        server.add_dispatcher_tail(Recorder())
        await server.bind(ANY_PORT, ANY_PORT)
        before = {addr.port for addr in server.binding.addrs}
        await server.rebind()
        after = {addr.port for addr in server.binding.addrs}
        assert (len(after), after & before) == (2, set())
        for port in after:
            con = await connected(messenger, f"{HOST}:{port}")
            assert con.peer_addr.nonce == server.addr.nonce
            await con.request(Message(ECHO), timeout=WAIT_S)


@both_loops
async def test_a_move_ends_every_session_and_handshake() -> None:
    seen = Recorder()
    async with serving(seen) as server, serving() as other, client() as messenger:
        theirs = await connected(messenger, place(server))
        ours = await connected(server, place(other))
        pending = asyncio.ensure_future(ours.request(Message(SILENT), timeout=WAIT_S))
        half_open = socket.create_connection((server.addr.host, server.addr.port))
        await eventually_async(lambda: server.endpoint.counters.accepted == 2)
        await asyncio.sleep(0)
        await server.rebind()
        assert (len(server.endpoint.registry), len(server.endpoint.registry.pipes)) == (0, 0)
        with pytest.raises(SessionReset):
            await pending
        assert sorted(seen.events) == ["accept", "connect", "reset", "reset"]
        half_open.settimeout(WAIT_S)
        await asyncio.to_thread(_read_to_the_end, half_open)
        theirs.mark_down()


def _read_to_the_end(sock: socket.socket) -> None:
    with sock:
        while sock.recv(65536):
            pass


@both_loops
async def test_an_advertised_server_announces_its_new_nonce() -> None:
    async with (
        serving(advertise="127.0.0.1:7777") as server,
        client() as messenger,
    ):
        con = await connected(
            messenger, f"{HOST}:{server.binding.addrs[0].port}", verify_address=False
        )
        before = con.peer_addr
        con.mark_down()
        assert str(before).startswith("127.0.0.1:7777/")
        await server.rebind()
        again = await connected(
            messenger, f"{HOST}:{server.binding.addrs[0].port}", verify_address=False
        )
        assert again.peer_addr == server.addr == before._replace(nonce=before.nonce + 1_000_000)


@both_loops
async def test_where_no_port_is_left_everything_stays() -> None:
    async with pair() as (server, con):
        where = server.addr
        with pytest.raises(ConfigError, match="every port is to be avoided"):
            await server.rebind(range(65536))
        assert server.addr == where
        await con.request(Message(ECHO), timeout=WAIT_S)


@both_loops
async def test_who_is_not_bound_cannot_move() -> None:
    async with client() as messenger:
        with pytest.raises(MessengerError, match="not bound"):
            await messenger.rebind()


# shutdown


@both_loops
async def test_a_shutdown_names_what_was_not_delivered() -> None:
    async with serving() as server, client() as one, client() as two:
        cons = [await connected(m, place(server)) for m in (one, two)]
        await eventually_async(lambda: len(server.endpoint.registry) == 2)
        sessions = list(server.endpoint.registry)
        for con in cons:
            assert con.session.pipe is not None
            con.session.pipe.handle.pause_reading()  # type: ignore[attr-defined]
        for session, tids in zip(sessions, ([1, 2, 3], [4]), strict=True):
            for tid in tids:
                server.connection_of(session).send_message(Message(SILENT, tid=tid))
        assert await server.shutdown(drain_s=0.05) == 4
        facts = {reset.address: (reset.lost, reset.tids) for reset in server.undelivered}
        assert facts == {
            sessions[0].peer_addr: (3, (1, 2, 3)),
            sessions[1].peer_addr: (1, (4,)),
        }
        assert await server.shutdown() == 0


@both_loops
async def test_a_shutdown_after_which_nothing_is_missing() -> None:
    seen = Recorder(PUSH)
    async with serving(seen) as server, client(drain_s=WAIT_S) as messenger:
        con = await connected(messenger, place(server))
        for number in range(500):
            con.send_message(Message(PUSH, b"%d" % number, data=bytes(1000)))
        assert (await messenger.shutdown(), messenger.undelivered) == (0, [])
        await eventually_async(lambda: len(seen.messages) == 500)


@both_loops
async def test_a_shutdown_before_there_is_a_session() -> None:
    async with client() as messenger:
        con = peer(messenger, "127.0.0.1:1")
        con.send_message(Message(SILENT, tid=9))
        assert await messenger.shutdown() == 1
        (reset,) = messenger.undelivered
        assert (str(reset.address), reset.tids) == ("127.0.0.1:1", (9,))


# two with one identity


@both_loops
async def test_two_clients_with_one_identity_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server, client(nonce=5) as one, client(nonce=5) as two:
        cons = [peer(m, place(server)) for m in (one, two)]
        await eventually_async(lambda: server.endpoint.counters.contested, WAIT_S)
        for con in cons:
            con.mark_down()
        (line,) = [r.getMessage() for r in caplog.records if "two peers" in r.getMessage()]
        assert "8 connections took the place of a live one within 10 s" in line
        assert "127.0.0.1:0/5" in line
        assert server.endpoint.counters.contested == 1
        assert len(server.endpoint.registry) == 1


@both_loops
async def test_one_client_that_reconnects_is_no_quarrel() -> None:
    seen = Recorder()
    async with pair(seen) as (server, con):
        for count in range(2, 12):
            assert con.session.pipe is not None
            con.session.pipe.handle.abort()  # type: ignore[attr-defined]
            await eventually_async(functools.partial(_accepted, seen, count))
            await con.request(Message(ECHO), timeout=WAIT_S)
        assert server.endpoint.counters.contested == 0


def _accepted(seen: Recorder, count: int) -> bool:
    return seen.events.count("accept") == count


# messages that are missing


@both_loops
async def test_a_gap_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    seen = Recorder(PUSH)
    async with serving(seen) as server, client() as messenger:
        con = await connected(messenger, place(server))
        con.send_message(Message(PUSH, b"1"))
        await eventually_async(lambda: not con.session.outbox.nbytes)
        first = con.session.outbox.out_seq
        con.session.outbox.out_seq += 5  # withdrawn, spec §9.5
        con.send_message(Message(PUSH, b"7"))
        await eventually_async(lambda: len(seen.messages) == 2)
        await eventually_async(lambda: not con.session.outbox.nbytes)
        assert server.statistics()["gaps"] == 1
        assert f"message {first + 6} came after {first}" in caplog.text


# authorizers


class Secret(NoAuthentication):
    """Both sides know *word*; the server asks for it by a challenge, the client for a proof."""

    def __init__(self, word: bytes) -> None:
        self.word = word

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        return Authorizer(2, b"hello")

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        return Authorizer(2, challenge + self.word)

    def verify_reply(self, peer_type: int, reply: bytes) -> bool:
        return reply == b"proof of " + self.word

    def verify_authorizer(
        self, connect: Connect, peer_addr: EntityAddr, challenge: bytes
    ) -> Verification:
        if connect.authorizer == b"hello":
            return Verification(False, b"riddle ", challenge=True)
        valid = connect.authorizer == b"riddle " + self.word
        return Verification(valid, b"proof of " + self.word)


@both_loops
async def test_both_sides_prove_who_they_are() -> None:
    async with (
        serving(authenticator=Secret(b"sesame")) as server,
        client(authenticator=Secret(b"sesame")) as messenger,
    ):
        con = await connected(messenger, place(server))
        await con.request(Message(ECHO), timeout=WAIT_S)
        assert con.session.attempts == 0
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        await con.request(Message(ECHO), timeout=WAIT_S)
        assert con.handshake is not None
        assert con.handshake.tag == "SEQ"


@both_loops
async def test_a_client_with_the_wrong_word() -> None:
    async with (
        serving(authenticator=Secret(b"sesame")) as server,
        client(authenticator=Secret(b"millet")) as messenger,
    ):
        con = peer(messenger, place(server))
        with pytest.raises(ConnectError, match="BADAUTHORIZER"):
            await con.wait_connected(0.2)
        assert len(server.endpoint.registry) == 0
        con.mark_down()


@both_loops
async def test_a_server_that_proves_nothing() -> None:
    async with (
        serving() as server,
        client(authenticator=Doubts(), policies=Policies(LOSSLESS_CLIENT)) as messenger,
    ):
        con = peer(messenger, place(server))
        assert isinstance(con, MessengerConnection)
        with pytest.raises(ConnectError, match="authorizer reply is wrong"):
            await con.wait_connected(0.2)
        con.mark_down()


class Doubts(NoAuthentication):
    """Believes no server."""

    def verify_reply(self, peer_type: int, reply: bytes) -> bool:
        return False
