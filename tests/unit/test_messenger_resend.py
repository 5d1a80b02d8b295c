"""Messages and requests that survive the loss of their session, over real sockets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mpmsgr import Connection, Message, Messenger, Policies, RequestTimeout, SessionReset
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.session.policy import LOSSLESS_CLIENT, STATEFUL_SERVER
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

RESEND = Policies(replace(LOSSLESS_CLIENT, on_remote_reset="resend"))
DEDUPING = Policies(replace(STATEFUL_SERVER, dedupe_window=100))
STOP = b"stop"


class Forgetful(Recorder):
    """Ends the session, unacknowledged, when it is first told to; echoes."""

    def __init__(self) -> None:
        super().__init__(ECHO, SILENT)
        self.forgot = 0

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        first = not any(seen.message_id == m.message_id for seen in self.messages)
        super().dispatch(con, m)
        if m.front == STOP and first:
            self.forgot += 1
            con.mark_down()
        return None

    @property
    def seen(self) -> list[tuple[bytes, bool]]:
        """Fronts and marks."""
        return [(bytes(m.front), m.resent) for m in self.messages]


async def begin(messenger: Messenger, server: Messenger) -> MessengerConnection:
    return await connected(messenger, place(server))


@both_loops
async def test_what_was_not_acknowledged_comes_again_in_order() -> None:
    there, here = Forgetful(), Recorder()
    async with serving(there) as server, client(policies=RESEND) as messenger:
        messenger.add_dispatcher_tail(here)
        con = await begin(messenger, server)
        for front in (b"1", STOP, b"2", b"3"):
            con.send_message(Message(SILENT, front))
        await eventually_async(lambda: (b"3", True) in there.seen)
        again = [(b"1", True), (STOP, True), (b"2", True), (b"3", True)]
        # What came in one piece with the one that ended the session was taken as well.
        assert there.seen[-4:] == again
        assert {m.message_id for m in there.messages[:-4]} <= {
            m.message_id for m in there.messages[-4:]
        }
        assert here.events == ["connect", "remote_reset", "connect"]
        assert con.last_reset is not None
        assert (con.last_reset.lost, con.last_reset.tids) == (0, ())
        await eventually_async(lambda: not con.session.outbox.nbytes)


@both_loops
async def test_a_request_stays_pending_until_its_repeat_is_answered() -> None:
    there = Forgetful()
    async with serving(there) as server, client(policies=RESEND) as messenger:
        con = await begin(messenger, server)
        reply = await con.request(Message(ECHO, STOP), timeout=10)
        assert reply.front == STOP
        assert there.seen == [(STOP, False), (STOP, True)]
        ids = [m.message_id for m in there.messages]
        assert ids[0] == ids[1] == (str(messenger.name), messenger.addr.nonce, ids[0][2])


@both_loops
async def test_a_request_that_was_acknowledged_is_lost() -> None:
    there = Forgetful()
    async with serving(there) as server, client(policies=RESEND) as messenger:
        con = await begin(messenger, server)
        acked = asyncio.ensure_future(con.request(Message(SILENT, b"1"), timeout=10))
        await eventually_async(lambda: there.messages and not con.session.outbox.nbytes)
        kept = asyncio.ensure_future(con.request(Message(ECHO, STOP), timeout=10))
        with pytest.raises(SessionReset) as raised:
            await acked
        assert raised.value.lost == 0
        assert (await kept).front == STOP


@both_loops
async def test_a_receiver_drops_repeats_and_acknowledges_them() -> None:
    there = Forgetful()
    async with (
        serving(there, policies=DEDUPING) as server,
        client(policies=RESEND) as messenger,
    ):
        con = await begin(messenger, server)
        con.send_message(Message(SILENT, STOP))
        await eventually_async(lambda: there.forgot)
        await eventually_async(lambda: not con.session.outbox.nbytes)
        await con.request(Message(ECHO, b"on"), timeout=10)
        assert there.seen == [(STOP, False), (b"on", False)]
        assert server.statistics()["duplicates"] == 1


@both_loops
async def test_a_repeated_request_is_not_answered_twice() -> None:
    """Its reply was lost with the session: whoever wants it has to ask again."""
    there = Forgetful()
    async with (
        serving(there, policies=DEDUPING) as server,
        client(policies=RESEND) as messenger,
    ):
        con = await begin(messenger, server)
        with pytest.raises(RequestTimeout):
            await con.request(Message(ECHO, STOP), timeout=0.3)
        assert (await con.request(Message(ECHO, b"again"), timeout=10)).front == b"again"
        assert there.seen == [(STOP, False), (b"again", False)]


@both_loops
async def test_a_server_that_restarts() -> None:
    there = Recorder()
    async with serving(there) as server:
        where = place(server)
        async with client(policies=RESEND) as messenger:
            con = await connected(messenger, where)
            await con.request(Message(ECHO, b"0"), timeout=10)
            await server.stop_accepting()
            session = server_side(server).session
            assert session.pipe is not None
            session.pipe.handle.pause_reading()  # type: ignore[attr-defined]
            waiting = [
                asyncio.ensure_future(con.request(Message(ECHO, b"%d" % i), timeout=10))
                for i in (1, 2)
            ]
            await eventually_async(lambda: len(con.session.outbox.sent) == 2)
            server.endpoint.mark_down(session)
            server.driver.run()
            await eventually_async(lambda: not con.is_connected)
            waiting.append(asyncio.ensure_future(con.request(Message(ECHO, b"3"), timeout=10)))
            again = Recorder()
            async with serving(again, bind=where) as restarted:
                replies = await asyncio.gather(*waiting)
                assert [reply.front for reply in replies] == [b"1", b"2", b"3"]
                marks = [(m.front, m.resent) for m in again.messages]
                assert marks == [(b"1", True), (b"2", True), (b"3", False)]
                assert con.peer_addr == restarted.addr
                assert len(messenger.endpoint.registry) == 1


@both_loops
async def test_a_server_resends_its_pushes_to_a_client_that_starts_over() -> None:
    there = Recorder()
    policies = Policies(replace(STATEFUL_SERVER, on_remote_reset="resend"))
    async with serving(there, policies=policies) as server, client() as messenger:
        con = await begin(messenger, server)
        await con.request(Message(ECHO), timeout=10)
        at_server = server_side(server)
        await eventually_async(lambda: not at_server.session.outbox.nbytes)
        assert con.session.pipe is not None
        con.session.pipe.handle.pause_reading()  # type: ignore[attr-defined]
        for number in range(3):
            at_server.send_message(Message(PUSH, b"%d" % number))
        await eventually_async(lambda: len(at_server.session.outbox.sent) == 3)
        con.mark_down()
        again = messenger.get_connection(place(server))
        pushes = again.messages(PUSH)
        got = [await anext(pushes) for _ in range(3)]
        assert [(m.front, m.resent) for m in got] == [(b"%d" % i, True) for i in range(3)]
        assert there.events == ["accept", "remote_reset", "accept"]


@both_loops
async def test_what_was_sent_meanwhile_comes_behind() -> None:
    there = Forgetful()
    async with serving(there) as server, client(policies=RESEND) as messenger:
        con = await begin(messenger, server)
        sent: list[Any] = [b"%d" % i if i != 20 else STOP for i in range(100)]
        for front in sent:
            con.send_message(Message(SILENT, front))
            await asyncio.sleep(0)
        await eventually_async(lambda: there.messages and there.messages[-1].front == sent[-1])
        await eventually_async(lambda: not con.session.outbox.nbytes)
        first_time = list(dict.fromkeys(front for front, _ in there.seen))
        assert first_time == sent, "in order, and nothing is missing"
        repeats = [front for front, mark in there.seen if mark]
        at = sent.index(repeats[0])
        assert repeats == sent[at : at + len(repeats)]
        unmarked = [front for front, mark in there.seen if not mark]
        assert len(unmarked) == len(set(unmarked)), "what comes twice is marked"
