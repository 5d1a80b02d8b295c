"""Injected faults over real sockets: the stream stays intact, sessions go on, order is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from mpmsgr import Connection, Message, Messenger, Policies
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.inject import DelayedDelivery
from mpmsgr.session.inject import Injection, Injector
from mpmsgr.session.policy import LOSSLESS_CLIENT, LOSSY_CLIENT, STATEFUL_SERVER, STATELESS_SERVER
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    PUSH,
    SILENT,
    Recorder,
    both_loops,
    client,
    connected,
    place,
    server_side,
    serving,
)

WAIT_S = 15.0
#: Held back until a flush: no test takes so long.
LONG_S = 1000.0


@asynccontextmanager
async def faulty(
    seen: Recorder | None = None, *, policies: Policies | None = None, **faults: Any
) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """A server with *faults*, and a client without."""
    injection = Injection(**faults)
    async with (
        serving(seen or Recorder(), injection=injection, policies=policies) as server,
        client() as messenger,
    ):
        yield server, messenger


async def echo_all(con: MessengerConnection, count: int, size: int = 3000) -> None:
    """Requests at once; every reply is right."""
    rng = Random(count)
    asked = [
        Message(ECHO, b"%d" % i, data=rng.randbytes(rng.randrange(size))) for i in range(count)
    ]
    replies = await asyncio.gather(*(con.request(m, timeout=WAIT_S) for m in asked))
    assert [(m.front, bytes(m.data)) for m in replies] == [(m.front, m.data) for m in asked]


def fronts(messages: list[Message]) -> list[bytes]:
    return [bytes(m.front) for m in messages]


# short reads and writes


@pytest.mark.parametrize(
    "faults", [{"short_reads": 0.5}, {"short_writes": 0.5}, {"short_reads": 1.0}]
)
@both_loops
async def test_a_stream_in_small_pieces(faults: dict[str, Any]) -> None:
    async with faulty(seed=1, **faults) as (server, messenger):
        con = await connected(messenger, place(server))
        await echo_all(con, 30)
        assert messenger.statistics()["faults"] == server.statistics()["faults"] == 0


@both_loops
async def test_a_large_message_in_small_pieces() -> None:
    async with faulty(seed=1, short_writes=0.9, short_reads=0.1) as (server, messenger):
        con = await connected(messenger, place(server))
        data = Random(1).randbytes(1_000_000)
        assert (await con.request(Message(ECHO, data=data), timeout=WAIT_S)).data == data


@both_loops
async def test_what_dribbles_is_written_before_the_socket_is_closed() -> None:
    seen = Recorder(PUSH)
    injection = Injection(seed=1, short_writes=0.97)
    async with serving(seen) as server, client(injection=injection) as messenger:
        con = await connected(messenger, place(server))
        for number in range(50):
            con.send_message(Message(PUSH, b"%d" % number))
        assert await messenger.shutdown() == 0
        await eventually_async(lambda: len(seen.messages) == 50)
        assert seen.events == ["accept", "reset"]


@both_loops
async def test_a_dribbling_socket_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async with faulty(seed=1, short_writes=0.97) as (server, messenger):
        con = await connected(messenger, place(server))
        at_server = server_side(server)
        for _ in range(5):
            at_server.send_message(Message(PUSH, bytes(10_000)))
            await asyncio.sleep(0)
            for one in (con, at_server):
                if one.session.pipe is not None and one.session.pipe.handle is not None:
                    one.session.pipe.handle.abort()  # type: ignore[attr-defined]
            await con.wait_connected(WAIT_S)
        await con.request(Message(ECHO), timeout=WAIT_S)
        assert "Exception in callback" not in caplog.text


# cuts


@pytest.mark.parametrize("seed", range(2))
@both_loops
async def test_cuts(seed: int) -> None:
    seen = Recorder()
    async with faulty(seen, seed=seed, socket_failures=5) as (server, messenger):
        con = await connected(messenger, place(server))
        resets = server.endpoint.counters.resets  # a READY may have been lost
        for _ in range(20):
            await echo_all(con, 10, 500)
        assert fronts(seen.messages) == [b"%d" % i for _ in range(20) for i in range(10)]
        assert server.endpoint.counters.faults >= 5
        assert (server.endpoint.counters.resets, con.last_reset) == (resets, None)


async def cut_thrice(server: Messenger, con: MessengerConnection) -> None:
    """*con* talks until the server has cut it three times."""

    def talk() -> bool:
        con.send_keepalive()
        return server.endpoint.counters.faults >= 3

    await eventually_async(talk)
    con.mark_down()


@both_loops
async def test_only_sessions_of_a_type_are_cut() -> None:
    async with faulty(seed=1, socket_failures=2, peer_types=("osd",)) as (server, messenger):
        await echo_all(await connected(messenger, place(server)), 50)
        assert server.statistics()["faults"] == 0
        async with Messenger("osd.1", policies=Policies(LOSSLESS_CLIENT), drain_s=0.1) as osd:
            await cut_thrice(server, await connected(osd, place(server)))


@both_loops
async def test_only_some_sessions_are_cut() -> None:
    async with (
        faulty(seed=1, socket_failures=2, sessions=(2,)) as (server, messenger),
        client() as other,
    ):
        con = await connected(messenger, place(server))
        await echo_all(con, 50)
        assert server.statistics()["faults"] == 0
        await cut_thrice(server, await connected(other, place(server)))
        assert con.session.attempts == 0
        assert con.session.connect_seq == 1


# delays


@both_loops
async def test_delays_keep_the_order() -> None:
    seen = Recorder()
    faults: dict[str, Any] = {"seed": 1, "delay_probability": 0.3, "delay_max_s": 0.01}
    async with faulty(seen, **faults) as (server, messenger):
        con = await connected(messenger, place(server))
        await echo_all(con, 100)
        assert fronts(seen.messages) == [b"%d" % i for i in range(100)]


def held(server: Messenger) -> int:
    """Messages that the server holds back."""
    delayed: DelayedDelivery = server.driver._delayed  # type: ignore[attr-defined]
    return sum(len(queue) for queue in delayed._queues.values())


@asynccontextmanager
async def holding(
    policy: Any = STATEFUL_SERVER, client_policy: Any = LOSSLESS_CLIENT
) -> AsyncIterator[tuple[Messenger, MessengerConnection, Recorder]]:
    """A server that holds back three messages for long; every SILENT one starts to."""
    seen = Recorder(ECHO, SILENT, PUSH)
    faults: dict[str, Any] = {
        "delay_probability": 1.0,
        "delay_max_s": LONG_S,
        "delay_types": (SILENT,),
    }
    async with faulty(seen, policies=Policies(policy), **faults) as (server, messenger):
        con = await connected(messenger, place(server), policy=client_policy)
        con.send_message(Message(PUSH, b"0"))
        for type_, front in ((SILENT, b"1"), (PUSH, b"2"), (PUSH, b"3")):
            con.send_message(Message(type_, front))
        await eventually_async(lambda: held(server) == 3)
        assert fronts(seen.messages) == [b"0"]
        yield server, con, seen


@both_loops
async def test_a_lossless_session_that_loses_its_socket_gets_what_was_held_back() -> None:
    async with holding() as (server, con, seen):
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        await eventually_async(lambda: held(server) == 0)
        await con.request(Message(ECHO, b"4"), timeout=WAIT_S)
        assert fronts(seen.messages) == [b"0", b"1", b"2", b"3", b"4"]
        assert seen.events == ["accept", "accept"]


@both_loops
async def test_a_lossy_session_that_loses_its_socket_loses_it_too() -> None:
    async with holding(STATELESS_SERVER, LOSSY_CLIENT) as (server, con, seen):
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        await eventually_async(lambda: seen.events == ["accept", "reset"])
        assert (held(server), fronts(seen.messages)) == (0, [b"0"])


@both_loops
async def test_a_remote_reset_forgets_it() -> None:
    async with holding() as (server, con, seen):
        at_server = server_side(server)
        assert at_server.session.pipe is not None
        at_server.session.pipe.handle.pause_reading()  # type: ignore[attr-defined]
        con.mark_down()  # which it does not see before the new session comes
        again = await connected(con.messenger, place(server))
        await again.request(Message(ECHO, b"4"), timeout=WAIT_S)
        assert fronts(seen.messages) == [b"0", b"4"]
        assert seen.events == ["accept", "remote_reset", "accept"]


@both_loops
async def test_a_session_that_is_closed_gets_it_before_its_end() -> None:
    async with holding() as (server, con, seen):
        await con.messenger.shutdown()
        await eventually_async(lambda: seen.events == ["accept", "reset"])
        assert fronts(seen.messages) == [b"0", b"1", b"2", b"3"]
        assert held(server) == 0


@both_loops
async def test_our_own_mark_down_leaves_nothing_behind() -> None:
    async with holding() as (server, _, seen):
        server_side(server).mark_down()
        assert held(server) == 0
        assert fronts(seen.messages) == [b"0", b"1", b"2", b"3"], "they had been received"


@both_loops
async def test_a_shutdown_delivers_it_and_waits_for_the_replies() -> None:
    async with holding() as (server, con, seen):
        asked = asyncio.ensure_future(con.request(Message(ECHO, b"4"), timeout=WAIT_S))
        await eventually_async(lambda: held(server) == 4)
        assert await server.shutdown(WAIT_S) == 0
        assert fronts(seen.messages) == [b"0", b"1", b"2", b"3", b"4"]
        assert (await asked).front == b"4"


def seed_for(first: float, second: float) -> int:
    """A seed whose first delay is below *first* of the longest, and the next above *second*."""
    for seed in range(10_000):
        rng = Random(seed)
        _, one, _, two = (rng.random() for _ in range(4))
        if one < first and two > second:
            return seed
    raise AssertionError("no such seed")


@both_loops
async def test_handlers_of_late_messages_may_do_anything() -> None:
    """What they do to their session waits until all that is due has been delivered."""

    class Acts(Recorder):
        def dispatch(self, con: Connection, m: Message) -> None:
            self.messages.append(m)
            if m.front == b"1":
                con.mark_down()

    seen = Acts(ECHO, PUSH)
    seed = seed_for(0.1, 0.9)
    delays: dict[str, Any] = {"delay_probability": 1.0, "delay_max_s": 0.3, "delay_types": (ECHO,)}
    async with faulty(seen, seed=seed, **delays) as (server, messenger):
        con = await connected(messenger, place(server))
        for type_, front in ((ECHO, b"1"), (PUSH, b"2"), (ECHO, b"3"), (PUSH, b"4")):
            con.send_message(Message(type_, front))
        await eventually_async(lambda: len(seen.messages) == 4)
        assert fronts(seen.messages) == [b"1", b"2", b"3", b"4"]


def test_the_queue_of_a_session_is_released_by_one_timer() -> None:
    delivered: list[Bytes] = []

    async def main() -> None:
        injection = Injection(delay_probability=1.0, delay_max_s=0.005)
        delays = DelayedDelivery(
            Injector(injection, Random(1)), lambda session, raws: delivered.extend(raws)
        )
        one = Session.__new__(Session)
        one.id, one.peer_type = 1, 8
        raws: list[Bytes] = [bytes([i]) * 60 for i in range(50)]
        for raw in raws:
            delays.deliver(one, [raw])
            assert len(delays._timers) <= 1
        await eventually_async(lambda: len(delivered) == 50)
        assert delivered == raws
        assert (delays._timers, delays._queues) == ({}, {})

    asyncio.run(main())


# internal delays


@both_loops
async def test_slow_handshakes() -> None:
    async with faulty(internal_delay_s=0.02) as (server, messenger):
        began = asyncio.get_running_loop().time()
        con = await connected(messenger, place(server))
        assert asyncio.get_running_loop().time() - began >= 0.018
        began = asyncio.get_running_loop().time()
        await echo_all(con, 50)
        for _ in range(3):
            assert con.session.pipe is not None
            con.session.pipe.handle.abort()  # type: ignore[attr-defined]
            await con.wait_connected(WAIT_S)
        await echo_all(con, 50)


@both_loops
async def test_a_peer_that_leaves_during_a_slow_handshake(caplog: pytest.LogCaptureFixture) -> None:
    async with faulty(internal_delay_s=0.03) as (server, messenger):
        con = messenger.get_connection(place(server))
        await eventually_async(lambda: server.endpoint.counters.accepted == 1)
        await asyncio.sleep(0.005)
        con.mark_down()
        await eventually_async(lambda: not server.endpoint.registry.pipes)
        await echo_all(await connected(messenger, place(server)), 5)
        assert "Exception" not in caplog.text


# all of them


@pytest.mark.parametrize("seed", range(2))
@both_loops
async def test_everything_at_once(seed: int) -> None:
    faults = Injection(
        seed=seed,
        socket_failures=60,
        short_reads=0.1,
        short_writes=0.1,
        delay_probability=0.05,
        delay_max_s=0.005,
        internal_delay_s=0.001,
    )
    seen = Recorder()
    async with serving(seen, injection=faults) as server, client(injection=faults) as messenger:
        con = await connected(messenger, place(server))
        for _ in range(5):
            await echo_all(con, 40, 1000)
        assert fronts(seen.messages) == [b"%d" % i for _ in range(5) for i in range(40)]
        assert con.last_reset is None
