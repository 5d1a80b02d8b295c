"""What the I/O process tells of itself: rows of sessions, answers in packets that fit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.admin.inspect import (
    Inspector,
    kick,
    messenger_counters,
    policy_name,
    session_rows,
)
from mpmsgr.control import ControlChannel
from mpmsgr.session.policy import STATEFUL_SERVER, Policy
from tests.support import eventually_async
from tests.unit.messenger_peers import ECHO, both_loops, client, connected, place, serving


class Asker:
    """The supervisor's end: asks, collects answers."""

    def __init__(self) -> None:
        self.channel, theirs = ControlChannel.pair()
        self.other = ControlChannel(theirs)
        self.inspector = Inspector(self.other)
        self.packets: list[dict[str, Any]] = []

    def ask(self, id_: int, what: str, **args: Any) -> None:
        self.inspector.ask({"op": "query", "id": id_, "what": what, "args": args})

    async def answer(self, id_: int) -> list[dict[str, Any]]:
        def last() -> bool:
            self.packets += self.channel.receive()
            return any(p["id"] == id_ and not p["more"] for p in self.packets)

        await eventually_async(last)
        return [p for p in self.packets if p["id"] == id_]

    async def value(self, what: str, **args: Any) -> Any:
        self.ask(1, what, **args)
        (packet,) = await self.answer(1)
        self.packets.clear()
        return packet["value"]


@asynccontextmanager
async def asking() -> AsyncIterator[Asker]:
    asker = Asker()
    try:
        yield asker
    finally:
        asker.inspector.close()
        asker.channel.close()
        asker.other.close()


# answers


@both_loops
async def test_a_long_list_comes_in_packets_that_fit() -> None:
    rows = [{"n": i, "text": "x" * 500} for i in range(5000)]  # more than the socket holds
    async with asking() as asker:
        asker.inspector.register("rows", lambda args: iter(rows))
        asker.ask(7, "rows")
        await eventually_async(lambda: asker.other.has_backlog, what="nobody has read yet")
        packets = await asker.answer(7)
    assert [row for packet in packets for row in packet["value"]] == rows
    assert len(packets) > 10


@both_loops
async def test_questions_are_answered_in_their_order() -> None:
    async with asking() as asker:
        asker.inspector.register("rows", lambda args: [{"x": "x" * 1000}] * args["count"])
        asker.ask(1, "rows", count=500)
        asker.ask(2, "rows", count=1)
        await asker.answer(2)
        assert [p["id"] for p in asker.packets] == [1] * (len(asker.packets) - 1) + [2]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (LookupError("there is none"), "unknown", "there is none"),
        (ValueError("must be 1"), "unknown", "must be 1"),
        (RuntimeError("a bug"), "failed", "RuntimeError: a bug"),
    ],
)
def test_an_error_is_an_answer(error: Exception, kind: str, text: str) -> None:
    async def test() -> None:
        def fail(args: Any) -> Iterator[dict[str, Any]]:
            raise error
            yield {}

        async with asking() as asker:
            asker.inspector.register("rows", fail)
            asker.ask(3, "rows")
            (packet,) = await asker.answer(3)
            assert (packet["kind"], packet["error"]) == (kind, text)

    asyncio.run(test())


@both_loops
async def test_what_nobody_knows_is_unavailable() -> None:
    async with asking() as asker:
        asker.ask(3, "lanes")
        (packet,) = await asker.answer(3)
        assert (packet["kind"], packet["error"]) == ("unavailable", "this server keeps no lanes")


@both_loops
async def test_a_value_that_fits_no_packet_is_an_error() -> None:
    async with asking() as asker:
        asker.inspector.register("huge", lambda args: {"x": "x" * 100_000})
        asker.ask(3, "huge")
        (packet,) = await asker.answer(3)
        assert packet["kind"] == "failed"
        assert await asker.value("perf") == {}, "and the next one is answered"


# sessions


@both_loops
async def test_rows_of_sessions() -> None:
    async with asking() as asker, serving() as server, client() as messenger:
        con = await connected(messenger, place(server))
        for _ in range(3):
            await con.request(Message(ECHO, b"x"), timeout=5)
        asker.inspector.attach(server)
        (row,) = await asker.value("sessions", tcp=True)
        assert (row["peer_type"], row["state"], row["policy"]) == (
            "client",
            "open",
            "stateful_server",
        )
        assert (row["in_seq"], row["out_seq"], row["queued"]) == (3, 3, 0)
        assert 0 <= row["silent_s"] <= row["age_s"]
        assert row["tcp"]["received_bytes"] > 0
        perf = await asker.value("perf")
        assert perf["messenger"]["sessions"] == {"open": 1}
        assert perf["messenger"]["accepted_total"] == 1


@both_loops
async def test_sessions_filtered_sorted_and_cut() -> None:
    async with serving() as server, client() as one, client() as other:
        busy = await connected(one, place(server))
        await busy.request(Message(ECHO, b"x"), timeout=5)
        await connected(other, place(server))
        by_traffic = list(session_rows(server, {"sort": "traffic"}))
        assert [row["in_seq"] for row in by_traffic] == [1, 0]
        (first,) = session_rows(server, {"sort": "traffic", "limit": 1})
        assert first["id"] == by_traffic[0]["id"]
        assert len(list(session_rows(server, {"limit": 1}))) == 1
        assert len(list(session_rows(server, {"state": "open"}))) == 2
        assert list(session_rows(server, {"state": "standby"})) == []
        assert list(session_rows(server, {"peer_type": "osd"})) == []
        with pytest.raises(ValueError, match="sort must be one of outbox, traffic"):
            session_rows(server, {"sort": "colour"})


@both_loops
async def test_a_kicked_session_is_told() -> None:
    async with serving() as server, client() as messenger:
        con = await connected(messenger, place(server))
        (row,) = session_rows(server, {})
        done = kick(server, {"id": row["id"]})
        assert done == {"id": row["id"], "peer": row["peer"], "dropped": 0}
        assert list(session_rows(server, {})) == []
        await eventually_async(lambda: con.last_reset is not None, what="CLOSE reached the peer")
        with pytest.raises(LookupError, match="there is no session"):
            kick(server, {"id": row["id"]})


def test_counters_of_a_messenger_that_did_nothing() -> None:
    async def test() -> None:
        async with Messenger("svc.0") as messenger:
            counters = messenger_counters(messenger)
            assert counters["sessions"] == {}
            assert counters["outbox_bytes"] == counters["faults_total"] == 0

    asyncio.run(test())


def test_policies_have_the_name_of_their_preset() -> None:
    assert policy_name(STATEFUL_SERVER) == "stateful_server"
    assert policy_name(Policy(lossy=True, standby=True)) == "other"
