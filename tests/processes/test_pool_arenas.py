"""Shared memory with real processes: leases kept for ever, full arenas, replies of the dead."""

from __future__ import annotations

import asyncio
import re

from mpmsgr import Message
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import Message as Decoded
from mpmsgr.wire.v1.frames import CLOSE, encode_ack
from mpmsgr.wire.v1.parcel import decode_raw
from mpmsgr.wire.v1.parser import FrameParser
from mpmsgr.wire.v1.tags import Tag
from tests.processes.pool_arenas import DEBUG, bytes_in_use, slots_in_use
from tests.processes.pool_clients import WAIT_S, session, sessions, settle
from tests.processes.pool_serving import WORKER, Serve, kill
from tests.raw_peer import RawPeer
from tests.streams import message_frame
from tests.support import eventually_async

ECHO, KEEP, FILL, GATED, WHO, TWICE, PUSH = range(0x9001, 0x9008)
MIB = 1 << 20

MODULES = {
    "bulky": """
        import asyncio
        import os
        from mpmsgr import Message, handles

        kept = []

        @handles(0x9001)
        def echo(con, m):
            con.send_message(m.reply(m.front, data=m.data))

        @handles(0x9002)
        def keep(con, m, state):
            kept.append((m.data, con.allocate(2 * len(m.data))))
            state["n"] = state.get("n", 0) + 1
            return state["n"]

        @handles(0x9003)
        def fill(con, m):
            '''As many bytes as front says, in the worker's arena, a pattern that data begins.'''
            size = int(m.front)
            data = con.allocate(size)
            data[:] = (bytes(m.data) * (size // len(m.data) + 1))[:size]
            con.send_message(m.reply(m.front, data=data))

        def let_go():
            if os.path.exists("open"):
                kept.clear()
            else:
                asyncio.get_running_loop().call_later(0.01, let_go)

        @handles(0x9004)
        def keep_until_open(con, m):
            if not os.path.exists("open"):
                if not kept:
                    let_go()
                kept.append(m.data)
                with open("kept", "a") as file:
                    print(con.id, file=file)
            con.send_message(m.reply(m.front, data=m.data))

        @handles(0x9006)
        def twice(con, m):
            push = Message(0x9007, data=con.allocate(len(m.data)))
            push.data[:] = m.data
            con.send_message(push)
            con.send_message(Message(0x9007, data=m.data))
            con.send_message(m.reply(data=push.data))  # which is frozen now

        @handles(0x9005)
        def who(con, m):
            return os.getpid()
    """
}


