"""The accepting side (session spec §4 to §7): refusals, each row through the wire, replacing."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from mpmsgr.session.actions import EventKind
from mpmsgr.session.auth import NoAuthentication, Verification
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSLESS_PEER,
    LOSSLESS_PEER_REUSE,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    STATELESS_REGISTERED_SERVER,
    STATELESS_SERVER,
)
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import (
    MSG_ADDR2,
    MSG_AUTH,
    MSGR_KEEPALIVE2,
    NOSRCADDR,
    RECONNECT_SEQ,
    SUPPORTED,
)
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import EntityName, EntityType
from mpmsgr.wire.v1.handshake import (
    BANNER,
    FLAG_LOSSY,
    Connect,
    encode_seq,
    encode_server_hello,
)
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import (
    CLIENT,
    OWN,
    PEER,
    SOCKET,
    Dialogue,
    Line,
    connect,
    message,
    reply,
    state_of,
)

HELLO = BANNER + CLIENT.encode()
U32 = 0xFFFFFFFF


def greeted(talk: Dialogue, addr: EntityAddr = CLIENT) -> Line:
    """A socket on which both have said who they are."""
    line = talk.accept()
    assert line.heard() == encode_server_hello(OWN, SOCKET)
    line.says(BANNER, addr.encode())
    assert line.heard() == b""
    return line


def answered(line: Line, proposal: Connect) -> Tag:
    """The tag of the only reply to *proposal*."""
    line.says(proposal)
    (answer,) = line.replies()
    return Tag(answer.tag)


# hello


def test_the_server_speaks_first_and_announces_what_it_is_told_to() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    advertised = EntityAddr.of("192.0.2.1", 7000, 77)
    line = talk.accept(own=advertised)
    assert line.heard() == encode_server_hello(advertised, SOCKET)


@pytest.mark.parametrize(
    "announced", [EntityAddr(nonce=88), EntityAddr.of("0.0.0.0", 0, 88), EntityAddr.of("::", 0, 88)]
)
def test_a_client_that_does_not_know_its_ip_has_that_of_its_socket(announced: EntityAddr) -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming(addr=announced)
    assert talk.session.peer_addr == CLIENT


def test_an_announced_ip_counts_even_if_the_socket_has_another() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    inside = EntityAddr.of("192.168.1.5", 0, 88)
    talk.open_incoming(addr=inside)
    assert talk.session.peer_addr == inside


# first session, byte by byte


def test_ready_bytes() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    line = greeted(talk)
    line.says(bytes.fromhex("4200800000040000 08000000 05000000 00000000 00000000"),
              bytes.fromhex("00000000 00000000 00"))  # fmt: skip
    assert line.heard() == bytes.fromhex(
        "01 4200800000040000 01000000 01000000 00000000 00000000 00"
    )
    session = talk.session
    assert talk.told() == [EventKind.ACCEPT]
    assert (session.state, session.connect_seq, session.peer_global_seq) == (State.OPEN, 1, 5)
    assert session.peer_type == EntityType.CLIENT
    assert talk.endpoint.registry.find(CLIENT) is session


def test_a_lossy_policy_is_told_in_the_flags() -> None:
    line = greeted(Dialogue(STATELESS_SERVER))
    line.says(connect(flags=0))
    (answer,) = line.replies()
    assert answer.flags == FLAG_LOSSY
    line = greeted(Dialogue(STATEFUL_SERVER))
    line.says(connect(flags=FLAG_LOSSY))  # informational
    (answer,) = line.replies()
    assert answer.flags == 0


def test_each_reply_takes_a_fresh_global_seq() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    seqs = []
    for nonce in (1, 2, 3):
        line = greeted(talk, CLIENT._replace(nonce=nonce))
        line.says(connect())
        seqs += [answer.global_seq for answer in line.replies()]
    assert seqs == [1, 2, 3]


def test_features_offered_and_negotiated() -> None:
    policy = replace(STATEFUL_SERVER, features_supported=NOSRCADDR | MSG_AUTH)
    talk = Dialogue(policy)
    line = greeted(talk)
    line.says(connect(features=NOSRCADDR | MSG_ADDR2))
    (answer,) = line.replies()
    assert answer.features == NOSRCADDR | MSG_AUTH  # the full supported mask
    assert talk.session.features == NOSRCADDR


def test_a_broken_feature_mask_counts_only_its_low_bits() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    line = greeted(talk)
    line.says(connect(features=1 << 63 | SUPPORTED))
    line.heard()
    assert talk.session.features == SUPPORTED & ~MSGR_KEEPALIVE2


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_any_chunking(size: int) -> None:
    talk = Dialogue(STATEFUL_SERVER)
    line = talk.accept()
    stream = HELLO + connect().encode() + message(1) + message(2)
    for at in range(0, len(stream), size):
        line.says(stream[at : at + size])
    assert talk.session.state is State.OPEN
    assert talk.delivered == [1, 2]


# refusals: the socket stays open for a corrected connect


def test_another_protocol_version() -> None:
    line = greeted(Dialogue(STATEFUL_SERVER, protocol_version=15))
    line.says(connect(protocol_version=24))
    (answer,) = line.replies()
    assert (answer.tag, answer.protocol_version) == (Tag.BADPROTOVER, 15)
    assert not line.closed
    assert answered(line, connect(protocol_version=15)) == Tag.READY


@pytest.mark.parametrize(
    ("own", "peer", "version"),
    [("mon.0", "client", 15), ("osd.0", "client", 24), ("osd.0", "osd", 10), ("mon.0", "mon", 13)],
)
def test_versions_of_ceph_names(own: str, peer: str, version: int) -> None:
    talk = Dialogue(STATELESS_SERVER)
    talk.endpoint.name = EntityName.parse(own)
    line = greeted(talk)
    host_type = EntityName.parse(f"{peer}.0").type
    assert answered(line, connect(host_type=host_type, protocol_version=1)) == Tag.BADPROTOVER
    assert answered(line, connect(host_type=host_type, protocol_version=version)) == Tag.READY


def test_missing_features() -> None:
    line = greeted(Dialogue(replace(STATEFUL_SERVER, features_required=MSG_AUTH)))
    line.says(connect(features=NOSRCADDR | MSG_ADDR2))
    (answer,) = line.replies()
    assert answer.tag == Tag.FEATURES
    assert answer.features == NOSRCADDR | MSG_AUTH  # (offered & supported) | required
    assert not line.closed
    assert answered(line, connect()) == Tag.READY


class Guard(NoAuthentication):
    """Wants the word "sesame", and before that the answer to a challenge if it has one."""

    def __init__(self, challenge: bytes = b"") -> None:
        self.challenge = challenge
        self.asked: list[tuple[int, bytes]] = []

    def verify_authorizer(
        self, connect: Connect, peer_addr: EntityAddr, challenge: bytes
    ) -> Verification:
        self.asked.append((connect.authorizer_protocol, connect.authorizer))
        if self.challenge and b"answer" not in connect.authorizer:
            return Verification(False, self.challenge, challenge=True)
        return Verification(b"sesame" in connect.authorizer, b"welcome")


def test_a_bad_authorizer() -> None:
    guard = Guard()
    line = greeted(Dialogue(STATEFUL_SERVER, authenticator=guard))
    assert answered(line, connect()) == Tag.BADAUTHORIZER
    assert guard.asked == [(0, b"")]  # asked even when there is none
    assert not line.closed
    line.says(connect(authorizer_protocol=2, authorizer=b"sesame"))
    (answer,) = line.replies()
    assert (answer.tag, answer.authorizer) == (Tag.READY, b"welcome")


def test_a_challenge_is_given_once() -> None:
    line = greeted(Dialogue(STATEFUL_SERVER, authenticator=Guard(b"riddle")))
    line.says(connect())
    (answer,) = line.replies()
    assert (answer.tag, answer.authorizer) == (Tag.CHALLENGE_AUTHORIZER, b"riddle")
    assert answered(line, connect()) == Tag.BADAUTHORIZER
    assert answered(line, connect(authorizer=b"answer: sesame")) == Tag.READY


@pytest.mark.parametrize("protocol", [0, 1])
def test_without_authentication_nothing_and_the_none_authorizer_will_do(protocol: int) -> None:
    line = greeted(Dialogue(STATEFUL_SERVER))
    assert answered(line, connect(authorizer_protocol=2)) == Tag.BADAUTHORIZER
    assert answered(line, connect(authorizer_protocol=protocol)) == Tag.READY


def test_refusals_come_in_the_order_of_the_spec() -> None:
    policy = replace(STATEFUL_SERVER, features_required=MSG_AUTH)
    line = greeted(Dialogue(policy, protocol_version=15, authenticator=Guard()))
    assert answered(line, connect(3, features=0)) == Tag.BADPROTOVER
    assert answered(line, connect(3, features=0, protocol_version=15)) == Tag.FEATURES
    assert answered(line, connect(3, protocol_version=15)) == Tag.BADAUTHORIZER
    sesame = connect(3, protocol_version=15, authorizer=b"sesame")
    assert answered(line, sesame) == Tag.RESETSESSION
    assert answered(line, sesame._replace(connect_seq=0)) == Tag.READY


def test_a_refused_client_leaves_nothing_behind() -> None:
    talk = Dialogue(STATEFUL_SERVER, protocol_version=15)
    line = greeted(talk)
    line.says(connect(protocol_version=24))
    line.breaks()
    assert len(talk.endpoint.registry) == 0
    assert not talk.endpoint.registry.pipes
    assert talk.told() == []


# what breaks the protocol


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 GET / ",
        b"ceph v026",
        BANNER + b"\1" + bytes(135),
        BANNER + bytes(8) + b"\0\x63" + bytes(126),
        HELLO + connect().encode()[:28] + (4097).to_bytes(4, "little"),
        HELLO + connect().encode()[:28] + b"\xff\xff\xff\xff\0",
    ],
)
def test_garbage_is_reported_once_and_the_socket_closed(said: bytes) -> None:
    talk = Dialogue(STATEFUL_SERVER, limits=Limits(max_authorizer=4096))
    line = talk.accept()
    line.says(said, bytes(100))
    line.says(b"and more")
    assert line.closed
    assert [fault.hostile for fault in talk.faults] == [True]
    assert talk.endpoint.counters.hostile == 1
    assert talk.told() == []


def test_random_bytes_raise_nothing_but_protocol_errors() -> None:
    rng = Random(7)
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    for attempt in range(300):
        line = talk.accept()
        known = (HELLO + connect().encode() + message(1))[: rng.randrange(400)]
        line.says(known, rng.randbytes(rng.randrange(200)))
        if attempt % 2:
            line.breaks()
    talk.turn(60.0)


# rows of the decision, through the wire


def reconnects(talk: Dialogue, connect_seq: int, global_seq: int = 2) -> tuple[Line, Tag]:
    """The client of the only session comes back on another socket."""
    line = greeted(talk)
    return line, answered(line, connect(connect_seq, global_seq))


def test_row_1_an_unknown_session() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    line, tag = reconnects(talk, 5)
    assert tag == Tag.RESETSESSION
    assert answered(line, connect(0)) == Tag.READY
    assert talk.session.connect_seq == 1
    assert talk.endpoint.counters.decisions == {"1": 1, "2": 1}


def test_row_3_a_stale_connect() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    first = talk.open_incoming(global_seq=10)
    line = greeted(talk)
    line.says(connect(2, 9))
    (answer,) = line.replies()
    assert (answer.tag, answer.global_seq, answer.connect_seq) == (Tag.RETRY_GLOBAL, 10, 0)
    assert not first.closed
    assert answered(line, connect(2, 11)) == Tag.SEQ
    assert first.closed


def test_row_4_a_lossy_session_makes_room() -> None:
    talk = Dialogue(STATELESS_REGISTERED_SERVER)
    first = talk.open_incoming()
    old = talk.session
    line = greeted(talk)
    talk.send(old, 1, 2)
    talk.events.clear()
    assert answered(line, connect(0, 2)) == Tag.SEQ
    assert line.in_seq == 0
    assert [(event.kind, event.lost) for event in talk.events] == [
        (EventKind.REMOTE_RESET, (1, 2)),
        (EventKind.RESET, ()),
        (EventKind.ACCEPT, ()),
    ]
    assert first.closed
    assert old.state is State.CLOSED
    assert talk.session is not old
    assert talk.session.outbox.queued == 0


def test_row_5_the_peer_began_anew() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    first = talk.open_incoming()
    first.says(message(1), message(2))
    session = talk.session
    talk.send(session, 7)
    talk.events.clear()
    line, tag = reconnects(talk, 0)
    assert tag == Tag.READY
    assert [(event.kind, event.lost) for event in talk.events] == [
        (EventKind.REMOTE_RESET, (7,)),
        (EventKind.ACCEPT, ()),
    ]
    assert talk.session is session
    assert (session.connect_seq, session.in_seq) == (1, 0)
    line.says(message(1))
    assert talk.delivered == [1, 2, 1]
    line.heard()
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]


def test_row_5b_without_resetcheck_what_was_queued_is_sent_to_the_new_one() -> None:
    talk = Dialogue(LOSSLESS_PEER)
    talk.open_incoming(addr=PEER).says(message(1))
    talk.send(talk.session, 7)
    talk.told()
    line = greeted(talk, PEER)
    assert answered(line, connect(0, 2)) == Tag.READY
    assert talk.told() == [EventKind.ACCEPT]
    assert talk.session.in_seq == 0
    assert line.tags() == ["MSG 1"]


@pytest.mark.parametrize("connect_seq", [1, 2, 3])
def test_rows_6_and_7_connect_seq_must_go_up(connect_seq: int) -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming()
    talk.open_incoming(2, 2)
    assert talk.session.connect_seq == 3
    line = greeted(talk)
    line.says(connect(connect_seq, 3))
    (answer,) = line.replies()
    assert (answer.tag, answer.connect_seq) == (Tag.RETRY_SESSION, 4)
    assert answered(line, connect(4, 3)) == Tag.SEQ


def test_row_7a_parked_before_the_first_success() -> None:
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    session = talk.connect()
    talk.refused()
    assert state_of(session) is State.STANDBY
    line = greeted(talk, PEER)
    assert answered(line, connect(0)) == Tag.SEQ
    line.says(encode_seq(0))
    assert talk.session is session
    assert state_of(session) is State.OPEN


def racing(own: EntityAddr, peer: EntityAddr) -> tuple[Dialogue, Session, Line, Line]:
    """Both connect to each other; our proposal is on its way when theirs comes."""
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    talk.endpoint.addr = own
    session = talk.connect()
    talk.send(session, 1)
    ours = talk.dialled(peer)
    ours.says(encode_server_hello(peer, SOCKET))
    theirs = talk.accept(own=own)
    theirs.heard()
    theirs.says(BANNER, peer.encode())
    return talk, session, ours, theirs


#: 0x100 sorts before 1: the order is that of the bytes in memory.
@pytest.mark.parametrize(("own_nonce", "peer_nonce"), [(2, 1), (1, 0x100)])
def test_row_8_the_lower_peer_wins(own_nonce: int, peer_nonce: int) -> None:
    talk, session, ours, theirs = racing(
        OWN._replace(nonce=own_nonce), PEER._replace(nonce=peer_nonce)
    )
    assert answered(theirs, connect(0)) == Tag.SEQ
    assert ours.closed
    theirs.says(encode_seq(0))
    assert talk.session is session
    assert session.state is State.OPEN
    assert theirs.tags() == ["MSG 1"]


@pytest.mark.parametrize(("own_nonce", "peer_nonce"), [(1, 2), (0x100, 1)])
def test_row_9_the_higher_peer_waits(own_nonce: int, peer_nonce: int) -> None:
    _talk, session, ours, theirs = racing(
        OWN._replace(nonce=own_nonce), PEER._replace(nonce=peer_nonce)
    )
    assert answered(theirs, connect(0)) == Tag.WAIT
    assert not ours.closed
    assert not theirs.closed
    assert session.keepalive_due  # so that our attempt cannot go idle
    ours.heard()
    ours.says(reply(Tag.SEQ, 1, 1), encode_seq(0))
    assert session.state is State.OPEN
    ours.written = ours.heard()[8:]
    assert ours.tags() == ["KEEPALIVE2", "MSG 1"]


@pytest.mark.parametrize(("own_nonce", "tag"), [(77, Tag.WAIT), (99, Tag.SEQ)])
def test_a_race_is_noticed_before_the_peer_has_said_who_it_is(own_nonce: int, tag: Tag) -> None:
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    talk.endpoint.addr = OWN._replace(nonce=own_nonce)
    session = talk.connect()  # to a place, whoever is there
    line = talk.accept(own=talk.endpoint.addr)
    line.heard()
    line.says(BANNER, PEER.encode())
    assert answered(line, connect(0)) == tag
    assert talk.session is session


def test_row_8a_a_race_given_up_already() -> None:
    own, peer = OWN._replace(nonce=1), PEER._replace(nonce=2)
    talk, _session, ours, theirs = racing(own, peer)
    ours.says(reply(Tag.WAIT))
    assert answered(theirs, connect(0)) == Tag.SEQ
    assert ours.closed
    assert talk.endpoint.counters.decisions == {"8a": 1}


def test_row_10_the_peer_remembers_a_session_that_ours_never_was() -> None:
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    session = talk.connect()
    line = greeted(talk, PEER)
    assert answered(line, connect(3)) == Tag.RESETSESSION
    assert session.state is State.CONNECTING


def test_row_11_a_reconnect_takes_the_session_over() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    first = talk.open_incoming()
    first.says(message(1), message(2), message(3))
    session = talk.session
    talk.send(session, 11, 12)
    first.heard()
    talk.told()
    line = greeted(talk)
    line.says(connect(2, 2))
    (answer,) = line.replies()
    assert (answer.tag, answer.connect_seq, line.in_seq) == (Tag.SEQ, 3, 3)
    assert first.closed
    line.says(encode_seq(1), message(4))
    assert talk.told() == [EventKind.ACCEPT]
    assert line.tags() == ["ACK 4", "MSG 2"]
    assert talk.delivered == [1, 2, 3, 4]
    assert talk.session is session


def test_without_reconnect_seq_the_answer_is_ready_and_all_is_resent() -> None:
    features = SUPPORTED & ~RECONNECT_SEQ
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming(features=features).says(message(1), message(2))
    talk.send(talk.session, 11)
    line = greeted(talk)
    assert answered(line, connect(2, 2, features=features)) == Tag.READY
    line.says(message(1), message(2), message(3))
    assert talk.delivered == [1, 2, 3]
    assert talk.endpoint.counters.duplicates == 2
    assert "MSG 1" in line.tags()


def test_repeats_alone_are_acknowledged_as_well() -> None:
    features = SUPPORTED & ~RECONNECT_SEQ
    talk = Dialogue(STATEFUL_SERVER)
    first = talk.open_incoming(features=features)
    first.says(message(1))
    talk.turn(1.0)
    assert first.tags() == ["ACK 1"]  # lost with the socket
    line = greeted(talk)
    assert answered(line, connect(2, 2, features=features)) == Tag.READY
    line.says(message(1))
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]


def test_a_client_that_remembers_more_than_we_sent_gets_higher_numbers() -> None:
    talk = Dialogue(LOSSLESS_PEER)
    talk.connect()
    talk.send(talk.session, 1)
    line = greeted(talk, PEER)
    assert answered(line, connect(3, 2)) == Tag.SEQ
    line.says(encode_seq(40))
    assert line.tags() == ["MSG 41"]


@pytest.mark.parametrize("seq", [1 << 63, (1 << 64) - 1])
def test_an_absurd_in_seq_is_refused(seq: int) -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming()
    line, tag = reconnects(talk, 2)
    assert tag == Tag.SEQ
    line.says(encode_seq(seq))
    assert line.closed
    assert talk.faults[-1].hostile


def test_connect_seq_wraps() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming()
    talk.open_incoming(U32 - 1, 2)
    assert talk.session.connect_seq == U32
    line = greeted(talk)
    line.says(connect(5, 3))
    (answer,) = line.replies()
    assert (answer.tag, answer.connect_seq) == (Tag.RETRY_SESSION, 0)


# anonymous lossy clients


def test_lossy_clients_are_not_registered() -> None:
    talk = Dialogue(STATELESS_SERVER)
    first, second = talk.open_incoming(), talk.open_incoming()
    assert not first.closed
    assert len(talk.endpoint.registry) == 2
    assert talk.endpoint.registry.find(CLIENT) is None
    second.breaks()
    assert talk.told() == [EventKind.ACCEPT, EventKind.ACCEPT, EventKind.RESET]
    assert len(talk.endpoint.registry) == 1


def test_a_remembered_session_of_an_anonymous_client_is_opened() -> None:
    _line, tag = reconnects(Dialogue(STATELESS_SERVER), 5)
    assert tag == Tag.READY


# failure while accepting (spec §6, last table)


def half_accepted(policy: object, *queued: int, addr: EntityAddr = CLIENT) -> tuple[Dialogue, Line]:
    """A takeover whose SEQ was answered, but not read by the client."""
    talk = Dialogue(policy)  # type: ignore[arg-type]
    talk.open_incoming(addr=addr).breaks()
    line = greeted(talk, addr)
    assert answered(line, connect(2, 2)) == Tag.SEQ
    if queued:
        talk.send(talk.session, *queued)
    assert talk.session.state is State.OPEN
    assert line.heard() == b""  # nothing is sent before the exchange is over
    talk.told()
    return talk, line


def test_a_takeover_that_fails_parks_the_session() -> None:
    talk, line = half_accepted(LOSSLESS_CLIENT)
    line.breaks()
    assert talk.session.state is State.STANDBY
    assert talk.told() == []


def test_a_server_parks_it_also_with_something_queued() -> None:
    talk, line = half_accepted(STATEFUL_SERVER, 1, 2)
    line.breaks()
    assert (talk.session.state, talk.session.outbox.queued) == (State.STANDBY, 2)


def test_others_connect_if_something_is_queued() -> None:
    talk, line = half_accepted(LOSSLESS_PEER, 1, addr=PEER)
    line.breaks()
    assert talk.session.state is State.CONNECTING
    assert talk.dials[-1].host == "10.0.0.2"


def test_the_next_takeover_finds_everything_in_place() -> None:
    talk, line = half_accepted(STATEFUL_SERVER, 1, 2)
    line.breaks()
    again = greeted(talk)
    assert answered(again, connect(2, 3)) == Tag.RETRY_SESSION  # it is at 3 already
    assert answered(again, connect(4, 3)) == Tag.SEQ
    again.says(encode_seq(0))
    assert again.tags() == ["MSG 1", "MSG 2"]


def test_a_lossy_takeover_that_fails_ends_the_session() -> None:
    talk = Dialogue(STATELESS_REGISTERED_SERVER)
    talk.open_incoming()
    line = greeted(talk)
    assert answered(line, connect(0, 2)) == Tag.SEQ
    talk.told()
    line.breaks()
    assert talk.told() == [EventKind.RESET]
    assert len(talk.endpoint.registry) == 0


# two with one identity


def test_two_peers_with_one_identity_are_reported_once() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    talk.open_incoming(0, 1)
    for attempt in range(1, 12):
        talk.open_incoming(2 * attempt, attempt + 1)
        talk.turn(0.1)
    assert [report.kind for report in talk.reports] == ["contested"]
    assert talk.endpoint.counters.contested == 1


def test_ordinary_reconnects_are_no_quarrel() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    line = talk.open_incoming(0, 1)
    for attempt in range(1, 30):
        line.breaks()
        line = talk.open_incoming(2 * attempt, attempt + 1)
    assert talk.reports == []


# disposable sessions


def test_a_disposable_session_whose_peer_comes_back_is_over() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    first = talk.open_incoming()
    talk.send(talk.session, 1)
    first.heard()
    talk.endpoint.mark_disposable(talk.session)
    talk.told()
    line = greeted(talk)
    assert answered(line, connect(2, 2)) == Tag.RESETSESSION  # or it would miss messages
    assert talk.told() == [EventKind.REMOTE_RESET, EventKind.RESET]
    assert answered(line, connect(0, 2)) == Tag.READY


def test_the_next_fault_of_a_disposable_session_is_final_until_then_it_is_lossless() -> None:
    talk = Dialogue(STATEFUL_SERVER)
    line = talk.open_incoming()
    talk.endpoint.mark_disposable(talk.session)
    line.says(message(1))
    talk.turn(1.0)
    assert line.tags() == ["ACK 1"]
    talk.send(talk.session, 5)
    line.heard()
    talk.events.clear()
    line.breaks()
    (event,) = talk.events
    assert (event.kind, event.lost) == (EventKind.RESET, (5,))


def test_a_client_of_ours_may_be_lossy_where_the_server_is_not() -> None:
    talk = Dialogue(LOSSY_CLIENT)
    talk.open_incoming()
    assert talk.session.lossy
