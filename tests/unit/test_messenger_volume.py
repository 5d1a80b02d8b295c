"""Large messages, and peers that do not read: everything arrives, memory stays bounded."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.session.session import Pause
from tests.raw_peer import RawPeer
from tests.streams import message_frame
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    SILENT,
    Recorder,
    both_loops,
    client,
    connected,
    pair,
    place,
    server_side,
    serving,
)

MIB = 1 << 20


def socket_of(con: object) -> PipeTransport:
    """The socket of a connection."""
    handle = con.session.pipe.handle  # type: ignore[attr-defined]
    assert isinstance(handle, PipeTransport)
    return handle


# large messages


@pytest.mark.parametrize("size", [MIB - 1, 2 * MIB, 4 * MIB + 1, 8 * MIB])
@both_loops
async def test_large_messages(size: int) -> None:
    async with pair() as (_, con):
        data = Random(size).randbytes(size)
        reply = await con.request(Message(ECHO, b"front", data[:70_000], data), timeout=15)
        assert bytes(reply.front) == b"front"
        assert bytes(reply.middle) == data[:70_000]
        assert bytes(reply.data) == data


@both_loops
async def test_several_large_ones_among_small_ones() -> None:
    async with pair() as (_, con):
        rng = Random(1)
        sizes = [rng.choice((0, 100, 20_000, 300_000, MIB, 3 * MIB)) for _ in range(24)]
        datas = [rng.randbytes(size) for size in sizes]
        replies = await asyncio.gather(
            *(con.request(Message(ECHO, data=data), timeout=20) for data in datas)
        )
        for reply, data in zip(replies, datas, strict=True):
            assert bytes(reply.data) == data


@both_loops
async def test_received_data_does_not_change_later() -> None:
    seen = Recorder()
    async with pair(seen) as (_, con):
        for fill in (b"a", b"b", b"c"):
            await con.request(Message(ECHO, data=fill * MIB), timeout=15)
        assert [bytes(m.data[:2]) for m in seen.messages] == [b"aa", b"bb", b"cc"]
        assert [len(m.data) for m in seen.messages] == [MIB] * 3


# peers that do not read


@both_loops
async def test_a_client_that_does_not_read_is_not_read_either() -> None:
    seen = Recorder()
    async with serving(seen) as server, client() as messenger, client() as other_messenger:
        con = await connected(messenger, place(server))
        other = await connected(other_messenger, place(server))
        there = server.connection_of(
            next(s for s in server.endpoint.registry if s.peer_addr == messenger.addr)
        )
        data = bytes(64 * 1024)
        socket_of(con).pause_reading()
        requests = [
            asyncio.ensure_future(con.request(Message(ECHO, b"%d" % i, data=data), timeout=25))
            for i in range(700)
        ]
        await eventually_async(lambda: there.session.paused & Pause.UNREAD, 10)
        most = 0
        for _ in range(50):
            await other.request(Message(ECHO, b"undisturbed"), timeout=5)
            most = max(most, there.session.outbox.nbytes)
        assert most < 6 * MIB
        assert len(seen.messages) < 700
        socket_of(con).resume_reading()
        replies = await asyncio.gather(*requests)
        assert [bytes(m.front) for m in replies] == [b"%d" % i for i in range(700)]
        assert not there.session.paused
        assert con.last_reset is other.last_reset is None


@both_loops
async def test_a_client_that_reads_slowly() -> None:
    frames = b"".join(
        message_frame(Message(ECHO, b"%06d" % i, data=bytes(2000), tid=i), seq=i)
        for i in range(1, 1001)
    )

    def read_slowly(address: str) -> bytes:
        with RawPeer(address) as peer:
            peer.handshake()
            peer.sock.setblocking(False)
            got, sent = b"", 0
            while len(got) < len(frames):
                try:
                    sent += peer.sock.send(frames[sent : sent + 30_000])
                except BlockingIOError:
                    pass
                try:
                    got += peer.sock.recv(4096)
                except BlockingIOError:
                    pass
            return got

    async with pair() as (server, con):
        slow = asyncio.ensure_future(asyncio.to_thread(read_slowly, place(server)))
        while not slow.done():
            await con.request(Message(ECHO, b"undisturbed"), timeout=5)
        got = await slow
        at = [got.index(b"%06d" % i) for i in range(1, 1001)]
        assert at == sorted(at), "replies in order"


@both_loops
async def test_a_server_that_does_not_read_holds_up_nobody_else() -> None:
    async with serving() as stuck, serving() as well, client() as messenger:
        con = await connected(messenger, place(stuck))
        other = await connected(messenger, place(well))
        await eventually_async(lambda: len(stuck.endpoint.registry))
        socket_of(server_side(stuck)).pause_reading()
        data = bytes(MIB)
        requests = [
            asyncio.ensure_future(con.request(Message(ECHO, b"%d" % i, data=data), timeout=25))
            for i in range(30)
        ]
        await eventually_async(lambda: socket_of(con).write_paused)
        for _ in range(20):
            await other.request(Message(ECHO), timeout=5)
        socket_of(server_side(stuck)).resume_reading()
        replies = await asyncio.gather(*requests)
        assert [bytes(m.front) for m in replies] == [b"%d" % i for i in range(30)]


async def leave_unread(server: Messenger, con: MessengerConnection) -> MessengerConnection:
    """The server's side of *con*, which reads nothing of the 40 MiB that are sent to it."""
    await eventually_async(lambda: len(server.endpoint.registry))
    socket_of(con).pause_reading()
    there = server_side(server)
    for _ in range(40):
        there.send_message(Message(SILENT, data=bytes(MIB)))
    return there


@both_loops
async def test_a_shutdown_does_not_wait_for_a_peer_that_does_not_read() -> None:
    async with pair(drain_s=0.1) as (server, con):
        await leave_unread(server, con)
        lost = await asyncio.wait_for(server.shutdown(0.1), 5)
        assert lost == sum(reset.lost for reset in server.undelivered) > 0


@both_loops
async def test_the_socket_of_an_ended_session_does_not_wait_for_its_peer_to_read() -> None:
    async with pair(drain_s=0.1) as (server, con):
        there = await leave_unread(server, con)
        await eventually_async(lambda: socket_of(there).write_paused)
        there.mark_down()
        await eventually_async(lambda: not server.driver._transports)
