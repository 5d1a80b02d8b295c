"""Fast dispatch, authorizers and pushes of a served plugin: with two workers, and with none."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator
from typing import Any

import pytest

from mpmsgr import Authorizer, ConnectError, Dispatcher, Message, Messenger, sync
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_clients import Strays, session
from tests.processes.pool_serving import IO, WORKER, Serve
from tests.support import eventually

FAST, SLOW, BLOCK, TELL, WHO, PUSH = 0x9C01, 0x9C02, 0x9C03, 0x9C04, 0x9C05, 0x9C06
TROUBLE, DAWDLE = 0x9C07, 0x9C08
WAIT_S = 20.0

PULSE = """
    import os
    import time
    from mpmsgr import Dispatcher

    def note(*words):
        with open("pulse", "a") as file:
            print(*words, file=file)

    class Pulse(Dispatcher):
        message_types = {0x9C01, 0x9C07, 0x9C08}

        def __init__(self, greeting="pulse"):
            self.greeting = greeting

        def on_start(self):
            note("start", os.getpid())

        def on_stop(self):
            note("stop")

        def can_fast_dispatch_any(self):
            return True

        def handle_fast_accept(self, con):
            note("accept", con.id)

        def fast_preprocess(self, con, m):
            note("sees", con.id, hex(m.type), bytes(m.front).decode())

        def fast_dispatch(self, con, m):
            if m.type == 0x9C07:
                raise ValueError("irregular")
            if m.type == 0x9C08:
                until = time.perf_counter() + 0.02
                while time.perf_counter() < until:
                    pass
            con.send_message(m.reply(b"%s %d" % (self.greeting.encode(), os.getpid()), data=m.data))
"""
WORK = """
    import os
    import time
    from pathlib import Path
    from mpmsgr import Dispatcher, Message, handles

    class Events(Dispatcher):
        message_types = {0x9C02}

        def note(self, con, *words):
            with open("work", "a") as file:
                print(con.id, *words, file=file)

        def handle_accept(self, con):
            self.note(con, "accept")

        def handle_reset(self, con):
            self.note(con, "reset")

        def handle_remote_reset(self, con):
            self.note(con, "remote_reset")

        def dispatch(self, con, m):
            self.note(con, "message", bytes(m.front).decode())
            con.send_message(m.reply(m.front))
"""
POST = """
    import os
    import time
    from pathlib import Path
    from mpmsgr import Message, handles

    @handles(0x9C03)
    def block(con, m):
        while not Path("go").exists():
            time.sleep(0.005)
        return True

    @handles(0x9C04)
    async def tell(con, m):
        return await con.connection(int(m.front)).send(Message(0x9C06, m.data))

    @handles(0x9C05)
    def who(con, m):
        return [os.getpid(), con.id]
"""
MODULES = {"pulse": PULSE, "work": WORK, "post": POST}
SPECS = ("work:Events", "post")
IO_MODULE = ("--io-module", "pulse:Pulse")


def value(con: sync.SyncConnection, type_: int, front: object = b"", data: bytes = b"") -> Any:
    raw = front if isinstance(front, bytes) else str(front).encode()
    return unpack(con.request(Message(type_, raw, data=data), timeout=WAIT_S))


@pytest.fixture(scope="module", params=[2, 0], ids=["two workers", "no workers"])
def server(request: pytest.FixtureRequest) -> Iterator[Serve]:
    toml = '[options."pulse:Pulse"]\ngreeting = "beat"\n'
    with Serve(MODULES, *SPECS, workers=request.param, toml=toml, flags=IO_MODULE) as running:
        yield running


def test_it_runs_in_the_io_process(server: Serve) -> None:
    (io,) = server.pids(IO)
    assert server.written("pulse")[0] == f"start {io}"
    with sync.connect(server.address, timeout=10) as con:
        for size in (0, 2000, 300_000):
            reply = con.request(Message(FAST, data=bytes(size)), timeout=WAIT_S)
            assert (reply.front, len(reply.data)) == (b"beat %d" % io, size)
        pid, _ = value(con, WHO)
        assert (pid == io) is not bool(server.pids(WORKER))


def test_the_order_of_what_happens(server: Serve) -> None:
    id_ = asyncio.run(_talk(server))
    eventually(lambda: f"{id_} reset" in server.written("work"), WAIT_S)
    parts = [[f"{part}.{i}" for i in range(10)] for part in range(3)]
    fast = [line.split() for line in server.written("pulse") if f" {id_}" in line]
    assert fast[0][0] == "accept", "before every message"
    assert [words[0] for words in fast].count("accept") >= 3
    seen = [words[3] for words in fast if words[0] == "sees" and len(words) == 4]
    wanted = [front for part in parts for front in part]
    assert [front for front in seen if "." in front] == wanted, "in the order received"
    slow = [line.split()[1:] for line in server.written("work") if line.startswith(f"{id_} ")]
    assert slow[0] == ["accept"], "before every message that is not fast"
    assert slow[-1] == ["reset"]
    messages = [words[1] for words in slow if words[0] == "message"]
    assert messages == [front for part in parts for front in part[::2]]


async def _talk(server: Serve) -> int:
    """Every other message is a fast one; the socket breaks twice. Returns the connection's id."""
    async with session(server, Strays()) as con:
        _, id_ = unpack(await con.request(Message(WHO), timeout=WAIT_S))
        for part in range(3):
            for i in range(8):
                con.send_message(Message((SLOW, FAST)[i % 2], b"%d.%d" % (part, i)))
            await con.request(Message(SLOW, b"%d.8" % part), timeout=WAIT_S)
            await con.request(Message(FAST, b"%d.9" % part), timeout=WAIT_S)
            assert con.session.pipe is not None
            con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        await con.request(Message(WHO), timeout=WAIT_S)
        return int(id_)


