"""Sessions through two workers: order, events, pushes, the end; and the same without workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from mpmsgr import Message, Messenger, SessionReset, sync
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.wire.message import PRIO_HIGH, PRIO_LOW
from tests.processes.pool_serving import IO, WORKER, Serve
from tests.support import eventually, eventually_async

SYNC, ASYNC, PUSH = 0x9001, 0x9002, 0x9003
SUBSCRIBE, TELL, LATER, KICK, STORED = 0x9101, 0x9102, 0x9103, 0x9104, 0x9105

MODULES = {
    # Handlers that notice when another one of their session still runs.
    "order": """
        import asyncio
        import os
        from mpmsgr import handles

        class Busy:
            running = False
            count = 0

        def enter(con):
            if con.priv is None:
                con.priv = Busy()
            assert not con.priv.running, "two handlers of a session at once"
            con.priv.running = True
            con.priv.count += 1

        def leave(con, m):
            con.priv.running = False
            return [bytes(m.front), con.priv.count, os.getpid()]

        @handles(0x9001)
        def sync(con, m):
            enter(con)
            return leave(con, m)

        @handles(0x9002)
        async def later(con, m):
            enter(con)
            for _ in range(m.tid % 4):
                await asyncio.sleep(0)
            return leave(con, m)
    """,
    "posts": """
        import asyncio
        import os
        from mpmsgr import Message, handles

        stored = {}

        @handles(0x9101)
        def subscribe(con, m):
            stored[con.id] = con
            return [os.getpid(), con.id]

        @handles(0x9102)
        def tell(con, m):
            told = con.connection(int(m.front)).send_message(Message(0x9003, m.data))
            return [os.getpid(), told]

        @handles(0x9103)
        def later(con, m):
            loop, text = asyncio.get_running_loop(), m.data
            loop.call_later(0.01, lambda: con.send_message(Message(0x9003, text)))

        @handles(0x9104)
        def kick(con, m):
            con.connection(int(m.front)).mark_down()
            return con.is_connected

        @handles(0x9105)
        def tell_stored(con, m):
            return stored[int(m.front)].send_message(Message(0x9003, m.data))
    """,
    "events": """
        import asyncio
        import os
        from mpmsgr import Dispatcher

        class Events(Dispatcher):
            message_types = {0x9201}

            def note(self, con, *words):
                with open("events", "a") as file:
                    print(con.id & 0xffff, *words, file=file)

            async def dispatch(self, con, m):
                await asyncio.sleep(0)
                self.note(con, "message", m.front.decode())
                con.send_message(m.reply(m.front))

            async def handle_accept(self, con):
                await asyncio.sleep(0)
                self.note(con, "accept", con.peer_addr.nonce, con.peer_type)

            def handle_remote_reset(self, con):
                self.note(con, "remote_reset", con.last_reset.lost <= 1)  # an ack may be due

            async def handle_reset(self, con):
                await asyncio.sleep(0)
                self.note(con, "reset", con.is_connected)
    """,
}
SPECS = ("order", "posts", "events:Events")


@pytest.fixture(scope="module", params=[2, 0], ids=["two workers", "no workers"])
def server(request: pytest.FixtureRequest) -> Iterator[Serve]:
    with Serve(MODULES, *SPECS, workers=request.param) as server:
        yield server


def value(con: sync.SyncConnection, type_: int, front: object = b"", data: bytes = b"") -> Any:
    """The plain value a handler returned."""
    text = front if isinstance(front, bytes) else str(front).encode()
    return unpack(con.request(Message(type_, text, data=data), timeout=10))


def test_the_processes(server: Serve) -> None:
    workers = int(server.lines("ready on")[0].split("(")[1].split()[0])
    assert (len(server.pids(IO)), len(server.pids(WORKER))) == (1, workers)


def test_order_of_sessions_with_sync_and_async_handlers(server: Serve) -> None:
    async def session(number: int) -> None:
        async with Messenger(f"client.{number}") as messenger:
            con = messenger.get_connection(server.address)
            order: list[Any] = []

            async def ask(i: int) -> None:
                type_ = (SYNC, ASYNC)[(i * 7 + number) % 3 == 0]
                reply = await con.request(Message(type_, b"%d" % i), timeout=20)
                order.append(unpack(reply))

            await asyncio.gather(*(ask(i) for i in range(300)))
            assert [text for text, _, _ in order] == [b"%d" % i for i in range(300)]
            assert [count for _, count, _ in order] == list(range(1, 301))
            assert len({pid for *_, pid in order}) == 1, "a lane stays on its worker"

    async def main() -> None:
        await asyncio.gather(*(session(number) for number in range(10)))

    asyncio.run(main())


def test_order_is_per_priority(server: Serve) -> None:
    async def main() -> None:
        async with Messenger("client.?") as messenger:
            con = messenger.get_connection(server.address)
            # Queued before there is a session, so that priorities decide what goes first.
            low = [Message(SYNC, b"l%d" % i, priority=PRIO_LOW) for i in range(20)]
            high = [Message(SYNC, b"h%d" % i, priority=PRIO_HIGH) for i in range(20)]
            replies = await asyncio.gather(*(con.request(m, timeout=10) for m in low + high))
            counts = [unpack(reply)[1] for reply in replies]
            assert counts == [*range(21, 41), *range(1, 21)]
            assert [reply.priority for reply in replies] == [PRIO_LOW] * 20 + [PRIO_HIGH] * 20

    asyncio.run(main())


# events


def events_of(server: Serve, nonce: int) -> list[str]:
    """What the events dispatcher noted about the sessions of a client."""
    notes = server.written("events")
    ids = {note.split()[0] for note in notes if f"accept {nonce} " in note}
    return [note.split(" ", 1)[1].strip() for note in notes if note.split()[0] in ids]


def test_events_are_in_order_with_messages(server: Serve) -> None:
    async def main() -> int:
        async with Messenger("client.?") as messenger:
            nonce = messenger.addr.nonce
            con = messenger.get_connection(server.address)
            for text in (b"1", b"2"):
                con.send_message(Message(0x9201, text))
            await con.request(Message(0x9201, b"3"), timeout=10)
            assert isinstance(con, MessengerConnection)
            con.session.pipe.handle.abort()  # type: ignore[union-attr]
            await con.request(Message(0x9201, b"4"), timeout=10)
            con.mark_down()  # the server will learn of it when we come back
            again = messenger.get_connection(server.address)
            await again.request(Message(0x9201, b"5"), timeout=10)
            return nonce

    nonce = asyncio.run(main())
    expected = [
        f"accept {nonce} 8",
        *("message 1", "message 2", "message 3"),
        f"accept {nonce} 8",
        "message 4",
        "remote_reset True",
        f"accept {nonce} 8",
        "message 5",
        "reset False",
    ]
    eventually(lambda: events_of(server, nonce) == expected, 10, f"{events_of(server, nonce)}")


# pushes


def test_a_push_to_another_connection_by_id_from_another_worker(server: Serve) -> None:
    with (
        sync.connect(server.address, timeout=10) as one,
        sync.connect(server.address, timeout=10) as two,
    ):
        pushes = one.messages(PUSH)
        (here, id_), (there, _) = value(one, SUBSCRIBE), value(two, SUBSCRIBE)
        assert (here == there) is (not server.pids(WORKER)), "sessions spread over workers"
        assert value(two, TELL, id_, b"psst") == [there, True]
        assert bytes(next(pushes).front) == b"psst"
        assert value(one, TELL, id_, b"self") == [here, True]
        assert bytes(next(pushes).front) == b"self"


def test_a_push_later(server: Serve) -> None:
    with sync.connect(server.address, timeout=10) as con:
        pushes = con.messages(PUSH)
        con.send_message(Message(LATER, data=b"in a moment"))
        assert bytes(next(pushes).front) == b"in a moment"


def test_a_push_to_nobody(server: Serve) -> None:
    with sync.connect(server.address, timeout=10) as con:
        _, id_ = value(con, SUBSCRIBE)
        known_elsewhere = bool(server.pids(WORKER))
        assert value(con, TELL, id_ + 1000, b"x")[1] is known_elsewhere
        value(con, TELL, id_)


def test_a_stored_connection_until_its_session_is_over(server: Serve) -> None:
    with contextlib.ExitStack() as stack:
        cons = [stack.enter_context(sync.connect(server.address, timeout=10)) for _ in range(3)]
        places: dict[int, list[tuple[sync.SyncConnection, int]]] = {}
        for con in cons:
            pid, id_ = value(con, SUBSCRIBE)
            places.setdefault(pid, []).append((con, id_))
        (one, _), (two, id_), *_ = max(places.values(), key=len)
        pushes = two.messages(PUSH)
        assert value(one, STORED, id_, b"news") is True
        assert bytes(next(pushes).front) == b"news"
        asyncio.run_coroutine_threadsafe(two.connection.messenger.shutdown(), two._loop).result(10)
        eventually(lambda: value(one, STORED, id_) is False, 10, "the worker is told")


# the end


def test_mark_down_of_another_session(server: Serve) -> None:
    async def main() -> None:
        async with Messenger("client.?") as one, Messenger("client.?") as two:
            con, killer = one.get_connection(server.address), two.get_connection(server.address)
            assert isinstance(con, MessengerConnection)
            _, id_ = unpack(await con.request(Message(SUBSCRIBE), timeout=10))
            await killer.request(Message(KICK, b"%d" % id_), timeout=10)
            await eventually_async(lambda: con.last_reset, 10)
            assert isinstance(con.last_reset, SessionReset)
            _, new_id = unpack(await con.request(Message(SUBSCRIBE), timeout=10))
            assert new_id != id_, "it came back in a new session"

    asyncio.run(main())


def test_mark_down_of_the_own_session(server: Serve) -> None:
    async def main() -> None:
        async with Messenger("client.?") as messenger:
            con = messenger.get_connection(server.address)
            _, id_ = unpack(await con.request(Message(SUBSCRIBE), timeout=10))
            with pytest.raises(SessionReset):
                await con.request(Message(KICK, b"%d" % id_), timeout=10)
            await con.request(Message(SYNC, b"on"), timeout=10)

    asyncio.run(main())


def test_a_client_that_vanishes_leaves_nothing_behind(server: Serve) -> None:
    for _ in range(20):
        with sync.connect(server.address, timeout=10) as con:
            con.send_message(Message(ASYNC))
    with sync.connect(server.address, timeout=10) as con:
        assert value(con, SYNC, b"on")[0] == b"on"
