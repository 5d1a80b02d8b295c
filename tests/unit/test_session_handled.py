"""Acks that wait for handlers: policy ``ack = "handled"``."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from mpmsgr.errors import ConfigError
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.policy import LOSSLESS_CLIENT, STATEFUL_SERVER, STATELESS_SERVER, Policy
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.features import RECONNECT_SEQ, SUPPORTED
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.frames import write_messages
from mpmsgr.wire.v1.handshake import BANNER, encode_server_hello
from mpmsgr.wire.v1.parcel import encode_parcel
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import (
    ACK_DELAY_S,
    PEER,
    SOCKET,
    Dialogue,
    Line,
    connect,
    message,
    reply,
)
from tests.dialogue import CLIENT as ADDR
from tests.streams import SENDER

SERVER = replace(STATEFUL_SERVER, ack="handled")
CLIENT = replace(LOSSLESS_CLIENT, ack="handled")


def serving(policy: Policy = SERVER) -> tuple[Dialogue, Line]:
    """A session that its peer opened."""
    talk = Dialogue(policy)
    return talk, talk.open_incoming()


def messages(first: int, last: int) -> bytes:
    return b"".join(message(seq) for seq in range(first, last + 1))


def handled(talk: Dialogue, *seqs: int, prefix: HandledPrefix | None = None) -> None:
    """Handlers of these messages complete."""
    talk.endpoint.handled(talk.session, seqs, talk.now, prefix=prefix)
    talk.execute()


def prefix_of(session: Session) -> HandledPrefix:
    assert session.handled is not None
    return session.handled


# the prefix


def test_in_order() -> None:
    prefix = HandledPrefix()
    for seq in (1, 2, 3):
        prefix.arrived(seq)
    assert [prefix.handled(seq) for seq in (1, 2, 3)] == [True] * 3
    assert prefix.prefix == 3


def test_in_any_order() -> None:
    prefix = HandledPrefix()
    for seq in range(1, 6):
        prefix.arrived(seq)
    told = [(prefix.handled(seq), prefix.prefix) for seq in (3, 2, 5, 1, 4)]
    assert told == [(False, 0), (False, 0), (False, 0), (True, 3), (True, 5)]


def test_a_message_is_in_work_until_it_was_handled() -> None:
    prefix = HandledPrefix()
    prefix.arrived(1)
    prefix.arrived(2)
    prefix.handled(2)
    assert [prefix.in_work(seq) for seq in (1, 2)] == [True, False]
    prefix.handled(1)
    assert not prefix.in_work(1)


def test_numbers_left_out_hold_up_nothing() -> None:
    prefix = HandledPrefix()
    for seq in (500, 501, 510, 520):
        prefix.arrived(seq)
    assert prefix.prefix == 499, "there is nothing below the first one"
    assert not prefix.handled(510)
    assert prefix.handled(500)
    assert prefix.handled(501)
    assert prefix.prefix == 519
    assert prefix.handled(520)
    assert prefix.prefix == 520
    prefix.arrived(600)
    assert prefix.prefix == 599


def test_what_is_not_in_work_means_nothing() -> None:
    prefix = HandledPrefix(7)
    assert not prefix.handled(7)
    assert not prefix.handled(8)
    prefix.arrived(8)
    assert prefix.handled(8)
    assert not prefix.handled(8), "twice"
    assert not prefix.handled(9)
    assert prefix.prefix == 8


def test_it_keeps_nothing_when_nothing_is_in_work() -> None:
    tracemalloc.start()
    try:
        prefix = HandledPrefix()
        before, _ = tracemalloc.get_traced_memory()
        for seq in range(1, 20_001):
            prefix.arrived(seq)
        for seq in range(20_000, 0, -1):
            prefix.handled(seq)
        assert prefix.prefix == 20_000
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before > 100_000
    assert after - before < 1000


def test_it_keeps_little_where_something_always_is_in_work() -> None:
    tracemalloc.start()
    try:
        prefix = HandledPrefix()
        prefix.arrived(1)
        before, _ = tracemalloc.get_traced_memory()
        for seq in range(1, 20_001, 2):
            prefix.arrived(seq + 1)
            prefix.arrived(seq + 2)
            assert not prefix.handled(seq + 1)
            assert prefix.handled(seq)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert prefix.prefix == 20_000
    assert peak - before < 1000


# the policy


def test_other_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be received or handled"):
        replace(STATEFUL_SERVER, ack="sent")


@pytest.mark.parametrize("policy", [STATEFUL_SERVER, replace(STATELESS_SERVER, ack="handled")])
def test_sessions_without_such_acks_keep_no_books(policy: Policy) -> None:
    talk, line = serving(policy)
    assert talk.session.handled is None
    line.says(messages(1, 3))
    handled(talk, 1, 2, 3)
    assert talk.delivered == [1, 2, 3]


def test_a_server_that_decides_for_lossy_wants_no_acks() -> None:
    talk = Dialogue(CLIENT, port=0)
    session = talk.connect()
    assert session.handled is not None
    line = talk.open_outgoing(reply(Tag.READY, 1, 1, flags=1))
    assert session.handled is None
    line.says(messages(1, 200))
    talk.turn(1.0)
    assert line.tags() == []


def test_a_policy_that_changes_between_two_sockets() -> None:
    talk, line = serving(STATEFUL_SERVER)
    line.says(messages(1, 3))
    line.breaks()
    talk.endpoint.policies = replace(talk.endpoint.policies, default=SERVER)
    line = talk.open_incoming(2, 2)
    assert line.in_seq == 3, "they were received, which was enough at the time"
    line.says(messages(4, 5))
    line.breaks()
    assert talk.open_incoming(4, 3).in_seq == 3
    talk.endpoint.policies = replace(talk.endpoint.policies, default=STATEFUL_SERVER)
    assert talk.open_incoming(6, 4).in_seq == 5


# acks


def test_an_ack_waits_for_the_handler() -> None:
    talk, line = serving()
    line.says(messages(1, 3))
    talk.turn(1.0)
    assert talk.delivered == [1, 2, 3]
    assert line.tags() == []
    handled(talk, 2)
    talk.turn(1.0)
    assert line.tags() == []
    handled(talk, 1)
    assert line.tags() == []
    talk.turn(ACK_DELAY_S)
    assert line.tags() == ["ACK 2"]
    handled(talk, 3)
    talk.turn(1.0)
    assert line.tags() == ["ACK 3"]
    assert talk.session.in_seq_acked == 3


def test_an_ack_travels_with_the_reply() -> None:
    talk, line = serving()
    line.says(messages(1, 3))
    handled(talk, 1)
    talk.send(talk.session, 11)
    assert line.tags() == ["ACK 1", "MSG 1"]
    talk.turn(1.0)
    assert line.tags() == []


def test_many_handled_messages_are_acknowledged_at_once() -> None:
    talk, line = serving()
    line.says(messages(1, 300))
    talk.turn(1.0)
    assert line.tags() == []
    handled(talk, *range(1, 128))
    assert line.tags() == []
    handled(talk, 128)
    assert line.tags() == ["ACK 128"]


def test_a_session_may_begin_with_any_number() -> None:
    talk, line = serving()
    line.says(message(500))
    talk.send(talk.session, 11)
    assert line.tags() == ["MSG 1"], "of the numbers before there is nothing to say"
    line.says(message(510))
    handled(talk, 500)
    handled(talk, 510)
    talk.turn(1.0)
    assert line.tags() == ["ACK 510"]


def test_refused_messages_hold_up_nothing() -> None:
    talk, line = serving()
    assert line.pipe.established is not None
    line.pipe.established.refusing = True
    line.says(messages(1, 2))
    line.pipe.established.refusing = False
    line.says(messages(1, 3))
    handled(talk, 1, 2, 3)
    talk.turn(1.0)
    assert line.tags() == ["ACK 3"]


def test_what_arrives_while_draining_is_not_waited_for() -> None:
    talk, line = serving()
    line.says(message(1))
    talk.endpoint.draining = True
    line.says(message(2))
    handled(talk, 1)
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]


# repeats


def test_a_repeat_of_what_is_in_work_is_dropped_without_a_word() -> None:
    talk, line = serving()
    line.says(messages(1, 3))
    line.says(messages(1, 3))
    talk.turn(1.0)
    assert talk.delivered == [1, 2, 3]
    assert line.tags() == []
    assert talk.endpoint.counters.duplicates == 3
    handled(talk, 1)
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]


def test_a_repeat_of_what_was_handled_gets_its_ack_again_and_no_more() -> None:
    talk, line = serving()
    line.says(messages(1, 3))
    handled(talk, 1)
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]
    line.says(messages(1, 3))
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]


# reconnects


def test_the_accepting_side_announces_what_was_handled() -> None:
    talk, line = serving()
    line.says(messages(1, 5))
    handled(talk, 1, 2, 4)
    line.breaks()
    again = talk.open_incoming(2, 2)
    assert again.in_seq == 2
    assert talk.session.in_seq == 5
    again.says(messages(3, 6))
    assert talk.delivered == [1, 2, 3, 4, 5, 6]
    handled(talk, 3)
    talk.turn(1.0)
    assert again.tags() == ["ACK 4"]


def test_the_connecting_side_announces_what_was_handled() -> None:
    talk = Dialogue(CLIENT, port=0)
    talk.connect()
    line = talk.open_outgoing()
    line.says(messages(1, 5))
    handled(talk, 1, 2, 4)
    line.breaks()
    line = talk.dialled()
    line.says(encode_server_hello(PEER, SOCKET))
    line.heard()
    line.says(reply(Tag.SEQ, 3, 3).encode() + bytes(8))
    assert line.heard() == (2).to_bytes(8, "little")
    line.says(messages(3, 6))
    assert talk.delivered == [1, 2, 3, 4, 5, 6]
    handled(talk, 3)
    talk.turn(1.0)
    assert line.tags() == ["ACK 4"]


def test_a_peer_that_left_numbers_out_goes_on_behind_them() -> None:
    """It would number its repeats from the announced number on."""
    talk, line = serving()
    line.says(message(1), message(50))
    handled(talk, 1)
    line.breaks()
    assert talk.open_incoming(2, 2).in_seq == 49


def test_what_is_handled_between_two_sockets_is_announced() -> None:
    talk, line = serving()
    line.says(messages(1, 5))
    line.breaks()
    handled(talk, 1, 2)
    assert talk.open_incoming(2, 2).in_seq == 2


def test_what_is_handled_during_the_exchange_is_acknowledged_after_it() -> None:
    talk, line = serving()
    line.says(messages(1, 5))
    line.breaks()
    again = talk.accept()
    again.heard()
    again.says(BANNER, ADDR.encode(), connect(2, 2))
    (answer,) = again.replies()
    assert answer.tag == Tag.SEQ
    assert again.in_seq == 0
    handled(talk, 1, 2)
    assert again.heard() == b""
    again.says(bytes(8))
    assert again.tags() == ["ACK 2"]


def test_without_an_exchange_repeats_are_dropped_and_acknowledged_when_handled() -> None:
    without = SUPPORTED & ~RECONNECT_SEQ
    talk = Dialogue(SERVER)
    line = talk.open_incoming(features=without)
    line.says(messages(1, 3))
    handled(talk, 1)
    line.breaks()
    again = talk.open_incoming(2, 2, features=without)
    again.says(messages(1, 4))
    assert talk.delivered == [1, 2, 3, 4]
    talk.turn(1.0)
    assert again.tags() == ["ACK 1"]
    handled(talk, 4, 3, 2)
    talk.turn(1.0)
    assert again.tags() == ["ACK 4"]


# sessions that begin anew


def test_a_reset_session_starts_over() -> None:
    talk, line = serving()
    line.says(messages(1, 5))
    before = prefix_of(talk.session)
    handled(talk, 1)
    line.breaks()
    again = talk.open_incoming(0, 2)  # the peer lost its session
    assert talk.session.state is State.OPEN
    again.says(messages(1, 2))
    handled(talk, 2, 3, 4, 5, prefix=before)
    talk.turn(1.0)
    assert again.tags() == [], "those were other messages with the same numbers"
    handled(talk, 1, prefix=prefix_of(talk.session))
    talk.turn(1.0)
    assert again.tags() == ["ACK 1"]


def test_a_peer_whose_loss_we_do_not_check_for_starts_over() -> None:
    talk, line = serving(replace(SERVER, resetcheck=False))
    line.says(messages(1, 5))
    before = prefix_of(talk.session)
    line.breaks()
    again = talk.open_incoming(0, 2)
    again.says(message(1))
    handled(talk, 1, prefix=before)
    talk.turn(1.0)
    assert again.tags() == []


def test_a_server_that_remembers_another_session_starts_over() -> None:
    talk = Dialogue(CLIENT, port=0)
    session = talk.connect()
    line = talk.open_outgoing()
    line.says(messages(1, 3))
    before = prefix_of(session)
    line.breaks()
    talk.open_outgoing(reply(Tag.SEQ, 3, 3), in_seq=77)
    assert talk.faults[-1].hostile
    assert session.ack_seq == 0
    assert prefix_of(session) is not before


def resent(seq: int, tid: int) -> bytes:
    """A message that its sender marked as possibly seen."""
    parcel = encode_parcel(Message(0x8001, tid=tid), SENDER)
    parcel.mark_resent()
    out: list[Bytes] = []
    write_messages(out, [parcel], seq)
    return b"".join(out)


def test_a_repeat_in_a_new_session_is_handled_when_the_first_one_is() -> None:
    talk, line = serving(replace(SERVER, dedupe_window=10))
    line.says(message(1, tid=71), message(2, tid=72))
    old = talk.session
    before = prefix_of(old)
    talk.endpoint.handled(old, [2], talk.now, prefix=before)
    talk.endpoint.mark_down(old)
    talk.execute()
    again = talk.open_incoming(0, 2)
    again.says(resent(1, 71), resent(2, 72), message(3, tid=73))
    assert talk.delivered == [71, 72, 73]
    handled(talk, 3, prefix=prefix_of(talk.session))
    talk.turn(1.0)
    assert again.tags() == []
    talk.endpoint.handled(old, [1], talk.now, prefix=before)
    talk.execute()
    talk.turn(1.0)
    assert again.tags() == ["ACK 3"]
