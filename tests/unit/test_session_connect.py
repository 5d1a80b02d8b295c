"""The connecting side (session spec §3): every reply tag with its action, and who may answer."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from mpmsgr.session.actions import EventKind
from mpmsgr.session.auth import Authorizer, NoAuthentication
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSLESS_PEER,
    LOSSLESS_PEER_REUSE,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
)
from mpmsgr.session.session import Session, Target
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import MSG_AUTH, MSGR_KEEPALIVE2, NOSRCADDR, RECONNECT_SEQ, SUPPORTED
from mpmsgr.wire.name import EntityType
from mpmsgr.wire.v1.handshake import BANNER, FLAG_LOSSY, Reply, encode_seq, encode_server_hello
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import CLIENT, PEER, SOCKET, TARGET, Dialogue, Line, message, reply, state_of

HELLO = encode_server_hello(PEER, SOCKET)


class Attempt(NamedTuple):
    """A session that has proposed itself and waits for the answer."""

    talk: Dialogue
    session: Session
    line: Line


@pytest.fixture
def attempt() -> Attempt:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    session = talk.connect()
    line = talk.dialled()
    line.says(HELLO)
    (proposal,) = talk.proposals(line)
    assert (proposal.connect_seq, proposal.global_seq) == (0, 1)
    return Attempt(talk, session, line)


def reconnecting(policy: object = LOSSLESS_CLIENT) -> Attempt:
    """The same after a first session in which 3 messages were sent and 2 received."""
    talk = Dialogue(policy, port=0)  # type: ignore[arg-type]
    session = talk.connect()
    line = talk.open_outgoing()
    talk.send(session, 1, 2, 3)
    line.heard()
    line.says(message(1), message(2))
    line.breaks()
    line = talk.dialled()
    line.says(HELLO)
    (proposal,) = talk.proposals(line)
    assert (proposal.connect_seq, proposal.global_seq) == (2, 2)
    talk.told()
    return Attempt(talk, session, line)


# before the reply


def test_the_client_says_hello_at_once_and_proposes_when_it_knows_its_address() -> None:
    talk = Dialogue(LOSSY_CLIENT, port=0)
    talk.connect()
    line = talk.dialled()
    assert line.heard() == BANNER
    line.says(HELLO[:280])
    assert line.heard() == b""
    line.says(HELLO[280:])
    learned = EntityAddr.of("10.0.0.2", 0, 77)  # the socket's ip, own port and nonce
    assert talk.endpoint.addr == learned
    assert line.heard() == learned.encode() + bytes.fromhex(
        "4200800000040000 08000000 01000000 00000000 00000000 00000000 00000000 01"
    )


def test_a_lossless_client_proposes_without_the_flag() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    talk.connect()
    line = talk.dialled()
    line.says(HELLO)
    (proposal,) = talk.proposals(line)
    assert proposal.flags == 0
    assert proposal.host_type == EntityType.CLIENT


def test_a_known_own_ip_is_kept() -> None:
    talk = Dialogue(LOSSLESS_PEER)
    talk.connect()
    talk.dialled().says(encode_server_hello(PEER, EntityAddr.of("192.0.2.9", 5)))
    assert talk.endpoint.addr.host == "10.0.0.1"


def test_a_wrong_banner_ends_the_attempt() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    talk.connect()
    line = talk.dialled()
    line.says(b"ceph v0")
    assert not line.closed
    line.says(b"42")
    assert line.closed
    assert talk.faults[-1].hostile


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_any_chunking(size: int) -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    session = talk.connect()
    line = talk.dialled()
    stream = HELLO + reply(Tag.SEQ, 1, 9).encode() + encode_seq(0) + message(1) + message(2)
    for at in range(0, len(stream), size):
        line.says(stream[at : at + size])
    assert session.state is State.OPEN
    assert talk.delivered == [1, 2]


# each tag


def test_ready(attempt: Attempt) -> None:
    talk, session, line = attempt
    line.says(reply(Tag.READY, connect_seq=1, global_seq=9))
    assert talk.told() == [EventKind.CONNECT]
    assert (session.state, session.connect_seq, session.peer_global_seq) == (State.OPEN, 1, 9)
    assert not session.lossy
    assert session.features == SUPPORTED
    assert talk.endpoint.registry.find(PEER) is session


def test_features_are_what_both_have(attempt: Attempt) -> None:
    _talk, session, line = attempt
    line.says(reply(Tag.READY, 1, 9, features=NOSRCADDR | 1 << 50))
    assert session.features == NOSRCADDR


def test_the_server_decides_who_is_lossy(attempt: Attempt) -> None:
    talk, session, line = attempt
    line.says(reply(Tag.READY, 1, 9, flags=FLAG_LOSSY))
    assert session.lossy
    line.breaks()
    assert session.state is State.CLOSED
    talk = Dialogue(LOSSY_CLIENT, port=0)
    session = talk.connect()
    talk.open_outgoing(reply(Tag.READY, 1, 9))
    assert not session.lossy


@pytest.mark.parametrize("connect_seq", [0, 2, 0xFFFFFFFF])
def test_ready_with_another_connect_seq_is_a_fault(attempt: Attempt, connect_seq: int) -> None:
    talk, session, line = attempt
    line.says(reply(Tag.READY, connect_seq, 9))
    assert "reply.connect_seq" in talk.faults[-1].cause
    assert session.state is State.CONNECTING


@pytest.mark.parametrize("tag", [Tag.READY, Tag.SEQ])
def test_a_server_without_a_required_feature_is_refused(tag: Tag) -> None:
    talk = Dialogue(replace(LOSSLESS_CLIENT, features_required=MSGR_KEEPALIVE2), port=0)
    session = talk.connect()
    line = talk.open_outgoing(reply(tag, 1, 9, features=NOSRCADDR))
    assert line.closed
    assert "MSGR_KEEPALIVE2" in talk.faults[-1].cause
    assert session.state is State.CONNECTING


def test_seq_as_the_very_first_reply(attempt: Attempt) -> None:
    talk, session, line = attempt
    talk.send(session, 7)
    line.says(reply(Tag.SEQ, 1, 9))
    assert state_of(session) is State.CONNECTING
    line.says(encode_seq(0))
    assert state_of(session) is State.OPEN
    assert line.heard()[:8] == encode_seq(0)
    assert session.outbox.out_seq == 1


def test_seq_exchange() -> None:
    talk, session, line = reconnecting()
    talk.send(session, 4)
    line.says(reply(Tag.SEQ, 3, 9), encode_seq(2))
    assert talk.told() == [EventKind.CONNECT]
    heard = line.heard()
    assert heard[:8] == encode_seq(2)  # our own in_seq
    line.written = heard[8:]
    assert line.tags() == ["MSG 3", "MSG 4"]
    assert [parcel.tid for parcel in session.outbox.sent] == [3, 4]


def test_ready_on_a_reconnect_means_that_all_is_resent() -> None:
    talk, _session, line = reconnecting()
    line.says(reply(Tag.READY, 3, 9))
    assert line.tags() == ["ACK 2", "MSG 1", "MSG 2", "MSG 3"]
    line.says(message(2), message(3))  # and a server does the same
    assert talk.delivered == [1, 2, 3]


def test_a_seq_that_was_never_sent_is_a_fault_and_the_next_attempt_begins_anew() -> None:
    talk, session, line = reconnecting()
    line.says(reply(Tag.SEQ, 3, 9), encode_seq(4))
    assert "in_seq is 4" in talk.faults[-1].cause
    assert talk.told() == []
    assert session.outbox.queued == 3
    line = talk.dialled()
    line.says(HELLO)
    (proposal,) = talk.proposals(line)
    assert proposal.connect_seq == 0


def test_resetsession_drops_the_queues_and_connects_anew_on_the_same_socket() -> None:
    talk, session, line = reconnecting()
    line.says(reply(Tag.RESETSESSION))
    (event,) = talk.events
    assert (event.kind, event.lost) == (EventKind.REMOTE_RESET, (1, 2, 3))
    (proposal,) = line.connects()
    assert (proposal.connect_seq, proposal.global_seq) == (0, 2)
    assert (session.connect_seq, session.in_seq, session.in_seq_acked) == (0, 0, 0)
    line.says(reply(Tag.READY, 1, 9), message(1))
    assert session.state is State.OPEN
    assert talk.delivered == [1, 2, 1]


def test_out_seq_is_random_after_a_reset_if_the_connection_had_msg_auth() -> None:
    _, session, line = reconnecting()
    line.says(reply(Tag.RESETSESSION))
    assert 0 < session.outbox.out_seq < 1 << 31
    _talk, session, line = reconnecting(replace(LOSSLESS_CLIENT, features_supported=RECONNECT_SEQ))
    line.says(reply(Tag.RESETSESSION))
    assert session.outbox.out_seq == 0


def test_acks_go_on_after_a_reset() -> None:
    talk, _session, line = reconnecting()
    line.says(reply(Tag.RESETSESSION), reply(Tag.READY, 1, 9), message(1))
    line.heard()
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]


def test_retry_global_any_number_of_times(attempt: Attempt) -> None:
    _talk, session, line = attempt
    for known in (5, 6, 100, 3):
        line.says(reply(Tag.RETRY_GLOBAL, global_seq=known))
        (proposal,) = line.connects()
        assert proposal.global_seq > known
        assert proposal.connect_seq == 0
    assert proposal.global_seq == 102  # the counter never goes back
    line.says(reply(Tag.READY, 1, 9))
    assert session.state is State.OPEN


def test_retry_session() -> None:
    _talk, session, line = reconnecting()
    line.says(reply(Tag.RETRY_SESSION, connect_seq=7))
    (proposal,) = line.connects()
    assert proposal.connect_seq == session.connect_seq == 7
    line.says(reply(Tag.SEQ, 8, 9), encode_seq(3))
    assert (session.state, session.connect_seq) == (State.OPEN, 8)


@pytest.mark.parametrize("connect_seq", [0, 1, 2])
def test_retry_session_must_go_up(connect_seq: int) -> None:
    talk, session, line = reconnecting()
    line.says(reply(Tag.RETRY_SESSION, connect_seq))
    assert line.closed
    assert talk.faults[-1].hostile
    assert session.connect_seq == 2


def test_wait_keeps_the_socket_until_somebody_takes_over() -> None:
    talk = Dialogue(LOSSLESS_PEER)
    session = talk.connect()
    line = talk.dialled()
    line.says(HELLO, reply(Tag.WAIT))
    assert session.state is State.WAIT
    assert not line.closed
    taken = talk.open_incoming(addr=PEER, host_type=EntityType.SERVICE)
    assert line.closed
    assert session.state is State.OPEN
    assert session.pipe is taken.pipe
    assert talk.told() == [EventKind.ACCEPT]


def test_after_wait_nothing_more_may_be_said() -> None:
    talk = Dialogue(LOSSLESS_PEER)
    session = talk.connect()
    line = talk.dialled()
    line.says(HELLO, reply(Tag.WAIT), reply(Tag.READY, 1, 1))
    assert talk.faults[-1].hostile
    assert session.state is State.WAIT


def test_features_and_badprotover_are_faults_with_backoff(attempt: Attempt) -> None:
    talk, session, line = attempt
    line.says(reply(Tag.FEATURES, features=SUPPORTED | 1 << 5))
    assert "FEATURES" in talk.faults[-1].cause
    assert "MONNAMES" in talk.faults[-1].cause
    line = talk.dialled()
    line.says(HELLO, reply(Tag.BADPROTOVER, protocol_version=15))
    assert "speaks version 15" in talk.faults[-1].cause
    assert session.state is State.CONNECTING
    assert talk.told() == []
    assert len(talk.dials) == 2  # the third one waits
    talk.until_dial()
    assert talk.dial_times[-1] == pytest.approx(talk.dial_times[0] + 0.2)


@pytest.mark.parametrize("tag", [0, 6, 7, 8, 9, 14, 15, 17, 255])
def test_no_reply_tag(attempt: Attempt, tag: int) -> None:
    attempt.line.says(Reply(tag).encode())
    assert attempt.line.closed
    assert attempt.talk.faults[-1].hostile


# authorizers


class Keys(NoAuthentication):
    """Presents numbered authorizers; answers challenges if it knows how."""

    def __init__(self, *, knows: bool = True, believes: bool = True) -> None:
        self.knows, self.believes = knows, believes
        self.asked: list[bool] = []

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        self.asked.append(force_new)
        return Authorizer(2, b"key %d" % len(self.asked))

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        return Authorizer(2, b"answer to " + challenge) if self.knows else None

    def verify_reply(self, peer_type: int, reply: bytes) -> bool:
        return self.believes


def proposing(keys: Keys) -> Attempt:
    talk = Dialogue(LOSSLESS_CLIENT, port=0, authenticator=keys)
    session = talk.connect()
    line = talk.dialled()
    line.says(HELLO)
    (proposal,) = talk.proposals(line)
    assert (proposal.authorizer_protocol, proposal.authorizer) == (2, b"key 1")
    return Attempt(talk, session, line)


def test_a_bad_authorizer_is_renewed_once_on_the_same_socket() -> None:
    keys = Keys()
    talk, _, line = proposing(keys)
    line.says(reply(Tag.BADAUTHORIZER))
    (proposal,) = line.connects()
    assert proposal.authorizer == b"key 2"
    assert keys.asked == [False, True]
    line.says(reply(Tag.BADAUTHORIZER))
    assert line.closed
    assert "BADAUTHORIZER" in talk.faults[-1].cause
    assert not talk.faults[-1].hostile


def test_a_challenge_is_answered() -> None:
    _talk, session, line = proposing(Keys())
    line.says(reply(Tag.CHALLENGE_AUTHORIZER, authorizer=b"riddle"))
    (proposal,) = line.connects()
    assert proposal.authorizer == b"answer to riddle"
    line.says(reply(Tag.READY, 1, 9))
    assert session.state is State.OPEN


def test_a_challenge_without_an_answer_ends_the_attempt() -> None:
    talk, _, line = proposing(Keys(knows=False))
    line.says(reply(Tag.CHALLENGE_AUTHORIZER, authorizer=b"riddle"))
    assert line.closed
    assert "CHALLENGE_AUTHORIZER" in talk.faults[-1].cause


def test_a_server_that_proves_nothing_is_refused() -> None:
    _talk, session, line = proposing(Keys(believes=False))
    line.says(reply(Tag.READY, 1, 9, authorizer=b"trust me"))
    assert line.closed
    assert session.state is State.CONNECTING


def test_each_attempt_asks_for_an_authorizer() -> None:
    keys = Keys()
    talk, _, line = proposing(keys)
    line.breaks()
    talk.dialled()
    assert keys.asked == [False, False]


# who answers


def announce(addr: EntityAddr, target: Target = TARGET, **options: bool) -> Attempt:
    """The server at PEER's place announces *addr*."""
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    session = talk.connect(target, **options)
    line = talk.dialled()
    line.says(encode_server_hello(addr, SOCKET))
    return Attempt(talk, session, line)


