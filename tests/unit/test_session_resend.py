"""What was unacknowledged, sent again in a new session; and how its receiver tells repeats."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from mpmsgr.session import seen as seen_module
from mpmsgr.session.actions import EventKind
from mpmsgr.session.policy import LOSSLESS_CLIENT, STATEFUL_SERVER
from mpmsgr.session.seen import SeenMessages
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.message import PRIO_HIGH, Message
from mpmsgr.wire.v1.frames import encode_ack, write_messages
from mpmsgr.wire.v1.handshake import encode_server_hello
from mpmsgr.wire.v1.parcel import decode_raw, encode_parcel, raw_ids
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import CLIENT, PEER, SOCKET, Dialogue, Line, message, reply
from tests.streams import SENDER

RESEND = replace(LOSSLESS_CLIENT, on_remote_reset="resend")
RESENDING_SERVER = replace(STATEFUL_SERVER, on_remote_reset="resend")
DEDUPING = replace(STATEFUL_SERVER, dedupe_window=3)


def messages(line: Line) -> list[tuple[int, int, bool]]:
    """tid, seq and mark of the messages heard."""
    return [
        (raw_ids(raw)[1], raw_ids(raw)[0], decode_raw(raw).resent)
        for tag, _, raw in line.frames()
        if tag == Tag.MSG and raw is not None
    ]


def client(**options: Any) -> tuple[Dialogue, Line]:
    """A client whose session has 1 and 2 acknowledged, 3 and 4 written, 5 not written yet."""
    talk = Dialogue(RESEND, port=0, **options)
    session = talk.connect()
    line = talk.open_outgoing()
    talk.send(session, 1, 2, 3, 4)
    line.heard()
    line.says(encode_ack(2))
    talk.told()
    line.breaks()
    talk.send(session, 5)
    return talk, line


def answered(talk: Dialogue) -> Line:
    """The peer of the next dial has no such session, and opens a new one."""
    line = talk.dialled()
    line.says(encode_server_hello(PEER, SOCKET))
    line.says(reply(Tag.RESETSESSION))
    line.heard()
    line.says(reply(Tag.READY, 1, 1))
    return line


def test_the_connecting_side_sends_again_in_order() -> None:
    talk, _ = client()
    line = answered(talk)
    (reset, _) = talk.events
    assert (reset.kind, reset.lost, reset.kept) == (EventKind.REMOTE_RESET, (), (3, 4, 5))
    heard = messages(line)
    assert [(tid, mark) for tid, _, mark in heard] == [(3, True), (4, True), (5, False)]
    first = heard[0][1]
    assert [seq for _, seq, _ in heard] == [first, first + 1, first + 2]
    line.says(encode_ack(first + 2))
    assert talk.session.outbox.nbytes == 0


def test_without_the_policy_they_are_lost() -> None:
    talk, _ = client()
    talk.session.policy = LOSSLESS_CLIENT
    line = answered(talk)
    assert (talk.events[0].lost, talk.events[0].kept) == ((3, 4, 5), ())
    assert messages(line) == []


def test_a_second_reset_before_they_are_acknowledged() -> None:
    talk, _ = client()
    answered(talk).breaks()
    again = answered(talk)
    assert [(tid, mark) for tid, _, mark in messages(again)] == [(3, True), (4, True), (5, False)]


def test_a_second_reset_after_they_were_written() -> None:
    talk, _ = client()
    line = answered(talk)
    assert len(messages(line)) == 3
    line.breaks()
    again = answered(talk)
    assert [(tid, mark) for tid, _, mark in messages(again)] == [(3, True), (4, True), (5, True)]


def test_a_reconnect_of_the_new_session_repeats_nothing_that_was_received() -> None:
    talk, _ = client()
    line = answered(talk)
    first = messages(line)[0][1]
    line.breaks()
    again = talk.open_outgoing(reply(Tag.SEQ, 3, 3), in_seq=first)
    assert talk.told()[-1] is EventKind.CONNECT
    talk.flush()
    assert [parcel.tid for parcel in talk.session.outbox.sent] == [4, 5]
    assert not again.closed


def test_priorities_decide_among_what_was_not_written() -> None:
    talk, _ = client()
    talk.send(talk.session, 6, priority=PRIO_HIGH)
    assert [tid for tid, _, _ in messages(answered(talk))] == [3, 4, 6, 5]


def test_another_incarnation_of_the_service() -> None:
    talk, _ = client()
    line = talk.dialled()
    line.says(encode_server_hello(PEER._replace(nonce=99), SOCKET))
    assert [event.kept for event in talk.events] == [(3, 4, 5)]
    line.heard()
    line.says(reply(Tag.READY, 1, 1))
    assert [tid for tid, _, _ in messages(line)] == [3, 4, 5]


def test_a_server_whose_client_starts_over() -> None:
    talk = Dialogue(RESENDING_SERVER, rng=Random(5))
    line = talk.open_incoming()
    talk.send(talk.session, 1, 2, 3)
    line.heard()
    line.says(encode_ack(1))
    talk.told()
    line = talk.open_incoming(0, 2)
    assert [event.kept for event in talk.events[:1]] == [(2, 3)]
    assert talk.told() == [EventKind.REMOTE_RESET, EventKind.ACCEPT]
    assert [parcel.tid for parcel in talk.session.outbox.sent] == [2, 3]
    line.says(encode_ack(talk.session.outbox.out_seq))
    assert talk.session.outbox.nbytes == 0


# the receiving side


def resent(seq: int, tid: int) -> bytes:
    """A message frame marked as possibly seen."""
    parcel = encode_parcel(Message(0x8001, b"front", tid=tid), SENDER)
    parcel.mark_resent()
    out: list[Any] = []
    write_messages(out, [parcel], seq)
    return b"".join(out)


def new_session(talk: Dialogue, global_seq: int = 2) -> Line:
    """The same peer, in a new session."""
    return talk.open_incoming(0, global_seq)


def test_marked_repeats_are_dropped_and_acknowledged() -> None:
    talk = Dialogue(DEDUPING)
    talk.open_incoming().says(message(1, 11), message(2, 12))
    line = new_session(talk)
    line.says(resent(1, 11), resent(2, 12))
    assert talk.delivered == [11, 12]
    talk.turn(0.1)
    assert line.tags() == ["ACK 2"]
    assert talk.endpoint.counters.duplicates == 2


def test_marked_messages_that_are_new_are_delivered() -> None:
    talk = Dialogue(DEDUPING)
    talk.open_incoming().says(message(1, 11))
    new_session(talk).says(resent(1, 11), resent(2, 12), message(3, 13))
    assert talk.delivered == [11, 12, 13]


def test_what_is_not_marked_is_delivered_whatever_its_tid() -> None:
    talk = Dialogue(DEDUPING)
    line = talk.open_incoming()
    line.says(message(1, 11), message(2, 11))
    new_session(talk).says(message(1, 11))
    assert talk.delivered == [11, 11, 11]


def test_a_repeat_of_a_repeat() -> None:
    talk = Dialogue(DEDUPING)
    talk.open_incoming().says(message(1, 11))
    for global_seq in (2, 3, 4):
        new_session(talk, global_seq).says(resent(1, 11))
    assert talk.delivered == [11]


def test_the_window() -> None:
    talk = Dialogue(DEDUPING)
    talk.open_incoming().says(*(message(seq, 10 + seq) for seq in range(1, 5)))
    new_session(talk).says(resent(1, 11), resent(2, 13), resent(3, 14))
    assert talk.delivered == [11, 12, 13, 14, 11], "11 is forgotten, and with it the oldest, 12"


def test_without_a_window_everything_is_delivered_marked() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming().says(message(1, 11))
    new_session(talk).says(resent(1, 11))
    assert talk.delivered == [11, 11]


def test_messages_without_a_tid_have_no_name() -> None:
    talk = Dialogue(DEDUPING)
    talk.open_incoming().says(resent(1, 0), resent(2, 0))
    assert talk.delivered == [0, 0]


def test_each_peer_has_names_of_its_own() -> None:
    talk = Dialogue(DEDUPING)
    talk.open_incoming().says(message(1, 11))
    other = talk.open_incoming(addr=CLIENT._replace(nonce=89))
    other.says(resent(1, 11))
    assert talk.delivered == [11, 11]


def test_a_socket_that_breaks_repeats_without_marks() -> None:
    """Repeats of the same session are told by their seq."""
    talk = Dialogue(DEDUPING)
    line = talk.open_incoming()
    line.says(message(1, 11))
    line.breaks()
    again = talk.open_incoming(2, 2)
    assert again.in_seq == 1
    again.says(message(2, 12))
    assert talk.delivered == [11, 12]


def test_peers_longest_silent_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "_PEERS", 2)
    seen = SeenMessages()
    a, b, c = (EntityAddr.of("10.0.0.9", 0, nonce) for nonce in (1, 2, 3))
    assert not seen.note(a, 5, 10)
    assert not seen.note(b, 5, 10)
    assert seen.note(a, 5, 10)
    assert not seen.note(c, 5, 10)
    assert seen.note(a, 5, 10)
    assert not seen.note(b, 5, 10)


def test_the_mark_is_one_of_ours_alone() -> None:
    """The reserved field of a header is 0 in everything Ceph sends."""
    parcel = encode_parcel(Message(0x8001, tid=7), SENDER)
    before = parcel.head
    parcel.mark_resent()
    assert parcel.head[:-2] == before[:-2]
    assert (before[-2:], parcel.head[-2:]) == (b"\0\0", b"\1\0")
