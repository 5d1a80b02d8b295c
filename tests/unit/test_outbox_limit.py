"""A session whose outbox is full: when, for how long, and what its peer may still say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpmsgr.session.actions import EventKind
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    STATELESS_SERVER,
    Policy,
)
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.frames import CLOSE, encode_ack
from mpmsgr.wire.v1.parcel import FOOTER_SIZE, encode_parcel
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import Dialogue, Line, message, reply

#: Room for ten of the messages that `Dialogue.send` makes.
SIZE = len(b"front") + FOOTER_SIZE
LIMIT = 10 * SIZE


def server(**changes: object) -> Dialogue:
    return Dialogue(replace(STATEFUL_SERVER, outbox_bytes=LIMIT, **changes))  # type: ignore[arg-type]


def full_server(count: int = 11, **changes: object) -> tuple[Dialogue, Line]:
    """A server with a session whose outbox is full of *count* written messages."""
    talk = server(**changes)
    line = talk.open_incoming()
    talk.send(talk.session, *range(1, count + 1))
    line.heard()
    talk.told()
    return talk, line


def push(talk: Dialogue, tid: int, size: int = 5) -> bool:
    """Send a push as a messenger does; False: it may not."""
    parcel = encode_parcel(Message(0x8001, bytes(size), tid=tid), talk.endpoint.name)
    parcel.push = True
    admitted = talk.endpoint.admit(talk.session, parcel.size)
    if admitted:
        talk.endpoint.send(talk.session, [parcel], talk.now)
    talk.execute()
    return admitted


# full, and room again


def test_replies_always_pass_and_fill_it() -> None:
    talk = server()
    talk.open_incoming()
    talk.send(talk.session, *range(1, 11))
    assert talk.fulls == []
    talk.send(talk.session, 11)
    talk.send(talk.session, 12)
    assert talk.fulls == [True]
    assert talk.session.outbox.nbytes == 12 * SIZE


def test_it_has_room_when_half_of_it_is_acknowledged() -> None:
    talk, line = full_server()
    line.says(encode_ack(5))
    assert talk.fulls == [True]
    line.says(encode_ack(6))
    assert talk.fulls == [True, False]
    assert not talk.session.full


def test_a_lossy_session_has_room_when_it_is_written() -> None:
    talk = Dialogue(replace(STATELESS_SERVER, outbox_bytes=LIMIT))
    line = talk.open_incoming()
    talk.send(talk.session, *range(1, 12))
    assert talk.fulls == [True]
    line.heard()
    assert talk.fulls == [True, False]


def test_no_limit() -> None:
    talk = server()
    talk.open_incoming()
    talk.session.policy = replace(talk.session.policy, outbox_bytes=0)
    talk.send(talk.session, *range(1, 1000))
    assert push(talk, 1000)
    assert talk.fulls == []


# pushes


@pytest.mark.parametrize("way", ["block", "fail"])
def test_a_push_that_does_not_fit_fills_it(way: str) -> None:
    talk = server(outbox_full=way)
    line = talk.open_incoming()
    assert all(push(talk, tid) for tid in range(1, 11))
    assert talk.fulls == []
    assert not push(talk, 11)
    assert talk.fulls == [True]
    line.heard()
    line.says(encode_ack(10))
    assert push(talk, 12)


def test_a_push_longer_than_the_limit_passes_alone() -> None:
    talk = server()
    talk.open_incoming()
    assert push(talk, 1, size=2 * LIMIT)
    assert not push(talk, 2)


def test_the_newest_pushes_are_kept() -> None:
    talk = server(outbox_full="drop_oldest")
    line = talk.open_incoming()
    talk.send(talk.session, 1)
    assert all(push(talk, tid) for tid in range(2, 14))
    assert (talk.endpoint.counters.pushes_dropped, talk.fulls) == (3, [])
    assert [report.kind for report in talk.reports] == ["outbox"] * 3
    assert "10.0.0.2:0/88 full: 1 pushes dropped" in talk.reports[0].text
    assert line.tags() == [f"MSG {seq}" for seq in range(1, 11)]
    assert [parcel.tid for parcel in talk.session.outbox.sent] == [1, *range(5, 14)]


def test_a_push_goes_where_nothing_else_may() -> None:
    talk = server(outbox_full="drop_oldest")
    talk.open_incoming()
    talk.send(talk.session, *range(1, 11))
    assert not push(talk, 11)
    assert talk.fulls == []


# across connections


def test_it_stays_full_without_a_connection() -> None:
    talk, line = full_server()
    line.breaks()
    assert (talk.session.state, talk.fulls) == (State.STANDBY, [True])


def test_a_reconnect_says_what_the_peer_has() -> None:
    talk, line = full_server()
    line.breaks()
    talk.open_incoming(2, 2, in_seq=11)
    assert talk.fulls == [True, False]


def test_a_reconnect_that_brings_no_room() -> None:
    talk, line = full_server()
    line.breaks()
    again = talk.open_incoming(2, 2, in_seq=2)
    assert talk.fulls == [True]
    assert again.tags() == [f"MSG {seq}" for seq in range(3, 12)]
    again.says(encode_ack(11))
    assert talk.fulls == [True, False]


def test_the_same_on_the_connecting_side() -> None:
    talk = Dialogue(replace(LOSSLESS_CLIENT, outbox_bytes=LIMIT), port=0)
    session = talk.connect()
    line = talk.open_outgoing()
    talk.send(session, *range(1, 12))
    line.heard()
    line.breaks()
    talk.open_outgoing(reply(Tag.SEQ, 3, 2), in_seq=11)
    assert talk.fulls == [True, False]


def watched(talk: Dialogue) -> list[object]:
    """Events and changes of fullness, in the order in which they were told."""
    order: list[object] = []
    endpoint = talk.endpoint
    emit = endpoint.emit

    def note(action: object) -> None:
        if hasattr(action, "kind") and isinstance(action.kind, EventKind):
            order.append(action.kind)
        elif hasattr(action, "full"):
            order.append(action.full)
        emit(action)  # type: ignore[arg-type]

    endpoint.emit = note  # type: ignore[method-assign]
    return order


def test_the_reset_is_told_before_there_is_room() -> None:
    talk, _ = full_server()
    order = watched(talk)
    talk.open_incoming(0, 2)  # the peer has lost the session
    assert order[:2] == [EventKind.REMOTE_RESET, False]


@pytest.mark.parametrize("policy", [STATEFUL_SERVER, STATELESS_SERVER])
def test_the_end_is_told_before_there_is_room(policy: Policy) -> None:
    talk = Dialogue(replace(policy, outbox_bytes=LIMIT))
    line = talk.open_incoming()
    talk.send(talk.session, *range(1, 12))
    order = watched(talk)
    line.says(CLOSE)
    assert order == [EventKind.RESET, False]


def test_mark_down_makes_room() -> None:
    talk, _ = full_server()
    session = talk.session
    assert talk.endpoint.mark_down(session) == list(range(1, 12))
    talk.execute()
    assert (talk.fulls, session.full, talk.events) == ([True, False], False, [])


def test_a_session_that_resends_stays_full() -> None:
    talk, _ = full_server(on_remote_reset="resend")
    line = talk.open_incoming(0, 2)
    assert talk.fulls == [True]
    assert [tag.split()[0] for tag in line.tags()] == ["MSG"] * 11
    line.says(encode_ack(talk.session.outbox.out_seq))
    assert talk.fulls == [True, False]


# a peer that sends without end and takes nothing


def overrun(talk: Dialogue, session: Session) -> None:
    talk.endpoint.overrun(session, talk.now)
    talk.execute()


def test_its_messages_are_refused_and_its_acks_read() -> None:
    talk, line = full_server()
    overrun(talk, talk.session)
    line.says(message(1), message(2), encode_ack(5), message(3))
    assert (talk.delivered, talk.session.in_seq) == ([], 0)
    assert talk.session.outbox.nbytes == 6 * SIZE
    assert not line.closed
    (report,) = talk.reports
    assert (report.kind, talk.endpoint.counters.overruns) == ("overrun", 1)


def test_it_is_cut_when_there_is_room_and_repeats_what_was_refused() -> None:
    talk, line = full_server()
    line.says(message(1))
    overrun(talk, talk.session)
    line.says(message(2), message(3))
    line.says(encode_ack(6), encode_ack(7), message(4))
    assert line.closed
    assert talk.fulls == [True, False]
    again = talk.open_incoming(2, 2, in_seq=9)
    assert again.in_seq == 1, "what is repeated begins after the first message"
    again.says(message(2), message(3), message(4))
    assert talk.delivered == [1, 2, 3, 4]
    assert talk.endpoint.counters.gaps == talk.endpoint.counters.duplicates == 0


def test_it_goes_on_where_nothing_was_refused() -> None:
    talk, line = full_server()
    overrun(talk, talk.session)
    line.says(encode_ack(11))
    line.says(message(1))
    assert (talk.delivered, line.closed) == ([1], False)


def test_a_new_connection_begins_to_take_messages() -> None:
    talk, line = full_server()
    overrun(talk, talk.session)
    line.says(message(1))
    line.breaks()
    again = talk.open_incoming(2, 2, in_seq=2)
    again.says(message(1))
    assert (talk.delivered, talk.fulls) == ([1], [True])


def test_it_is_told_once() -> None:
    talk, _ = full_server()
    overrun(talk, talk.session)
    overrun(talk, talk.session)
    assert talk.endpoint.counters.overruns == len(talk.reports) == 1


def test_a_session_with_room_is_left_alone() -> None:
    talk, line = full_server()
    line.says(encode_ack(11))
    overrun(talk, talk.session)
    line.says(message(1))
    assert (talk.delivered, talk.reports) == ([1], [])


def test_without_a_connection_there_is_nothing_to_refuse() -> None:
    talk, line = full_server()
    line.breaks()
    overrun(talk, talk.session)
    assert talk.endpoint.counters.overruns == 0


def test_a_lossy_session_ends() -> None:
    talk = Dialogue(replace(LOSSY_CLIENT, outbox_bytes=LIMIT), port=0)
    session = talk.connect()
    line = talk.open_outgoing(reply(Tag.READY, 1, 1, flags=1))
    talk.send(session, *range(1, 12))
    overrun(talk, session)
    assert (session.state, line.closed) == (State.CLOSED, True)
    assert talk.events[-1].kind is EventKind.RESET
    assert "sends requests without end" in talk.events[-1].cause
