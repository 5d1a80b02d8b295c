"""The twelve scenarios of session spec §18: messengers of one process, on loopback sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from mpmsgr import ConnectError, Message, Messenger, Policies, Policy
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.loopback import LoopbackConnection
from mpmsgr.session.inject import Injection
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSLESS_PEER,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    STATELESS_SERVER,
)
from mpmsgr.session.states import State
from mpmsgr.wire.features import SUPPORTED
from mpmsgr.wire.name import EntityType
from tests.loopback import ANY_PORT
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    PUSH,
    QUICK,
    Recorder,
    both_loops,
    client,
    connected,
    place,
    server_side,
    serving,
)

#: Seconds until a scenario counts as stuck.
WAIT_S = 10.0


class Ends:
    """A server and a client of two policies, what each saw, and the client's first connection."""

    def __init__(self, server: Messenger, at_server: Recorder, messenger: Messenger) -> None:
        self.server, self.at_server = server, at_server
        self.client, self.at_client = messenger, Recorder()
        messenger.add_dispatcher_tail(self.at_client)

    async def connect(self) -> MessengerConnection:
        """An open connection to where the server is now."""
        return await connected(self.client, place(self.server))

    async def events(self, at: Recorder, *names: str) -> None:
        """Wait until *at* has seen exactly these, in this order."""
        await eventually_async(lambda: at.events == list(names), WAIT_S, f"{names} {at.events}")


@asynccontextmanager
async def ends(server_policy: Policy, client_policy: Policy) -> AsyncIterator[Ends]:
    """A server and a client, not connected yet."""
    at_server = Recorder()
    policies = Policies(server_policy)
    async with (
        serving(at_server, ANY_PORT, policies=policies) as server,
        client(policies=Policies(client_policy)) as messenger,
    ):
        yield Ends(server, at_server, messenger)


def dial(messenger: Messenger, addr: str) -> MessengerConnection:
    """A connection on its way."""
    con = messenger.get_connection(addr)
    assert isinstance(con, MessengerConnection)
    return con


async def recorded(at: Recorder, count: int) -> None:
    """Wait until *at* has that many messages."""
    await eventually_async(lambda: len(at.messages) >= count, WAIT_S, f"{count} messages")


async def ping(con: MessengerConnection | LoopbackConnection, text: bytes = b"ping") -> None:
    """A request and its reply."""
    reply = await con.request(Message(ECHO, text), timeout=WAIT_S)
    assert reply.front == text


@both_loops
async def test_1_ping_and_reply() -> None:
    async with ends(STATELESS_SERVER, LOSSY_CLIENT) as e:
        con = await e.connect()
        await ping(con)
        assert con.peer_type == EntityType.SERVICE
        (seen,) = e.at_server.messages
        (from_,) = e.at_server.cons
        assert (from_.peer_type, str(seen.src)) == (EntityType.CLIENT, str(e.client.name))
        assert con.session.in_seq == server_side(e.server).session.in_seq == 1


@both_loops
async def test_2_rebind_moves_the_server_to_another_port_as_another_entity() -> None:
    async with ends(STATELESS_SERVER, LOSSY_CLIENT) as e:
        con, old = await e.connect(), e.server.addr
        await ping(con)
        avoided = range(6800, 6900)
        new = await e.server.rebind(avoided)
        assert new.port not in (old.port, *avoided)
        assert new.nonce == (old.nonce + 1_000_000) % 2**32
        await e.events(e.at_server, "accept", "reset")
        await e.events(e.at_client, "connect", "reset")
        assert not con.send_message(Message(ECHO, b"to nobody"))
        gone = dial(e.client, str(old))
        with pytest.raises(ConnectError, match="refused"):
            await gone.wait_connected(0.1)
        gone.mark_down()
        await ping(await e.connect())


