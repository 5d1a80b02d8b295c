"""A peer that does not keep up, over real sockets: who waits, who is told, who is woken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mpmsgr import (
    Connection,
    Dispatcher,
    Message,
    Messenger,
    Policies,
    RequestTimeout,
    SessionReset,
)
from mpmsgr.errors import OutboxFull
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.session.policy import LOSSLESS_CLIENT, LOSSY_CLIENT, STATEFUL_SERVER, STATELESS_SERVER
from mpmsgr.session.session import Session
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

LIMIT = 10_000
WAIT_S = 10.0


class Outboxes:
    """Both ends of a session: the client's connection and the server's; what the server saw."""

    def __init__(self, con: MessengerConnection, server: Messenger, seen: Any) -> None:
        self.con, self.server, self.seen = con, server, seen

    @property
    def at_server(self) -> MessengerConnection:
        return server_side(self.server)


@asynccontextmanager
async def limited(seen: Dispatcher | None = None, **changes: Any) -> AsyncIterator[Outboxes]:
    """A server that keeps at most LIMIT bytes for its client."""
    seen = seen or Recorder()
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=LIMIT, **changes))
    async with serving(seen, policies=policies) as server, client() as messenger:
        con = await connected(messenger, place(server))
        await eventually_async(lambda: len(server.endpoint.registry) == 1)
        yield Outboxes(con, server, seen)


@asynccontextmanager
async def limited_client(**changes: Any) -> AsyncIterator[Outboxes]:
    """A client that keeps at most LIMIT bytes for its server."""
    seen = Recorder()
    policies = Policies(replace(LOSSLESS_CLIENT, outbox_bytes=LIMIT, **changes))
    async with serving(seen) as server, client(policies=policies) as messenger:
        con = await connected(messenger, place(server))
        await eventually_async(lambda: len(server.endpoint.registry) == 1)
        yield Outboxes(con, server, seen)


def handle(session: Session) -> PipeTransport:
    assert session.pipe is not None
    assert isinstance(session.pipe.handle, PipeTransport)
    return session.pipe.handle


def stop_reading(con: MessengerConnection) -> None:
    """The peer of *con*'s peer: it reads nothing, so it acknowledges nothing."""
    handle(con.session).pause_reading()


def read_again(con: MessengerConnection) -> None:
    handle(con.session).resume_reading()


def cut(con: MessengerConnection) -> None:
    handle(con.session).abort()


def push(number: int, size: int = 1000) -> Message:
    return Message(PUSH, b"%d" % number, data=bytes(size))


def numbers(messages: list[Message]) -> list[int]:
    return [int(m.front) for m in messages]