@pytest.mark.parametrize(
    "addr",
    [
        EntityAddr.of("10.0.0.3", 6801, 88),
        EntityAddr.of("10.0.0.2", 6802, 88),
        EntityAddr(port=6802, nonce=88),
    ],
)
def test_a_wrong_peer_is_refused_unless_told_otherwise(addr: EntityAddr) -> None:
    talk, session, line = announce(addr)
    assert line.closed
    assert "wrong peer" in talk.faults[-1].cause
    assert not talk.faults[-1].hostile
    talk, session, line = announce(addr, verify_address=False)
    line.says(reply(Tag.READY, 1, 9))
    assert session.state is State.OPEN
    assert session.peer_addr == (addr if addr.ip else addr.with_ip_of(PEER))


@pytest.mark.parametrize("ip", [EntityAddr(), EntityAddr.of("0.0.0.0", 0), EntityAddr.of("::", 0)])
def test_a_blank_ip_is_the_one_that_was_dialled(ip: EntityAddr) -> None:
    _talk, session, line = announce(ip._replace(port=6801, nonce=88))
    line.says(reply(Tag.READY, 1, 9))
    assert session.peer_addr == PEER


def test_a_nonce_that_was_given_must_be_announced() -> None:
    talk, session, line = announce(PEER, Target("10.0.0.2", 6801, 88))
    line.says(reply(Tag.READY, 1, 9))
    assert session.state is State.OPEN
    talk, session, line = announce(PEER, Target("10.0.0.2", 6801, 0))
    assert line.closed
    assert "nonce 0 wanted" in talk.faults[-1].cause
    talk, session, line = announce(PEER, Target("10.0.0.2", 6801, 7), verify_address=False)
    assert line.closed


