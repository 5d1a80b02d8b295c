"""Connections cut at any byte: a lossless session goes on, every message arrives once, in order."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from mpmsgr import Connection, Dispatcher, Message, Messenger
from tests.fault_proxy import FaultProxy, Kind, proxy_in_thread
from tests.loopback import HOST
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    PUSH,
    SILENT,
    Recorder,
    both_loops,
    client,
    connected,
    serving,
)

MESSAGES = 400


class Checks(Dispatcher):
    """Echoes; remembers the number in front of every message."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.con: Connection | None = None

    def dispatch(self, con: Connection, m: Message) -> None:
        self.con = con
        self.numbers.append(int(bytes(m.front)))
        con.send_message(m.reply(m.front, m.middle, m.data))


def message(number: int, rng: Random) -> Message:
    """Numbered, of a size between nothing and 20 kB."""
    return Message(ECHO, b"%d" % number, data=rng.randbytes(int(20_000 * rng.random() ** 4)))


async def talk(messenger: Messenger, addr: str, rng: Random) -> None:
    """Requests in a window of 50; each reply is what was sent."""
    con = await connected(messenger, addr, verify_address=False)
    window = asyncio.Semaphore(50)
    order: list[int] = []

    async def ask(number: int) -> None:
        async with window:
            asked = message(number, rng)
            reply = await con.request(asked, timeout=25)
            order.append(int(bytes(reply.front)))
            assert bytes(reply.data) == asked.data

    await asyncio.gather(*(ask(number) for number in range(MESSAGES)))
    assert order == list(range(MESSAGES)), "replies in order"


@pytest.mark.parametrize("seed", range(3))
@both_loops
async def test_cut_at_any_byte(seed: int) -> None:
    seen = Checks()
    proxy = FaultProxy(None, seed, mean_bytes=60_000, kinds=(Kind.CUT,))
    with proxy_in_thread(proxy) as (host, port):
        async with serving(seen) as server, client() as messenger:
            proxy.target = (server.addr.host, server.addr.port)
            await talk(messenger, f"{host}:{port}", Random(seed))
            assert seen.numbers == list(range(MESSAGES)), "once, in order"
            assert proxy.counts["cut"] >= 10, "or this test shows nothing"
            assert len(server.endpoint.registry) == 1, "the same session all the time"
            assert server.statistics()["resets"] == messenger.statistics()["resets"] == 0


@both_loops
async def test_pushes_wait_for_a_client_that_comes_back() -> None:
    seen = Checks()
    async with serving(seen) as server, client() as messenger:
        con = await connected(messenger, f"{HOST}:{server.addr.port}")
        pushes = con.messages(PUSH)
        con.send_message(Message(ECHO, b"1"))
        await eventually_async(lambda: seen.con)
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        assert seen.con is not None
        for i in range(20):
            assert seen.con.send_message(Message(PUSH, b"%d" % i))
        got = [await anext(pushes) for _ in range(20)]
        assert [bytes(m.front) for m in got] == [b"%d" % i for i in range(20)]
        assert con.handshake is not None
        assert con.handshake.tag == "SEQ"


@both_loops
async def test_events_of_a_reconnect() -> None:
    here, there = Recorder(PUSH), Recorder()
    async with serving(there) as server, client() as messenger:
        messenger.add_dispatcher_tail(here)
        con = await connected(messenger, f"{HOST}:{server.addr.port}")
        for count in (2, 3):
            assert con.session.pipe is not None
            con.session.pipe.handle.abort()  # type: ignore[attr-defined]
            await con.request(Message(ECHO), timeout=5)
            assert there.events == ["accept"] * count
        assert here.events == ["connect"] * 3
        assert len(there.cons) == 1


@both_loops
async def test_a_message_without_a_reply_is_not_sent_twice() -> None:
    there = Recorder()
    async with serving(there) as server, client() as messenger:
        con = await connected(messenger, f"{HOST}:{server.addr.port}")
        con.send_message(Message(SILENT, b"1"))
        await eventually_async(lambda: there.messages)  # not acknowledged yet
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        await con.request(Message(ECHO), timeout=5)
        assert [m.type for m in there.messages] == [SILENT, ECHO]