async def waits(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """*work*, begun, which does not end by itself."""
    future = asyncio.ensure_future(work)
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not future.done()
    return future


def fill(con: Connection) -> None:
    """Send pushes that nobody reads. Raises OutboxFull."""
    for number in range(1000):
        con.send_message(push(number))


async def send_all(con: Connection, count: int) -> None:
    for number in range(count):
        assert await con.send(push(number))


# pushes


@both_loops
async def test_a_sender_waits_for_its_reader() -> None:
    async with limited() as both:
        pushes = both.con.messages(PUSH)
        stop_reading(both.con)
        sender = await waits(send_all(both.at_server, 50))
        assert both.at_server.session.outbox.nbytes <= LIMIT
        read_again(both.con)
        got = [await anext(pushes) for _ in range(50)]
        assert numbers(got) == list(range(50))
        await sender


@both_loops
async def test_send_message_never_waits() -> None:
    async with limited() as both:
        stop_reading(both.con)
        con = both.at_server
        with pytest.raises(OutboxFull) as raised:
            fill(con)
        error = raised.value
        assert (error.address, error.limit) == (con.peer_addr, LIMIT)
        assert LIMIT - 1100 < error.nbytes <= LIMIT
        assert str(error) == f"{error.nbytes} bytes wait for {con.peer_addr}, at most 10000 may"
        read_again(both.con)
        await eventually_async(lambda: not con.session.full)
        assert con.send_message(push(0))


@both_loops
async def test_send_fails_where_the_policy_says_so() -> None:
    async with limited(outbox_full="fail") as both:
        stop_reading(both.con)
        with pytest.raises(OutboxFull):
            await send_all(both.at_server, 50)


@both_loops
async def test_the_oldest_pushes_are_dropped() -> None:
    async with limited(outbox_full="drop_oldest") as both:
        pushes = both.con.messages(PUSH)
        stop_reading(both.con)
        con = both.at_server
        for number in range(50):
            assert con.send_message(push(number))
        assert con.session.outbox.nbytes <= LIMIT
        dropped = both.server.statistics()["pushes_dropped"]
        read_again(both.con)
        got = numbers([await anext(pushes) for _ in range(50 - dropped)])
        assert got == list(range(dropped, 50))
        assert dropped == 41


@both_loops
async def test_a_push_that_goes_nowhere_else_may_go() -> None:
    async with limited(outbox_full="drop_oldest") as both:
        stop_reading(both.con)
        con = both.at_server
        con.send_message(Message(SILENT, bytes(2 * LIMIT), tid=1))  # passes: it has a tid
        assert con.send_message(push(1)), "dropped, but the session is not over"
        assert both.server.statistics()["pushes_dropped"] == 1


@both_loops
async def test_one_message_to_many_is_a_push_to_each() -> None:
    async with limited() as both, client() as other:
        await connected(other, place(both.server))
        await eventually_async(lambda: len(both.server.endpoint.registry) == 2)
        stop_reading(both.con)
        cons = [both.server.connection_of(s) for s in both.server.endpoint.registry]
        refused = []
        for number in range(30):
            m = push(number)
            for con in cons:
                try:
                    con.send_message(m)
                except OutboxFull:
                    refused.append(con)
            await eventually_async(lambda: not cons[1].session.outbox.nbytes)
        assert set(refused) == {cons[0]}
        assert cons[0].session.outbox.nbytes <= LIMIT


# requests of the full session


@both_loops
async def test_requests_of_a_full_session_wait() -> None:
    async with limited() as both:
        both.con.messages(PUSH)
        stop_reading(both.con)
        with pytest.raises(OutboxFull):
            fill(both.at_server)
        requests = [
            asyncio.ensure_future(both.con.request(Message(ECHO, b"%d" % i), timeout=WAIT_S))
            for i in range(20)
        ]
        await eventually_async(lambda: both.at_server.session.in_seq == 20)
        assert both.seen.messages == []
        read_again(both.con)
        replies = await asyncio.gather(*requests)
        assert numbers(replies) == numbers(both.seen.messages) == list(range(20))


class Grows(Recorder):
    """Replies with more than it was asked, at once or a little later."""

    def __init__(self, later: bool) -> None:
        super().__init__(ECHO)
        self.later = later

    def dispatch(self, con: Connection, m: Message) -> Any:
        return self._reply_later(con, m) if self.later else self._reply(con, m)

    def _reply(self, con: Connection, m: Message) -> None:
        self.messages.append(m)
        con.send_message(m.reply(m.front, data=bytes(3000)))

    async def _reply_later(self, con: Connection, m: Message) -> None:
        await asyncio.sleep(0)
        self._reply(con, m)


@pytest.mark.parametrize("later", [False, True])
@both_loops
async def test_one_batch_of_requests_fills_it_by_its_replies(later: bool) -> None:
    async with limited(Grows(later)) as both:
        stop_reading(both.con)
        requests = [
            asyncio.ensure_future(both.con.request(Message(ECHO, b"%d" % i), timeout=WAIT_S))
            for i in range(24)
        ]
        await eventually_async(lambda: both.at_server.session.in_seq == 24)
        await eventually_async(lambda: both.at_server.session.full)
        assert len(both.seen.messages) == 4, "the fourth reply fills it"
        peak = 0

        def watch() -> bool:
            nonlocal peak
            peak = max(peak, both.at_server.session.outbox.nbytes)
            return all(request.done() for request in requests)

        read_again(both.con)
        await eventually_async(watch)
        assert numbers([request.result() for request in requests]) == list(range(24))
        assert numbers(both.seen.messages) == list(range(24))
        assert peak < LIMIT + 3100


@both_loops
async def test_what_is_held_of_a_session_that_is_no_more_is_not_handled() -> None:
    async with limited() as both:
        stop_reading(both.con)
        con = both.at_server
        con.send_message(Message(SILENT, bytes(2 * LIMIT), tid=1))
        both.con.send_message(Message(ECHO, b"0"))
        await eventually_async(lambda: con.session.in_seq == 1)
        both.con.mark_down()
        again = await connected(both.con.messenger, place(both.server))
        assert (await again.request(Message(ECHO, b"1"), timeout=WAIT_S)).front == b"1"
        assert numbers(both.seen.messages) == [1]
        assert both.seen.events == ["accept", "remote_reset", "accept"]
        assert both.at_server is con


class Brief(Recorder):
    """Replies with the front of what it was asked."""

    def dispatch(self, con: Connection, m: Message) -> None:
        self.messages.append(m)
        con.send_message(m.reply(m.front))


@both_loops
async def test_a_flood_of_requests_is_refused_and_loses_nothing() -> None:
    async with limited(Brief(ECHO)) as both:
        stop_reading(both.con)
        con = both.at_server
        con.send_message(Message(SILENT, bytes(2 * LIMIT), tid=1))
        requests = []
        for i in range(100):
            m = Message(ECHO, b"%d" % i, data=bytes(10_000))
            requests.append(asyncio.ensure_future(both.con.request(m, timeout=WAIT_S)))
            await asyncio.sleep(0)
        await eventually_async(lambda: both.server.statistics()["overruns"])
        assert con.held_bytes <= 2 * con.session.held_limit
        assert con.session.in_seq < 100
        read_again(both.con)
        replies = await asyncio.gather(*requests)
        assert numbers(replies) == numbers(both.seen.messages) == list(range(100))
        assert both.seen.events.count("remote_reset") == 0
        assert con.held_bytes == 0


# our own requests


@both_loops
async def test_our_requests_wait_for_room() -> None:
    async with limited_client() as both:
        stop_reading(both.at_server)
        requests = [
            asyncio.ensure_future(
                both.con.request(Message(ECHO, b"%d" % i, data=bytes(1000)), timeout=WAIT_S)
            )
            for i in range(100)
        ]
        await waits(asyncio.gather(*requests))
        assert both.con.session.outbox.nbytes < LIMIT + 1100
        read_again(both.at_server)
        assert numbers(await asyncio.gather(*requests)) == list(range(100))


@both_loops
async def test_a_request_that_waits_for_room_in_vain() -> None:
    async with limited_client() as both:
        stop_reading(both.at_server)
        both.con.send_message(Message(SILENT, bytes(2 * LIMIT), tid=1))
        for _ in range(3):
            with pytest.raises(RequestTimeout):
                await both.con.request(Message(ECHO), timeout=0.02)
        assert both.con.session.outbox.queued + len(both.con.session.outbox.sent) == 1
        read_again(both.at_server)
        await both.con.request(Message(ECHO), timeout=WAIT_S)
        assert [m.type for m in both.seen.messages] == [SILENT, ECHO]


@both_loops
async def test_a_request_that_was_not_sent_is_not_lost_with_the_session() -> None:
    async with limited_client() as both:
        stop_reading(both.at_server)
        sent = asyncio.ensure_future(both.con.request(Message(SILENT, bytes(2 * LIMIT), tid=1)))
        await asyncio.sleep(0)
        request = await waits(both.con.request(Message(ECHO, b"5"), timeout=WAIT_S))
        both.at_server.mark_down()
        with pytest.raises(SessionReset):
            await sent
        assert (await request).front == b"5"
        assert [m.type for m in both.seen.messages] == [ECHO]


# nobody waits for ever

Ending = Callable[[Outboxes], Awaitable[Any]]


async def peer_closes(both: Outboxes) -> None:
    await both.con.messenger.shutdown()


async def we_mark_down(both: Outboxes) -> None:
    both.at_server.mark_down()


async def we_shut_down(both: Outboxes) -> None:
    assert await both.server.shutdown(drain_s=0.05) >= 9


@pytest.mark.parametrize("ending", [peer_closes, we_mark_down, we_shut_down])
@both_loops
async def test_a_waiting_sender_is_told_that_the_session_is_over(ending: Ending) -> None:
    async with limited() as both:
        if ending is not peer_closes:
            stop_reading(both.con)
            con = both.at_server
        else:
            con = both.at_server
            con.send_message(Message(SILENT, bytes(2 * LIMIT), tid=1))
            stop_reading(both.con)
        sender = await waits(send_until_over(con))
        if ending is peer_closes:
            read_again(both.con)
        await ending(both)
        assert await asyncio.wait_for(sender, WAIT_S) is False
        assert con.session.outbox.nbytes == 0


async def send_until_over(con: Connection) -> bool:
    """Send pushes until one is not taken."""
    number = 0
    while await con.send(push(number)):
        number += 1
    return False


@both_loops
async def test_a_waiting_sender_goes_on_after_a_remote_reset() -> None:
    async with limited() as both:
        stop_reading(both.con)
        con = both.at_server
        sender = await waits(send_all(con, 15))
        both.con.mark_down()
        again = await connected(both.con.messenger, place(both.server))
        pushes = again.messages(PUSH)
        await asyncio.wait_for(sender, WAIT_S)
        assert con.last_reset is not None
        assert int((await anext(pushes)).front) == con.last_reset.lost == 9


@both_loops
async def test_a_waiting_sender_goes_on_after_a_reconnect() -> None:
    async with limited() as both:
        pushes = both.con.messages(PUSH)
        stop_reading(both.con)
        sender = await waits(send_all(both.at_server, 50))
        cut(both.con)
        got = [await anext(pushes) for _ in range(50)]
        assert numbers(got) == list(range(50))
        await sender


@both_loops
async def test_a_cancelled_sender_leaves_nothing_behind() -> None:
    async with limited() as both:
        stop_reading(both.con)
        con = both.at_server
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await send_all(con, 50)
        other = await waits(send_all(con, 1))
        read_again(both.con)
        await asyncio.wait_for(other, WAIT_S)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(LOSSY_CLIENT, STATELESS_SERVER), (LOSSLESS_CLIENT, STATEFUL_SERVER)]
)
@both_loops
async def test_a_sender_outpaces_the_socket_only(ours: Any, theirs: Any) -> None:
    seen = Recorder(PUSH)
    policies = Policies(replace(ours, outbox_bytes=LIMIT))
    async with (
        serving(seen, policies=Policies(theirs)) as server,
        client(policies=policies) as messenger,
    ):
        con = await connected(messenger, place(server))
        await asyncio.wait_for(send_all(con, 60), WAIT_S)
        await eventually_async(lambda: len(seen.messages) == 60)
        assert numbers(seen.messages) == list(range(60))


@both_loops
async def test_both_sides_full_of_requests_get_on() -> None:
    """Each side's acks are behind its requests."""

    class Peer(Recorder):
        def dispatch(self, con: Connection, m: Message) -> None:
            self.messages.append(m)
            con.send_message(m.reply(m.front, data=bytes(2000)))

    ways = {"outbox_bytes": LIMIT}
    async with (
        serving(Peer(ECHO), policies=Policies(replace(STATEFUL_SERVER, **ways))) as server,  # type: ignore[arg-type]
        client(policies=Policies(replace(LOSSLESS_CLIENT, **ways))) as messenger,  # type: ignore[arg-type]
    ):
        messenger.add_dispatcher_tail(Peer(ECHO))
        con = await connected(messenger, place(server))
        await eventually_async(lambda: len(server.endpoint.registry) == 1)
        replies = await asyncio.gather(
            *(
                one.request(Message(ECHO, b"%d" % i, data=bytes(1000)), timeout=WAIT_S)
                for i in range(40)
                for one in (con, server_side(server))
            )
        )
        assert numbers(replies) == [i for i in range(40) for _ in (0, 1)]
        assert messenger.statistics()["faults"] == server.statistics()["faults"] == 0
