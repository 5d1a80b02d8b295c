"""A lame duck lets peers resume their sessions and begins no new ones."""

from __future__ import annotations

import pytest

from mpmsgr.session.actions import EventKind
from mpmsgr.session.policy import (
    LOSSLESS_PEER,
    LOSSLESS_PEER_REUSE,
    STATEFUL_SERVER,
    STATELESS_REGISTERED_SERVER,
    STATELESS_SERVER,
    Policy,
)
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.v1.handshake import encode_seq
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import CLIENT, PEER, Dialogue, Line, asks, connect, message, state_of


def asks_duck(
    talk: Dialogue, connect_seq: int, global_seq: int = 2, addr: EntityAddr = CLIENT
) -> Line:
    """A peer connects to the lame duck."""
    talk.endpoint.lame_duck = True
    talk.told()
    return asks(talk, connect_seq, global_seq, addr)


def assert_refused(talk: Dialogue, line: Line) -> None:
    assert line.heard() == b""
    assert line.closed
    assert talk.told() == []
    (fault,) = talk.faults
    assert "lame_duck" in fault.cause
    assert not fault.hostile


@pytest.mark.parametrize("policy", [STATEFUL_SERVER, STATELESS_SERVER, LOSSLESS_PEER])
@pytest.mark.parametrize("connect_seq", [0, 3])
def test_who_has_no_session_here_gets_none(policy: Policy, connect_seq: int) -> None:
    talk = Dialogue(policy)
    line = asks_duck(talk, connect_seq)
    assert_refused(talk, line)
    assert list(talk.endpoint.registry) == []


def test_a_session_is_resumed_with_nothing_lost() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    first = talk.open_incoming()
    first.says(message(1))
    session = talk.session
    first.breaks()
    talk.send(session, 7)
    line = asks_duck(talk, 2)
    assert [answer.tag for answer in line.replies()] == [Tag.SEQ]
    assert line.in_seq == 1
    line.says(encode_seq(0), message(2))
    assert line.tags() == ["ACK 2", "MSG 1"]
    assert talk.session is session
    assert state_of(session) is State.OPEN
    assert talk.delivered == [1, 2]
    assert talk.told() == [EventKind.ACCEPT]


def test_a_session_whose_socket_seems_alive_is_resumed() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    first = talk.open_incoming()
    line = asks_duck(talk, 2)
    assert [answer.tag for answer in line.replies()] == [Tag.SEQ]
    assert first.closed


def test_a_peer_that_began_anew_is_refused_and_its_session_left_as_it_is() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming()
    session = talk.session
    line = asks_duck(talk, 0)
    assert_refused(talk, line)
    assert talk.session is session
    assert state_of(session) is State.OPEN


def test_a_lossy_client_that_comes_again_is_refused() -> None:
    talk = Dialogue(STATELESS_REGISTERED_SERVER)
    talk.open_incoming()
    assert_refused(talk, asks_duck(talk, 0))


def test_who_is_told_to_come_with_a_higher_number_may_do_so() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming()
    talk.open_incoming(2, 2)
    line = asks_duck(talk, 1, 3)
    assert [answer.tag for answer in line.replies()] == [Tag.RETRY_SESSION]
    line.says(connect(4, 3))
    assert [answer.tag for answer in line.replies()] == [Tag.SEQ]


def test_a_peer_that_we_are_connecting_to_may_answer_by_connecting() -> None:
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    session = talk.connect()
    talk.refused()
    line = asks_duck(talk, 0, 1, PEER)
    assert [answer.tag for answer in line.replies()] == [Tag.SEQ]
    assert talk.session is session
