"""A peer that connects again and again, and sends more each time, while its lane is blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, Message, Messenger, Policies
from mpmsgr.dispatch.attempts import Again
from mpmsgr.messenger.throttles import PER_MESSAGE
from mpmsgr.pool.envelope import EventItem
from mpmsgr.pool.items import superseded
from mpmsgr.session.policy import STATEFUL_SERVER, STATELESS_SERVER, Policy
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import RECONNECT_SEQ, SUPPORTED
from mpmsgr.wire.v1.handshake import BANNER, Reply, encode_server_hello
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import connect
from tests.streams import message_frame
from tests.support import eventually_async
from tests.unit.messenger_peers import Recorder, serving
from tests.unit.pool_harness import on_uvloop, pool
from tests.unit.pool_site import Site

MANY = 2000
FEWER = 300
PEER = EntityAddr.of("127.0.0.1", 0, 88)
DISPATCH = 64 << 10
#: In one piece with the handshake.
EACH, SIZE = 3, 1000
MESSAGES = DISPATCH // SIZE + EACH
ONE_READ = EACH * (SIZE + PER_MESSAGE + 100)
#: An old event, the reset of its session, and what follows on that.
EVENTS = 3


class Events(Dispatcher):
    """Remembers what came, by connection."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, site: Site) -> list[Dispatcher]:
        return [self]

    def dispatch(self, con: Connection, m: Message) -> None:
        self.seen.append(str(m.tid))

    def handle_accept(self, con: Connection) -> None:
        self.seen.append("accept")

    def handle_reset(self, con: Connection) -> None:
        self.seen.append("reset")

    def handle_remote_reset(self, con: Connection) -> None:
        self.seen.append("remote_reset")


class Attacker:
    """Connects, with messages in the same breath, and leaves. connect_seq: of its n-th connect."""

    def __init__(self, messenger: Messenger, connect_seq: Callable[[int], int]) -> None:
        self._addr = messenger.addr
        self._connect_seq = connect_seq
        answer = encode_server_hello(self._addr, PEER) + Reply(Tag.READY).encode()
        self._answer_bytes = len(answer)
        self._seq = 0

    async def comes_and_goes(self, n: int) -> None:
        connect_seq = self._connect_seq(n)
        self._seq = self._seq if connect_seq else 0
        features = SUPPORTED & ~RECONNECT_SEQ  # or it would have to wait for a seq
        said = [BANNER, PEER.encode(), connect(connect_seq, n + 1, features=features).encode()]
        for _ in range(EACH):
            self._seq += 1
            said.append(message_frame(Message(0x8001, bytes(SIZE), tid=n + 1), self._seq))
        reader, writer = await asyncio.open_connection(self._addr.host, self._addr.port)
        writer.write(b"".join(said))
        await reader.readexactly(self._answer_bytes)
        writer.close()
        await writer.wait_closed()


def service(policy: Policy) -> dict[str, Any]:
    return {"policies": Policies(policy), "dispatch_bytes": DISPATCH}


WAYS = {
    "resumes": (STATEFUL_SERVER, lambda n: 2 * n),
    "begins anew": (STATEFUL_SERVER, lambda n: 0),
    "lossy": (STATELESS_SERVER, lambda n: 0),
}
#: What handlers are told in the end.
HEARD = {"resumes": ["accept"], "begins anew": ["accept", "remote_reset", "accept"], "lossy": []}


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_before_there_is_a_worker(way: str) -> None:
    policy, connect_seq = WAYS[way]
    events = Events()
    async with pool(events, workers=0, **service(policy)) as (p, _):
        attacker = Attacker(p.messenger, connect_seq)
        for n in range(FEWER):
            await attacker.comes_and_goes(n)
        assert p.messenger.endpoint.counters.opened == FEWER
        assert p.nbytes < DISPATCH + ONE_READ
        assert p.items <= EVENTS + MESSAGES
        assert len(p.lanes) <= 1
        await p.worker(0)
        await p.settled()
    assert [name for name in events.seen if not name.isdigit()] == HEARD[way]


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_while_the_worker_is_stuck(way: str) -> None:
    policy, connect_seq = WAYS[way]
    async with pool(Events(), workers=1, **service(policy)) as (p, _):
        frames: list[bytes] = []
        send_to = p.front._link.send_to

        def counted(identity: bytes, frame: bytes) -> bool:
            frames.append(frame)
            return send_to(identity, frame)

        p.front._link.send_to = counted  # type: ignore[method-assign]
        with p.frozen(0):
            attacker = Attacker(p.messenger, connect_seq)
            for n in range(MANY if way == "resumes" else FEWER):
                await attacker.comes_and_goes(n)
            assert p.nbytes < DISPATCH + ONE_READ
            held = p.seat(0).held
            assert p.items <= held + EVENTS + MESSAGES
            assert len(frames) <= held
            assert len(p.lanes) <= held + 1
        await p.settled()


@on_uvloop
async def test_what_came_with_the_handshake_waits_like_the_rest() -> None:
    events = Events()
    async with pool(events, workers=0, **service(STATEFUL_SERVER)) as (p, _):
        attacker = Attacker(p.messenger, WAYS["resumes"][1])
        n = 0
        while not (p.lanes and p.session.paused):
            await attacker.comes_and_goes(n)
            n += 1
        before = p.nbytes
        await attacker.comes_and_goes(n)
        assert p.nbytes == before, "nothing of it is read"
        await p.worker(0)
        last = [str(n + 1)] * EACH
        await eventually_async(lambda: events.seen[-EACH:] == last)
        await p.settled()


class Stuck(Recorder):
    """Ends no message before `go`."""

    go: asyncio.Event

    async def dispatch(self, con: Connection, m: Message) -> None:  # type: ignore[override]
        await self.go.wait()


@pytest.mark.parametrize("way", ["resumes", "begins anew"])
@on_uvloop
async def test_without_workers(way: str) -> None:
    policy, connect_seq = WAYS[way]
    stuck = Stuck()
    stuck.go = asyncio.Event()
    async with serving(stuck, **service(policy)) as server:
        attacker = Attacker(server, connect_seq)
        for n in range(FEWER):
            await attacker.comes_and_goes(n)
        (session,) = server.endpoint.registry
        con: Any = session.connection
        assert len(con.lane.waiting) <= EVENTS + MESSAGES * (EACH + 1) // EACH
        stuck.go.set()
        await eventually_async(lambda: not con.lane.waiting)


def test_a_reset_takes_the_place_of_one_that_waits() -> None:
    accept, reset = EventItem("accept"), EventItem("remote_reset", (3, 4))
    begun, message = Again(accept, 2, 1, alone=False), bytes(100)
    waiting = [begun, accept, message, reset, accept, message]
    stays, goes, now = superseded(waiting, EventItem("remote_reset", (7,)))
    assert stays == [begun, accept]
    assert goes == [message, message, reset, accept]
    assert now == EventItem("remote_reset", (3, 4, 7)), "requests of both are lost"
    assert superseded([accept, message], reset) == ([accept], [message], reset)