def test_without_a_nonce_the_announced_one_is_learned(attempt: Attempt) -> None:
    talk, session, _line = attempt
    assert session.peer_addr == PEER
    assert talk.endpoint.registry.find(PEER) is session


def test_another_nonce_on_a_reconnect_is_a_remote_reset() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    session = talk.connect()
    line = talk.open_outgoing()
    talk.send(session, 1, 2)
    line.heard()
    line.breaks()
    talk.told()
    line = talk.dialled()
    renewed = PEER._replace(nonce=89)
    line.says(encode_server_hello(renewed, SOCKET))
    (event,) = talk.events
    assert (event.kind, event.lost) == (EventKind.REMOTE_RESET, (1, 2))
    (proposal,) = talk.proposals(line)
    assert proposal.connect_seq == 0
    line.says(reply(Tag.READY, 1, 9))
    assert session.state is State.OPEN
    assert talk.endpoint.registry.find(PEER) is None
    assert talk.endpoint.registry.find(renewed) is session


def test_the_nonce_of_a_session_that_its_peer_opened_may_change_as_well() -> None:
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    line = talk.open_incoming(addr=PEER)
    talk.send(talk.session, 1)
    line.breaks()
    talk.told()
    talk.dialled().says(encode_server_hello(PEER._replace(nonce=89), SOCKET))
    assert talk.told() == [EventKind.REMOTE_RESET]


