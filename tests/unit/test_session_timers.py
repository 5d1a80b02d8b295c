"""What time does to sessions: keepalives, silence, handshake deadlines, WAIT, STANDBY."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpmsgr.session.actions import EventKind
from mpmsgr.session.endpoint import Timing
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSLESS_PEER,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    Policy,
    default_policies,
)
from mpmsgr.session.session import Pause
from mpmsgr.session.states import State
from mpmsgr.wire.features import MSGR_KEEPALIVE2, RECONNECT_SEQ, SUPPORTED
from mpmsgr.wire.name import EntityType
from mpmsgr.wire.v1.frames import KEEPALIVE, encode_keepalive2_ack
from mpmsgr.wire.v1.handshake import BANNER, encode_seq, encode_server_hello
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import (
    CLIENT,
    PEER,
    SOCKET,
    START,
    Dialogue,
    Line,
    connect,
    message,
    reply,
    state_of,
)

WATCHED = replace(STATEFUL_SERVER, keepalive_period_s=10.0, keepalive_timeout_s=30.0)
PING = encode_keepalive2_ack((1, 1))


def serving(policy: Policy = WATCHED, **fields: Any) -> tuple[Dialogue, Line]:
    talk = Dialogue(policy)
    line = talk.open_incoming(**fields)
    line.heard()
    talk.told()
    return talk, line


# keepalives of an open session


def test_a_silent_peer_is_asked_each_period_and_given_up_in_the_end() -> None:
    talk, line = serving()
    asked = []
    for second in range(1, 40):
        talk.until(START + second)
        if line.heard():
            asked.append(second)
        if line.closed:
            break
    assert asked == [10, 20]
    assert second == 30
    assert "not a byte" in talk.faults[-1].cause
    assert talk.session.state is State.STANDBY


def test_every_byte_counts_as_life() -> None:
    talk, line = serving()
    frame = message(1)
    for at in range(len(frame)):
        talk.turn(9.0)
        line.says(frame[at : at + 1])
    assert not line.closed
    assert talk.delivered == [1]


def test_a_peer_that_answers_lives_for_ever() -> None:
    talk, line = serving()
    asked = 0
    for _ in range(500):
        talk.turn(1.0)
        if line.heard():
            asked += 1
            line.says(PING)
    assert not line.closed
    assert asked == 50


def test_traffic_makes_asking_needless() -> None:
    talk, line = serving()
    for seq in range(1, 30):
        talk.turn(7.0)
        line.says(message(seq))
    talk.turn(1.0)
    assert set(line.tags()) == {"ACK 29"} | {f"ACK {seq}" for seq in range(1, 29)}


def test_silence_of_a_peer_that_cannot_answer_proves_nothing() -> None:
    talk, line = serving(features=SUPPORTED & ~MSGR_KEEPALIVE2)
    talk.turn(100.0)
    assert not line.closed
    assert line.heard() == KEEPALIVE * 10
    talk.turn(900.0)
    assert line.closed  # the idle timeout


def test_periods_that_floats_do_not_hit_exactly() -> None:
    policy = replace(STATEFUL_SERVER, keepalive_period_s=0.1, keepalive_timeout_s=0.3)
    for start in (0.1, 0.7, 1.1, 16383.9, 12345.678):
        talk = Dialogue(policy)
        talk.now = start
        line = talk.open_incoming()
        line.heard()
        talk.until(start + 0.29)
        assert len(line.tags()) == 2
        talk.until(start + 0.31)
        assert line.closed


def test_the_idle_timeout_asks_nothing() -> None:
    talk, line = serving(replace(STATEFUL_SERVER, idle_timeout_s=5.0))
    talk.turn(4.9)
    assert not line.closed
    talk.turn(0.2)
    assert line.closed
    assert line.written == b""


def test_all_of_it_can_be_switched_off() -> None:
    talk, line = serving(replace(STATEFUL_SERVER, idle_timeout_s=0.0))
    talk.turn(1e6)
    assert not line.closed


def test_a_session_that_we_paused_is_not_timed_out_and_hears_from_us() -> None:
    talk, line = serving()
    talk.turn(5.0)
    talk.session.paused = Pause.DISPATCH
    asked = 0
    for _ in range(100):
        talk.turn(1.0)
        asked += bool(line.heard())
    assert not line.closed
    assert asked in (9, 10)
    talk.session.paused = Pause(0)
    talk.session.last_received = talk.now  # as the driver says when it goes on
    talk.turn(29.0)
    assert not line.closed
    talk.turn(3.0)
    assert line.closed


def test_a_session_that_we_paused_hears_from_us_even_where_the_policy_asks_nothing() -> None:
    talk, line = serving(replace(STATEFUL_SERVER, idle_timeout_s=25.0))
    talk.turn(5.0)
    talk.session.paused = Pause.DISPATCH
    talk.endpoint.paused(talk.session, talk.now)
    asked = []
    for second in range(1, 101):
        talk.turn(1.0)
        asked += [second] if line.heard() else []
    assert not line.closed
    assert asked == list(range(10, 101, 10))
    talk.session.paused = Pause(0)
    talk.turn(26.0)
    assert line.closed


def test_a_session_that_has_no_room_is_not_read_from_a_new_socket_either() -> None:
    talk, line = serving()
    talk.session.paused = Pause.DISPATCH | Pause.UNREAD
    line.breaks()
    line = talk.open_incoming(connect_seq=2, global_seq=2)
    assert talk.still_paused == [talk.session]
    assert talk.session.paused == Pause.DISPATCH


def test_nor_is_what_comes_in_one_piece_with_the_handshake() -> None:
    talk, line = serving()
    talk.session.paused = Pause.DISPATCH
    line.breaks()
    line, features = talk.accept(), SUPPORTED & ~RECONNECT_SEQ
    line.says(BANNER, CLIENT.encode(), connect(2, 2, features=features), message(1), message(2))
    line.says(message(3))
    line.pipe.read_on(talk.now)
    assert (talk.session.in_seq, talk.delivered) == (0, [])
    talk.session.paused = Pause(0)
    line.pipe.read_on(talk.now)
    talk.execute()
    assert talk.session.in_seq == 3
    line.says(message(4))
    assert talk.session.in_seq == 4


def test_a_parked_session_is_not_woken_by_its_keepalives() -> None:
    policy = replace(LOSSLESS_PEER, keepalive_period_s=10.0, keepalive_timeout_s=30.0)
    talk = Dialogue(policy)
    talk.connect()
    line = talk.open_outgoing()
    talk.turn(3.0)
    line.breaks()
    assert talk.session.state is State.STANDBY
    talk.turn(200.0)
    assert talk.session.state is State.STANDBY
    assert len(talk.dials) == 1


def test_a_dead_server_is_noticed_without_traffic() -> None:
    policy = replace(LOSSLESS_CLIENT, keepalive_period_s=10.0, keepalive_timeout_s=30.0)
    talk = Dialogue(policy, port=0)
    session = talk.connect()
    talk.open_outgoing()
    talk.turn(30.0)
    assert session.state is State.CONNECTING
    assert (session.connect_seq, len(talk.dials)) == (2, 2)


def test_our_endpoints_watch_each_other_and_leave_ceph_alone() -> None:
    for own, peer in [
        (EntityType.SERVICE, EntityType.CLIENT),
        (EntityType.CLIENT, EntityType.SERVICE),
        (EntityType.SERVICE, EntityType.SERVICE),
    ]:
        assert default_policies(own).of(peer).keepalive_period_s > 0
    for own in (EntityType.CLIENT, EntityType.SERVICE, EntityType.MON, EntityType.OSD):
        assert default_policies(own).of(EntityType.MON).keepalive_period_s == 0


# deadlines of handshakes

CLIENT_SAYS = BANNER + CLIENT.encode() + connect().encode()
SERVER_SAYS = encode_server_hello(PEER, SOCKET) + reply(Tag.SEQ, 1, 1).encode() + encode_seq(0)


@pytest.mark.parametrize("timeout_s", [0.5, 10.0])
def test_a_client_that_stops_at_any_byte_is_dropped_on_time(timeout_s: float) -> None:
    for size in range(len(CLIENT_SAYS)):
        talk = Dialogue(STATEFUL_SERVER, timing=Timing(handshake_timeout_s=timeout_s))
        line = talk.accept()
        line.says(CLIENT_SAYS[:size])
        talk.turn(timeout_s * 0.99)
        assert not line.closed, size
        talk.turn(timeout_s * 0.02)
        assert line.closed, size
        assert not talk.endpoint.registry.pipes
        assert "handshake" in talk.faults[-1].cause
        assert talk.told() == []


def test_a_client_that_dribbles_is_dropped_on_time_as_well() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    line = talk.accept()
    for at in range(len(CLIENT_SAYS)):
        line.says(CLIENT_SAYS[at : at + 1])
        talk.turn(0.1)
        if line.closed:
            break
    assert talk.now == pytest.approx(START + 10.0)


def test_a_server_that_stops_at_any_byte_is_left_on_time() -> None:
    for size in range(len(SERVER_SAYS)):
        talk = Dialogue(LOSSLESS_CLIENT, port=0)
        session = talk.connect()
        line = talk.dialled()
        line.says(SERVER_SAYS[:size])
        talk.turn(9.9)
        assert not line.closed, size
        talk.turn(0.2)
        assert line.closed, size
        assert session.state is State.CONNECTING
        assert len(talk.dials) == 2


def test_a_dial_that_nobody_answers_is_given_up_on_time() -> None:
    talk = Dialogue(LOSSY_CLIENT, port=0)
    talk.connect()
    talk.turn(9.9)
    assert len(talk.dials) == 1
    talk.turn(0.2)
    assert len(talk.dials) == 2


def test_the_deadline_ends_with_the_handshake() -> None:
    talk, line = serving(STATEFUL_SERVER)
    talk.turn(100.0)
    assert not line.closed
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    talk.connect()
    line = talk.open_outgoing()
    talk.turn(100.0)
    assert not line.closed


@pytest.mark.parametrize("sent", range(8))
def test_a_takeover_that_stops_in_the_seq_exchange_is_dropped_on_time(sent: int) -> None:
    talk, line = serving(STATEFUL_SERVER)
    line.breaks()
    line = talk.accept()
    line.says(BANNER, CLIENT.encode(), connect(2, 2), encode_seq(0)[:sent])
    assert state_of(talk.session) is State.OPEN
    talk.turn(10.1)
    assert line.closed
    assert state_of(talk.session) is State.STANDBY


def test_a_refused_client_has_no_more_time_than_others() -> None:
    talk = Dialogue(STATEFUL_SERVER, protocol_version=9)
    line = talk.accept()
    line.says(BANNER, CLIENT.encode())
    for _ in range(11):
        line.says(connect())
        talk.turn(1.0)
    assert line.closed


# WAIT


def told_to_wait() -> tuple[Dialogue, Line]:
    talk = Dialogue(LOSSLESS_PEER)
    session = talk.connect()
    talk.send(session, 1)
    line = talk.dialled()
    line.says(encode_server_hello(PEER, SOCKET), reply(Tag.WAIT))
    assert session.state is State.WAIT
    return talk, line


def test_if_the_winner_does_not_come_we_try_again() -> None:
    talk, line = told_to_wait()
    talk.turn(14.9)
    assert (talk.session.state, line.closed) == (State.WAIT, False)  # no handshake deadline
    talk.turn(0.2)
    assert (talk.session.state, line.closed) == (State.CONNECTING, True)
    assert talk.session.connect_seq == 0
    assert len(talk.dials) == 2


def test_losing_the_socket_does_not_shorten_the_wait() -> None:
    talk, line = told_to_wait()
    talk.turn(5.0)
    line.breaks()
    assert talk.session.state is State.WAIT
    talk.send(talk.session, 2)
    talk.turn(9.9)
    assert len(talk.dials) == 1
    talk.turn(0.2)
    assert len(talk.dials) == 2
    line = talk.open_outgoing()
    assert line.tags() == ["MSG 1", "MSG 2"]


def test_a_winner_that_comes_ends_the_wait() -> None:
    talk, _ = told_to_wait()
    talk.turn(5.0)
    line = talk.open_incoming(addr=PEER)
    talk.turn(20.0)
    assert talk.session.state is State.OPEN
    assert not line.closed
    assert len(talk.dials) == 1


# STANDBY


def test_a_parked_session_is_given_up_in_the_end_and_names_what_was_dropped() -> None:
    talk, line = serving(replace(STATEFUL_SERVER, standby_timeout_s=60.0))
    session = talk.session
    talk.send(session, 5)
    line.breaks()
    talk.send(session, 6)
    talk.turn(59.9)
    assert talk.told() == []
    talk.turn(0.2)
    (event,) = talk.events
    assert (event.kind, event.lost) == (EventKind.RESET, (5, 6))
    assert "60 s" in event.cause
    assert session.state is State.CLOSED
    line = talk.accept()
    line.heard()
    line.says(BANNER, CLIENT.encode(), connect(2, 2))
    (answer,) = line.replies()
    assert answer.tag == Tag.RESETSESSION


def test_who_comes_back_in_time_starts_the_clock_anew() -> None:
    talk, line = serving(replace(STATEFUL_SERVER, standby_timeout_s=60.0))
    for attempt in range(1, 6):
        line.breaks()
        talk.turn(50.0)
        line = talk.open_incoming(2 * attempt, attempt + 1)
    talk.turn(100.0)
    assert talk.session.state is State.OPEN


def test_parked_for_ever_if_so_configured() -> None:
    talk, line = serving(replace(STATEFUL_SERVER, standby_timeout_s=0.0))
    line.breaks()
    talk.turn(1e6)
    assert talk.session.state is State.STANDBY


def test_300_s_unless_told_otherwise() -> None:
    assert default_policies(EntityType.SERVICE).of(EntityType.CLIENT).standby_timeout_s == 300.0