@both_loops
async def test_3_the_client_marks_the_session_down_and_comes_back() -> None:
    async with ends(STATEFUL_SERVER, LOSSLESS_CLIENT) as e:
        con = await e.connect()
        await ping(con)
        await ping(con)
        at_server = server_side(e.server)
        con.mark_down()
        await eventually_async(lambda: not at_server.is_connected, WAIT_S, "the server's fault")
        again = await e.connect()
        await ping(again)
        await e.events(e.at_server, "accept", "remote_reset", "accept")
        await e.events(e.at_client, "connect", "connect")
        assert server_side(e.server) is at_server
        ours, theirs = again.session, at_server.session
        assert (ours.connect_seq, theirs.connect_seq) == (1, 1)
        assert (ours.outbox.out_seq, theirs.in_seq) == (1, 1)
        assert ours.in_seq == theirs.outbox.out_seq, "it may begin anywhere: spec §9.3"


@both_loops
async def test_4_the_server_marks_the_session_down() -> None:
    async with ends(STATEFUL_SERVER, LOSSLESS_CLIENT) as e:
        con = await e.connect()
        await ping(con)
        server_side(e.server).mark_down()
        await e.events(e.at_client, "connect", "remote_reset", "connect")
        assert con.is_connected
        assert (con.handshake and con.handshake.tag, con.session.connect_seq) == ("READY", 1)
        await ping(con)
        await e.events(e.at_server, "accept", "accept")


@both_loops
async def test_5_the_server_marks_a_lossy_session_down() -> None:
    async with ends(STATELESS_SERVER, LOSSY_CLIENT) as e:
        con = await e.connect()
        await ping(con)
        server_side(e.server).mark_down()
        await e.events(e.at_client, "connect", "reset")
        assert not con.is_connected
        assert not con.send_message(Message(ECHO, b"dropped"))
        await ping(await e.connect(), b"new")
        assert [m.front for m in e.at_server.messages] == [b"ping", b"new"]


@both_loops
async def test_6_the_server_marks_an_idle_session_down() -> None:
    async with ends(STATEFUL_SERVER, LOSSLESS_PEER) as e:
        con = await e.connect()
        await ping(con)
        await eventually_async(lambda: not server_side(e.server).session.outbox.nbytes, WAIT_S)
        server_side(e.server).mark_down()
        await eventually_async(lambda: con.session.state is State.STANDBY, WAIT_S, "standby")
        await e.events(e.at_client, "connect")
        lost = Message(ECHO, b"lost", tid=77)
        assert con.send_message(lost)
        await e.events(e.at_client, "connect", "remote_reset", "connect")
        assert con.last_reset is not None
        assert list(con.last_reset.tids) == [77]
        await ping(con, b"next")
        assert [m.front for m in e.at_server.messages] == [b"ping", b"next"]


@both_loops
async def test_7_a_feature_the_client_lacks() -> None:
    feature = 1 << 49
    assert not SUPPORTED & feature
    demanding = replace(
        STATELESS_SERVER, features_supported=SUPPORTED | feature, features_required=feature
    )
    async with ends(demanding, LOSSY_CLIENT) as e:
        con = dial(e.client, place(e.server))
        await eventually_async(lambda: e.server.endpoint.counters.accepted > 2, WAIT_S, "retries")
        with pytest.raises(ConnectError, match="FEATURES"):
            await con.wait_connected(0.05)
        con.mark_down()
        raised = replace(LOSSY_CLIENT, features_supported=SUPPORTED | feature)
        able = await connected(e.client, place(e.server), policy=raised)
        assert able.features & feature
        await ping(able)
        await e.events(e.at_client, "connect")


@both_loops
async def test_8_an_idle_session_ends() -> None:
    timeout_s = 0.2
    async with ends(STATELESS_SERVER, replace(LOSSY_CLIENT, idle_timeout_s=timeout_s)) as e:
        con = await e.connect()
        await ping(con)
        began = asyncio.get_running_loop().time()
        await eventually_async(lambda: not con.is_connected, WAIT_S, "the timeout")
        assert asyncio.get_running_loop().time() - began > timeout_s / 2
        await e.events(e.at_client, "connect", "reset")
        await e.events(e.at_server, "accept", "reset")


@both_loops
async def test_9_large_messages() -> None:
    async with ends(STATEFUL_SERVER, LOSSLESS_CLIENT) as e:
        con = await e.connect()
        front, data = Random(9).randbytes(780_000), Random(10).randbytes(3_000_000)
        reply = await con.request(Message(ECHO, front, b"middle", data), timeout=WAIT_S)
        assert (reply.front, bytes(reply.middle), reply.data) == (front, b"middle", data)