def pattern(text: bytes, size: int) -> bytes:
    return (text * (size // len(text) + 1))[:size]


async def who(con: MessengerConnection) -> int:
    pid: int = unpack(await con.request(Message(WHO), timeout=WAIT_S))
    return pid


# leases


def test_what_handlers_keep_is_seen_at_the_end() -> None:
    async def main() -> None:
        async with session(server) as con:
            await con.request(Message(KEEP, data=bytes(MIB)), timeout=WAIT_S)

    with Serve(MODULES, workers=1, flags=DEBUG) as server:
        asyncio.run(main())
        assert server.stop() == 0
        assert slots_in_use(server)["ingress"] == 1
        assert bytes_in_use(server) == [2 * MIB]


def test_a_worker_that_never_frees_is_replaced_with_a_word() -> None:
    """More than twice as much as the arena holds, and all of it is kept."""

    async def count(con: MessengerConnection) -> list[int]:
        asked = [con.request(Message(KEEP, data=bytes(MIB)), timeout=WAIT_S) for _ in range(5)]
        return [unpack(reply) for reply in await asyncio.gather(*asked)]

    async def main() -> None:
        async with sessions(server, 4) as cons:
            counts = await asyncio.gather(*map(count, cons))
            assert counts == [list(range(1, 6))] * 4

    toml = f"arena_bytes = {8 * MIB}\nlease_max_age_s = 1.0\n"
    with Serve(MODULES, workers=2, toml=toml) as server:
        asyncio.run(main())
        kept = "it keeps [0-9]+ bytes of shared memory for [0-9]+ s"
        said = re.findall(f"WARNING io .*worker [0-9] is recycled: {kept}", server.log)
        done = re.findall(f"INFO supervisor .* is to replace worker [0-9]: {kept}", server.log)
        assert len(said) >= len(done) >= 2, "each time the arena was full"


# full arenas


def test_many_sessions_share_an_arena_that_is_full() -> None:
    """While nothing of it comes free, small messages go on; then all of them come through."""
    size, count, fit = 300_000, 24, 13

    async def bulk(con: MessengerConnection, name: bytes) -> None:
        data = pattern(name, size)
        asked = [con.request(Message(GATED, b"%d" % i, data=data)) for i in range(3)]
        for i, reply in enumerate(await asyncio.gather(*asked)):
            assert (reply.front, reply.data) == (b"%d" % i, data)

    async def main() -> None:
        async with sessions(server, count + 2) as (small, giant, *cons):
            work = asyncio.gather(*(bulk(con, b"%06d" % i) for i, con in enumerate(cons)))
            await eventually_async(lambda: len(server.written("kept")) == fit, WAIT_S)
            for number in range(200):
                reply = await small.request(Message(ECHO, b"%d" % number), timeout=WAIT_S)
                assert reply.front == b"%d" % number
            larger = pattern(b"larger than the arena", 5 * MIB)
            reply = await giant.request(Message(ECHO, data=larger), timeout=WAIT_S)
            assert reply.data == larger
            assert len(server.written("kept")) == fit
            (server.directory / "open").touch()
            await work
            assert all(con.last_reset is None for con in cons)
        await settle(server, WHO, 2)

    with Serve(MODULES, workers=2, toml=f"arena_bytes = {4 * MIB}\n", flags=DEBUG) as server:
        asyncio.run(main())
        assert server.stop() == 0
        assert not any(slots_in_use(server).values()), slots_in_use(server)


def read_messages(peer: RawPeer, parser: FrameParser, count: int) -> list[bytes]:
    """The next *count* messages, raw: from their seq to the end of their footer."""
    raws: list[bytes] = []
    while len(raws) < count:
        data = peer.sock.recv(1 << 16)
        assert data, f"the server hung up after {len(raws)} messages"
        raws += [bytes(raw) for _, _, raw in parser.feed(data) if raw is not None]
    return raws


def test_an_arena_of_one_message_and_a_lossless_echo_of_two() -> None:
    """The second one does not wait for the ack of the first one's reply, which may never come."""
    messages = [
        Message(ECHO, b"%d" % i, data=pattern(b"%d" % i, 700_000), tid=i) for i in (1, 2, 3)
    ]

    with Serve(MODULES, workers=1, toml=f"arena_bytes = {MIB}\n", flags=DEBUG) as server:
        with RawPeer(server.address, nonce=77) as peer:
            parser = FrameParser(Limits(), peer.handshake().features)
            for seq, m in enumerate(messages, 1):
                peer.send(message_frame(m, seq))
                (raw,) = read_messages(peer, parser, 1)
                assert decode_raw(raw).data == m.data
            peer.send(encode_ack(3) + CLOSE)
            peer.read_to_end()
        assert server.stop() == 0
        assert not any(slots_in_use(server).values()), slots_in_use(server)


# what is sent more than once


def test_a_slot_is_free_when_all_that_was_sent_of_it_is_acknowledged() -> None:
    data = pattern(b"sent twice", MIB)

    async def main() -> None:
        async with session(server) as con:
            pushes = con.messages(PUSH)
            for _ in range(20):
                reply = await con.request(Message(TWICE, data=data), timeout=WAIT_S)
                sent = [reply, await anext(pushes), await anext(pushes)]
                assert all(m.data == data for m in sent)
        await settle(server, WHO, 1)

    toml = f"arena_bytes = {8 * MIB}\nworker_arena_bytes = {8 * MIB}\n"
    with Serve(MODULES, workers=1, toml=toml, flags=DEBUG) as server:
        asyncio.run(main())
        assert server.stop() == 0
        assert not any(slots_in_use(server).values()), slots_in_use(server)
        assert not any(bytes_in_use(server))


# replies that outlive their worker


def test_replies_of_a_dead_worker_are_repeated_byte_by_byte() -> None:
    """They lie in its arena, where the next generation writes what it sends meanwhile."""
    size, count = MIB, 5
    asked = [
        message_frame(Message(FILL, b"%d" % size, data=b"old %d " % seq, tid=seq), seq)
        for seq in range(1, count + 1)
    ]

    async def main(old: int) -> None:
        async with session(server) as con:
            assert await who(con) != old
            for number in range(40):
                text = b"new %d " % number
                m = Message(FILL, b"%d" % (size // 2), data=text)
                reply: Decoded = await con.request(m, timeout=WAIT_S)
                assert reply.data == pattern(text, size // 2)

    toml = f"worker_arena_bytes = {8 * MIB}\n"
    with Serve(MODULES, workers=1, toml=toml, flags=DEBUG) as server:
        (pid,) = server.pids(WORKER)
        with RawPeer(server.address, nonce=77) as peer:
            parser = FrameParser(Limits(), peer.handshake().features)
            peer.send(b"".join(asked))
            first = read_messages(peer, parser, count)
            kill(pid)
        asyncio.run(main(pid))
        with RawPeer(server.address, nonce=77) as peer:
            reply = peer.handshake(Tag.SEQ, connect_seq=2, global_seq=2)
            again = read_messages(peer, FrameParser(Limits(), reply.features), count)
            assert again == first
            for seq, raw in enumerate(again, 1):
                m = decode_raw(raw)
                assert (m.seq, m.tid) == (seq, seq)
                assert m.data == pattern(b"old %d " % seq, size)
            peer.send(encode_ack(count) + CLOSE)
            peer.read_to_end()
        asyncio.run(main(pid))
        assert server.stop() == 0
        assert not any(slots_in_use(server).values()), slots_in_use(server)
        assert not any(bytes_in_use(server))