def test_an_exception_is_an_error_reply_and_a_traceback(server: Serve) -> None:
    with sync.connect(server.address, timeout=10) as con:
        with pytest.raises(Exception, match="handler failed: ValueError: irregular"):
            con.request(Message(TROUBLE), timeout=WAIT_S)
        assert con.request(Message(FAST), timeout=WAIT_S).front.startswith(b"beat")
    assert server.lines("io", "handler of type 0x9c07 failed")
    assert "ValueError: irregular" in server.log


def test_who_exceeds_the_budget_is_named(server: Serve) -> None:
    with sync.connect(server.address, timeout=10) as con:
        con.request(Message(DAWDLE), timeout=WAIT_S)
    assert server.lines("io", "Pulse.fast_dispatch took", "its budget is 1 ms")


def test_pushes_from_any_worker_tell_whether_they_went(server: Serve) -> None:
    with (
        sync.connect(server.address, timeout=10) as one,
        sync.connect(server.address, timeout=10) as two,
    ):
        here, id_one = value(one, WHO)
        there, id_two = value(two, WHO)
        assert (here != there) is bool(server.pids(WORKER))
        pushes = two.messages(PUSH)
        assert value(one, TELL, id_two, b"news") is True
        assert bytes(next(pushes).front) == b"news"
        assert value(one, TELL, id_one + 1000) is False
    with sync.connect(server.address, timeout=10) as three:
        assert eventually(lambda: value(three, TELL, id_two) is False, 10)


# what needs a server of its own


def test_it_goes_on_while_every_worker_is_busy() -> None:
    with Serve(MODULES, *SPECS, workers=2, flags=IO_MODULE) as server:
        asyncio.run(_while_busy(server))


async def _while_busy(server: Serve) -> None:
    async with session(server) as one, session(server) as two, session(server) as three:
        blocked = [
            asyncio.ensure_future(con.request(Message(BLOCK), timeout=WAIT_S))
            for con in (one, two, three)
        ]
        behind = asyncio.ensure_future(three.request(Message(WHO), timeout=WAIT_S))
        for con in (one, two, three):
            reply = await con.request(Message(FAST), timeout=WAIT_S)
            assert bytes(reply.front).startswith(b"pulse ")
        assert not any(task.done() for task in (*blocked, behind))
        (server.directory / "go").touch()
        await asyncio.gather(*blocked, behind)


GUARD = """
    import hmac
    from mpmsgr import Dispatcher, Verification

    class Guard(Dispatcher):
        def verify_authorizer(self, peer_addr, peer_type, protocol, data, challenge):
            signed = hmac.digest(b"key", challenge, "sha256")
            if protocol == 7 and hmac.compare_digest(data, signed):
                return Verification(bool(challenge), b"welcome")
            return Verification(False, b"who is it?", challenge=True)
"""


class Badge(Dispatcher):
    """A client that signs challenges with *key*."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer:
        return Authorizer(7, hmac.digest(self.key, challenge, "sha256"))


def test_only_who_is_verified_gets_in() -> None:
    modules = {**MODULES, "guard": GUARD}
    with Serve(modules, *SPECS, workers=1, flags=("--io-module", "guard:Guard")) as server:
        asyncio.run(_guarded(server))


async def _guarded(server: Serve) -> None:
    async with Messenger("client.?") as messenger:
        messenger.add_dispatcher_tail(Badge(b"key"))
        con = _connection(messenger, server)
        assert (await con.request(Message(SLOW, b"x"), timeout=WAIT_S)).front == b"x"
    for dispatchers in ([Badge(b"another key")], []):
        async with Messenger("client.?", drain_s=0.1) as messenger:
            for dispatcher in dispatchers:
                messenger.add_dispatcher_tail(dispatcher)
            con = _connection(messenger, server)
            with pytest.raises(ConnectError, match=r"BADAUTHORIZER|CHALLENGE_AUTHORIZER"):
                await con.wait_connected(0.5)


def _connection(messenger: Messenger, server: Serve) -> MessengerConnection:
    con = messenger.get_connection(server.address)
    assert isinstance(con, MessengerConnection)
    return con


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("post", "post: has no callback for the I/O process"),
        ("gone", "gone: there is no module 'gone' here"),
        ("pulse:Gone", "module pulse has no 'Gone'"),
    ],
)
def test_an_io_module_that_is_none_ends_the_start(workers: int, module: str, said: str) -> None:
    flags = ("--io-module", module)
    with Serve(MODULES, *SPECS, workers=workers, flags=flags, wait=False) as server:
        assert server.wait() != 0
        assert said in server.log


def test_two_modules_that_take_a_type_end_the_start() -> None:
    modules = {**MODULES, "rival": POST}
    with Serve(modules, "post", "rival", workers=1, wait=False) as server:
        assert server.wait() != 0
        assert "rival: takes message type 0x9c03, so does post" in server.log
