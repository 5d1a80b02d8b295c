"""An open session frame by frame (session spec §9, §11, §14): seq, acks, keepalives, CLOSE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpmsgr.session.actions import Deliver, EventKind
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    STATELESS_REGISTERED_SERVER,
    STATELESS_SERVER,
    Policy,
)
from mpmsgr.session.states import State
from mpmsgr.wire.features import MSGR_KEEPALIVE2, SUPPORTED
from mpmsgr.wire.v1.frames import (
    CLOSE,
    KEEPALIVE,
    encode_ack,
    encode_keepalive2,
    encode_keepalive2_ack,
)
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import CLIENT, Dialogue, Line, message, reply, state_of
from tests.streams import with_length

ACK_DELAY_S = 0.04


def serving(policy: Policy = STATEFUL_SERVER, **fields: Any) -> tuple[Dialogue, Line]:
    """A session that its peer opened; nothing was said since."""
    talk = Dialogue(policy)
    line = talk.open_incoming(**fields)
    talk.told()
    return talk, line


def messages(first: int, last: int) -> bytes:
    return b"".join(message(seq) for seq in range(first, last + 1))


# messages in


def test_messages_are_delivered_in_the_order_they_came() -> None:
    talk, line = serving()
    line.says(messages(1, 5), message(6)[:20])
    assert talk.delivered == [1, 2, 3, 4, 5]
    line.says(message(6)[20:])
    assert talk.delivered == [1, 2, 3, 4, 5, 6]
    assert talk.session.in_seq == 6


def test_one_chunk_is_one_delivery() -> None:
    talk, line = serving()
    line.pipe.receive(messages(1, 5), talk.now)
    delivered = [action for action in talk.endpoint.take() if isinstance(action, Deliver)]
    assert [len(action.raws) for action in delivered] == [5]


def test_duplicates_are_dropped() -> None:
    talk, line = serving()
    line.says(messages(1, 3), messages(2, 4), message(0))
    assert talk.delivered == [1, 2, 3, 4]
    assert talk.endpoint.counters.duplicates == 3
    assert talk.session.in_seq == 4


def test_gaps_are_accepted_and_reported() -> None:
    talk, line = serving()
    line.says(message(500))  # a session may begin with any number
    assert talk.endpoint.counters.gaps == 0
    line.says(message(501), message(503))
    assert talk.delivered == [500, 501, 503]
    assert talk.endpoint.counters.gaps == 1
    assert [report.kind for report in talk.reports] == ["gap"]
    talk.turn(1.0)
    assert line.tags() == ["ACK 503"]


def test_what_came_whole_before_a_bad_frame_counts() -> None:
    talk, line = serving()
    bad = bytearray(message(3))
    bad[60] ^= 1
    line.says(messages(1, 2), bytes(bad), message(4))
    assert talk.delivered == [1, 2]
    assert talk.faults[-1].hostile
    assert talk.session.state is State.STANDBY
    again = talk.open_incoming(2, 2)
    assert again.in_seq == 2


def test_a_length_beyond_the_limit_ends_the_connection_not_the_session() -> None:
    talk, line = serving()
    line.says(with_length(message(1), 22, 0xFFFFFFFF))
    assert "front_len" in talk.faults[-1].cause
    assert talk.session.state is State.STANDBY


# acks


def test_one_ack_covers_everything_and_waits_for_company() -> None:
    talk, line = serving()
    line.says(messages(1, 5))
    line.says(messages(6, 9))
    assert line.tags() == []
    talk.turn(ACK_DELAY_S / 2)
    assert line.tags() == []
    talk.turn(ACK_DELAY_S / 2)
    assert line.tags() == ["ACK 9"]
    talk.turn(1.0)
    assert line.tags() == []
    assert talk.session.in_seq_acked == 9


def test_an_ack_travels_with_the_next_message() -> None:
    talk, line = serving()
    line.says(messages(1, 3))
    talk.send(talk.session, 11, 12)
    assert line.tags() == ["ACK 3", "MSG 1", "MSG 2"]
    talk.turn(1.0)
    assert line.tags() == []


def test_many_messages_are_acknowledged_at_once() -> None:
    _talk, line = serving()
    line.says(messages(1, 127))
    assert line.tags() == []
    line.says(message(128))
    assert line.tags() == ["ACK 128"]
    line.says(messages(129, 400))
    assert line.tags() == ["ACK 400"]


def test_an_ack_that_was_due_when_the_socket_broke_is_not_owed() -> None:
    talk, line = serving()
    line.says(messages(1, 3))
    line.breaks()
    again = talk.open_incoming(2, 2)
    assert again.in_seq == 3
    talk.turn(1.0)
    assert again.tags() == []


@pytest.mark.parametrize("policy", [STATELESS_SERVER, STATELESS_REGISTERED_SERVER])
def test_lossy_sessions_acknowledge_nothing(policy: Policy) -> None:
    talk, line = serving(policy)
    line.says(messages(1, 300), message(3))
    talk.send(talk.session, 7)
    talk.turn(1.0)
    assert line.tags() == ["MSG 1"]
    assert not talk.session.outbox.sent


def test_a_client_whose_server_is_lossy_acknowledges_nothing() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    talk.connect()
    line = talk.open_outgoing(reply(Tag.READY, 1, 1, flags=1))
    line.heard()
    line.says(messages(1, 300))
    talk.turn(1.0)
    assert line.tags() == []


def test_acks_of_the_peer_free_what_was_sent() -> None:
    talk, line = serving()
    talk.send(talk.session, 1, 2, 3)
    line.heard()
    line.says(encode_ack(2))
    assert [parcel.tid for parcel in talk.session.outbox.sent] == [3]
    line.says(encode_ack(99))
    assert talk.session.outbox.nbytes == 0


def test_messages_are_sent_when_a_flush_comes_all_in_one() -> None:
    talk, line = serving()
    talk.send(talk.session, 1)
    talk.send(talk.session, 2, 3)
    assert line.tags() == ["MSG 1", "MSG 2", "MSG 3"]


def test_what_does_not_fit_into_a_write_follows() -> None:
    talk, line = serving()
    talk.send(talk.session, *range(1, 11), data=bytes(60_000))
    first = b"".join(line.pipe.output(talk.now))
    assert line.pipe.has_more
    assert 256 * 1024 <= len(first) < 400 * 1024
    line.written = first
    assert line.tags() == [f"MSG {seq}" for seq in range(1, 11)]
    assert not line.pipe.has_more


# keepalives


def test_keepalive2_is_answered_with_its_stamp() -> None:
    _talk, line = serving()
    line.says(encode_keepalive2((123, 456)))
    assert line.frames() == [(Tag.KEEPALIVE2_ACK, (123, 456), None)]
    line.says(encode_keepalive2((1, 1)), encode_keepalive2((2, 2)))
    assert line.frames() == [(Tag.KEEPALIVE2_ACK, (2, 2), None)]


def test_keepalive_is_only_a_sign_of_life() -> None:
    talk, line = serving()
    talk.turn(5.0)
    line.says(KEEPALIVE)
    assert line.frames() == []
    assert talk.session.last_received == talk.now


def test_the_answer_to_ours_is_noted_and_told() -> None:
    talk, line = serving()
    talk.endpoint.send_keepalive(talk.session, talk.now)
    talk.execute()
    ((tag, stamp, _),) = line.frames()
    assert tag == Tag.KEEPALIVE2
    assert isinstance(stamp, tuple)
    line.says(encode_keepalive2_ack(stamp))
    assert talk.session.last_keepalive_ack == pytest.approx(talk.now)
    assert talk.answered == [talk.session]


def test_a_peer_without_keepalive2_gets_the_old_one() -> None:
    talk, line = serving(features=SUPPORTED & ~MSGR_KEEPALIVE2)
    talk.endpoint.send_keepalive(talk.session, talk.now)
    talk.execute()
    assert line.heard() == KEEPALIVE


def test_order_of_what_leaves_together() -> None:
    talk, line = serving()
    line.says(message(1), encode_keepalive2((7, 7)))
    talk.endpoint.send_keepalive(talk.session, talk.now)
    talk.send(talk.session, 5)
    assert line.tags() == ["KEEPALIVE2", "KEEPALIVE2_ACK", "ACK 1", "MSG 1"]


def test_a_keepalive_for_a_parked_session_wakes_it_if_we_are_the_one_to_connect() -> None:
    talk = Dialogue(replace(LOSSLESS_CLIENT, standby=True), port=0)
    session = talk.connect()
    talk.open_outgoing().breaks()
    assert state_of(session) is State.STANDBY
    talk.endpoint.send_keepalive(session, talk.now)
    talk.execute()
    assert state_of(session) is State.CONNECTING
    talk, line = serving()
    line.breaks()
    talk.endpoint.send_keepalive(talk.session, talk.now)
    assert talk.session.state is State.STANDBY


# CLOSE, mark_down


def test_close_is_answered_and_ends_the_session() -> None:
    talk, line = serving()
    session = talk.session
    talk.send(session, 5, 6)
    line.heard()
    line.says(messages(1, 2), CLOSE, message(3))
    assert talk.delivered == [1, 2]
    (event,) = talk.events
    assert (event.kind, event.lost) == (EventKind.RESET, (5, 6))
    assert line.written == CLOSE
    assert line.closed
    assert session.state is State.CLOSED
    assert len(talk.endpoint.registry) == 0


def test_our_close_comes_after_what_is_due() -> None:
    talk, line = serving()
    session = talk.session
    line.says(message(1))
    talk.send(session, 5)
    lost = talk.endpoint.close(session, talk.now)
    talk.execute()
    assert lost == [5]
    assert line.closed
    assert talk.told() == []
    assert line.written.endswith(CLOSE)
    assert len(line.written) == 9 + len(message(1)) + 1
    assert line.written.startswith(encode_ack(1))


def test_mark_down_ends_the_session_without_an_event() -> None:
    talk, line = serving()
    session = talk.session
    talk.send(session, 5, 6)
    assert talk.endpoint.mark_down(session) == [5, 6]
    talk.execute()
    assert talk.told() == []
    assert line.closed
    assert not talk.send(session, 7)
    line.says(message(1))
    line.breaks()
    assert talk.delivered == []
    assert talk.told() == []
    assert talk.endpoint.mark_down(session) == []
    assert talk.endpoint.registry.find(CLIENT) is None


def test_mark_down_while_connecting_parked_or_told_to_wait() -> None:
    talk = Dialogue(LOSSY_CLIENT)
    session = talk.connect()
    talk.endpoint.mark_down(session)
    talk.refused()
    assert talk.told() == []
    talk, line = serving()
    line.breaks()
    talk.endpoint.mark_down(talk.session)
    talk.turn(1000.0)
    assert talk.told() == []


def test_all_sessions_and_handshakes_can_be_ended_with_events() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    lines = [talk.open_incoming(addr=CLIENT._replace(nonce=n)) for n in (1, 2)]
    lines.append(talk.accept())
    talk.told()
    talk.endpoint.mark_down_all("rebind")
    talk.execute()
    assert talk.told() == [EventKind.RESET] * 2
    assert all(line.closed for line in lines)
    assert len(talk.endpoint.registry) == 0
    assert not talk.endpoint.registry.pipes


# draining


def test_what_arrives_while_draining_is_neither_handled_nor_acknowledged() -> None:
    talk, line = serving()
    line.says(messages(1, 2))
    talk.endpoint.draining = True
    line.says(messages(3, 5), message(9))
    talk.turn(1.0)
    assert talk.delivered == [1, 2]
    assert line.tags() == ["ACK 2"]
    assert talk.endpoint.counters.duplicates == 0
    line.breaks()
    again = talk.open_incoming(2, 2)
    assert again.in_seq == 2  # the peer still has the rest


def test_acks_and_replies_flow_while_draining() -> None:
    talk, line = serving()
    talk.send(talk.session, 5)
    talk.endpoint.draining = True
    assert line.tags() == ["MSG 1"]
    line.says(encode_ack(1))
    assert talk.session.outbox.nbytes == 0