def test_a_second_way_to_the_same_service_is_given_up() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    first = talk.connect()
    talk.open_outgoing()
    second = talk.connect(Target("a.name.of.it", 6801))
    talk.send(second, 5)
    talk.told()
    line = talk.dialled()
    line.says(HELLO)
    (event,) = talk.events
    assert (event.kind, event.session, event.lost) == (EventKind.RESET, second, (5,))
    assert line.closed
    assert first.state is State.OPEN


# which session


def test_one_session_for_one_target() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    session = talk.connect()
    assert talk.connect() is session
    talk.open_outgoing()
    assert talk.connect(Target("10.0.0.2", 6801, 88)) is session
    assert talk.connect(Target("10.0.0.2", 6801, 89)) is not session


def test_a_session_that_the_peer_opened_is_used() -> None:
    talk = Dialogue(LOSSLESS_PEER)
    talk.open_incoming(addr=PEER)
    assert talk.connect() is talk.session
    assert talk.dials == []


def test_a_session_that_is_over_is_not_found() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    first = talk.connect()
    talk.endpoint.mark_down(first)
    assert talk.connect() is not first


def test_a_server_policy_never_connects() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    with pytest.raises(ValueError, match="never connects"):
        talk.connect()
    talk.open_incoming(addr=PEER)
    assert talk.connect() is talk.session  # but it may speak to who has come


def test_a_socket_that_comes_too_late_is_not_used() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    session = talk.connect()
    talk.endpoint.mark_down(session)
    line = talk.dialled()
    assert line.heard() == b""
    line.says(HELLO)
    assert talk.faults == []


def test_the_session_names_its_peers_address_in_old_headers() -> None:
    talk = Dialogue(replace(LOSSLESS_CLIENT, features_supported=MSG_AUTH), port=0)
    session = talk.connect()
    line = talk.open_outgoing(reply(Tag.READY, 1, 9))
    talk.send(session, 1)
    assert PEER.encode() in line.heard()


def test_facts_of_the_handshake_are_kept_for_people(attempt: Attempt) -> None:
    _talk, session, line = attempt
    line.says(reply(Tag.READY, 1, 9, protocol_version=4))
    facts = session.handshake
    assert facts is not None
    assert (facts.announced, facts.seen, facts.tag) == (PEER, SOCKET, "READY")
    assert (facts.connect_seq, facts.global_seq, facts.protocol_version) == (1, 9, 4)
    assert facts.own == CLIENT._replace(nonce=77)