class Peer(Recorder):
    """One of several that all talk to each other through injected socket failures."""

    def __init__(self, number: int) -> None:
        super().__init__(PUSH)
        self.messenger = Messenger(
            f"svc.{number}",
            policies=Policies(LOSSLESS_PEER),
            timing=QUICK,
            injection=Injection(seed=number, socket_failures=25),
            drain_s=WAIT_S,
        )
        self.messenger.add_dispatcher_tail(self)

    def received_from(self, other: Peer) -> list[int]:
        """The numbers of *other*'s messages, in the order they were dispatched."""
        name = str(other.messenger.name)
        return [int(m.front) for m in self.messages if str(m.src) == name]


@pytest.mark.parametrize("seed", range(3))
def test_10_random_traffic_through_socket_failures(seed: int) -> None:
    count = 300

    async def main() -> None:
        rng = Random(seed)
        async with AsyncExitStack() as stack:
            peers = [Peer(3 * seed + i) for i in range(3)]
            for peer in peers:
                await stack.enter_async_context(peer.messenger)
                await peer.messenger.bind(ANY_PORT)
            pairs = [(a, b) for a in peers for b in peers if a is not b]
            cons = {(a, b): a.messenger.get_connection(place(b.messenger)) for a, b in pairs}
            for number in range(count):
                for pair in rng.sample(pairs, len(pairs)):
                    cons[pair].send_message(
                        Message(PUSH, b"%d" % number, data=bytes(rng.randrange(2000)))
                    )
                if rng.random() < 0.2:
                    await asyncio.sleep(rng.random() * 0.005)
            expected = len(peers[:-1]) * count
            for peer in peers:
                await recorded(peer, expected)
            for a, b in pairs:
                assert b.received_from(a) == list(range(count))
            assert sum(p.messenger.endpoint.counters.faults for p in peers) > 20
            assert not any("reset" in event for peer in peers for event in peer.events)

    asyncio.run(main())


@pytest.mark.parametrize("first", ["lower", "higher"])
@both_loops
async def test_11_simultaneous_connect(first: str) -> None:
    async with AsyncExitStack() as stack:
        pair = []
        for number in (1, 2):
            messenger = Messenger(
                f"svc.{number}", policies=Policies(LOSSLESS_PEER), timing=QUICK, drain_s=0.5
            )
            await stack.enter_async_context(messenger)
            recorder = Recorder(PUSH)
            messenger.add_dispatcher_tail(recorder)
            await messenger.bind(ANY_PORT)
            pair.append((messenger, recorder))
        pair.sort(key=lambda one: one[0].addr.sort_key())
        (lower, at_lower), (higher, at_higher) = pair
        order = [(lower, higher), (higher, lower)]
        if first == "higher":
            order.reverse()
        cons: dict[Messenger, MessengerConnection] = {}
        for a, b in order:
            con = cons[a] = dial(a, place(b))
            con.send_message(Message(PUSH, str(a.name).encode()))
        for messenger, recorder in pair:
            await cons[messenger].wait_connected(WAIT_S)
            await recorded(recorder, 1)
        for messenger, recorder in pair:
            (session,) = messenger.endpoint.registry
            (pipe,) = messenger.endpoint.registry.pipes
            assert session.pipe is pipe
            assert session.connection is cons[messenger]
            assert pipe.incoming is (messenger is higher)
            assert recorder.cons == [cons[messenger]]
        assert at_lower.events == ["connect"]
        assert at_higher.events == ["accept"]
        decided = {**lower.endpoint.counters.decisions, **higher.endpoint.counters.decisions}
        assert set(decided) & {"8", "9"}, "there was a race"


@both_loops
async def test_12_loopback() -> None:
    async with ends(STATEFUL_SERVER, LOSSLESS_CLIENT) as e:
        own = e.server.get_connection(place(e.server))
        assert isinstance(own, LoopbackConnection)
        await ping(own)
        (m,) = e.at_server.messages
        assert str(m.src) == str(e.server.name)
        assert len(e.server.endpoint.registry) == 0
