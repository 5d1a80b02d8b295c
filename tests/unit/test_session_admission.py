"""Who gets no session: as a function of what is known, and on the wire where it is full."""

from __future__ import annotations

import pytest

from mpmsgr.session.actions import EventKind
from mpmsgr.session.admission import Refusal, refusal
from mpmsgr.session.decision import Facts, decide
from mpmsgr.session.policy import (
    LOSSLESS_PEER,
    LOSSLESS_PEER_REUSE,
    STATEFUL_SERVER,
    STATELESS_REGISTERED_SERVER,
    STATELESS_SERVER,
    Policy,
)
from mpmsgr.session.session import Target
from mpmsgr.session.states import State
from mpmsgr.wire.v1.handshake import encode_seq
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import CLIENT, PEER, Dialogue, Line, asks, message, state_of
from tests.unit.test_session_decision import RECONNECT

OTHER = CLIENT._replace(nonce=99)

STRANGER = RECONNECT._replace(existing=False, connect_seq=0)

#: What connects, and whether it is refused by a lame duck, by an endpoint that is full.
CASES: list[tuple[str, Facts, bool, bool]] = [
    ("a stranger", STRANGER, True, True),
    ("one that remembers a session we do not", STRANGER._replace(connect_seq=3), True, True),
    ("a lossy one that is not registered", RECONNECT._replace(anonymous=True), True, True),
    ("a registered lossy one", RECONNECT._replace(existing_lossy=True), True, False),
    ("one that begins anew", RECONNECT._replace(connect_seq=0), True, False),
    (
        "the same, without resetcheck",
        RECONNECT._replace(connect_seq=0, resetcheck=False),
        True,
        False,
    ),
    ("one that goes on", RECONNECT, False, False),
    ("one to be told a number", RECONNECT._replace(global_seq=9), False, False),
    ("one that crosses our connect", RECONNECT._replace(state=State.CONNECTING), False, False),
]


@pytest.mark.parametrize(("facts", "lame", "full"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_who_is_refused(facts: Facts, lame: bool, full: bool) -> None:
    row = decide(facts)
    by_a_lame_duck = refusal(row, facts, lame_duck=True, sessions=0, max_sessions=0)
    assert by_a_lame_duck == (Refusal.LAME_DUCK if lame else None)
    by_a_full_one = refusal(row, facts, lame_duck=False, sessions=3, max_sessions=3)
    assert by_a_full_one == (Refusal.MAX_SESSIONS if full else None)
    assert refusal(row, facts, lame_duck=False, sessions=3, max_sessions=0) is None


@pytest.mark.parametrize(("sessions", "full"), [(0, False), (2, False), (3, True), (4, True)])
def test_a_limit_that_was_lowered_is_one_as_well(sessions: int, full: bool) -> None:
    why = refusal(decide(STRANGER), STRANGER, lame_duck=False, sessions=sessions, max_sessions=3)
    assert why == (Refusal.MAX_SESSIONS if full else None)


# on the wire


def full(policy: Policy) -> Dialogue:
    """An endpoint that has the one session it may have, opened by CLIENT."""
    talk = Dialogue(policy)
    talk.endpoint.max_sessions = 1
    talk.open_incoming()
    talk.told()
    return talk


def assert_refused(talk: Dialogue, line: Line) -> None:
    assert line.heard() == b""
    assert line.closed
    assert talk.told() == []
    (fault,) = talk.faults
    assert fault.cause.endswith("asks for a new session; there are 1, at most 1 may be")
    assert (fault.kind, fault.hostile) == ("max_sessions", False)
    assert talk.endpoint.counters.sessions_refused == {"lame_duck": 0, "max_sessions": 1}


@pytest.mark.parametrize("policy", [STATEFUL_SERVER, STATELESS_SERVER, LOSSLESS_PEER])
@pytest.mark.parametrize("connect_seq", [0, 3])
def test_one_more_is_refused_and_who_is_there_notices_nothing(
    policy: Policy, connect_seq: int
) -> None:
    talk = full(policy)
    session = talk.session
    assert_refused(talk, asks(talk, connect_seq, addr=OTHER))
    assert talk.session is session
    assert state_of(session) is State.OPEN


def test_who_waits_for_a_reconnect_keeps_its_place_and_takes_it() -> None:
    talk = full(STATEFUL_SERVER)
    first = next(iter(talk.lines.values()))
    first.says(message(1))
    first.breaks()
    talk.faults.clear()
    assert_refused(talk, asks(talk, addr=OTHER))
    line = asks(talk, 2)
    assert [answer.tag for answer in line.replies()] == [Tag.SEQ]
    assert line.in_seq == 1
    line.says(encode_seq(0))
    assert state_of(talk.session) is State.OPEN


def test_a_peer_that_began_anew_replaces_its_session() -> None:
    talk = full(STATEFUL_SERVER)
    line = asks(talk)
    assert [answer.tag for answer in line.replies()] == [Tag.READY]
    assert talk.told() == [EventKind.REMOTE_RESET, EventKind.ACCEPT]
    assert len(talk.endpoint.registry) == 1


def test_a_registered_lossy_client_replaces_its_session() -> None:
    talk = full(STATELESS_REGISTERED_SERVER)
    line = asks(talk)
    assert [answer.tag for answer in line.replies()] == [Tag.SEQ]
    assert len(talk.endpoint.registry) == 1


def test_a_lossy_client_that_is_not_registered_is_one_more_each_time() -> None:
    talk = full(STATELESS_SERVER)
    assert_refused(talk, asks(talk))


def test_sessions_of_our_own_are_counted_and_never_refused() -> None:
    talk = full(LOSSLESS_PEER_REUSE)
    talk.connect(Target("10.0.0.3", 6801))
    assert len(talk.endpoint.registry) == 2
    talk.connect(Target(PEER.host, PEER.port))
    line = asks(talk, 0, 1, PEER)
    assert line.heard() != b"", "we connect to it already"
    assert talk.faults == []


def test_there_is_room_when_a_session_ends_or_the_limit_is_raised() -> None:
    talk = full(STATEFUL_SERVER)
    assert_refused(talk, asks(talk, addr=OTHER))
    talk.endpoint.max_sessions = 2
    assert [answer.tag for answer in asks(talk, addr=OTHER).replies()] == [Tag.READY]
    talk.endpoint.max_sessions = 1
    assert len(talk.endpoint.registry) == 2, "nobody has to go"
    for session in talk.endpoint.registry:
        talk.endpoint.mark_down(session)
    assert [answer.tag for answer in asks(talk).replies()] == [Tag.READY]
