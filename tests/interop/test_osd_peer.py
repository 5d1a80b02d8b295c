"""Our endpoint as the peer of a real OSD: what each answers to the other's connects, tag by tag.

On its cluster address an OSD treats whatever says that it is an OSD as a `lossless_peer`, and
calls it at the address that it announced if there is something to say.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from mpmsgr import Dispatcher, EntityName, Messenger
from mpmsgr.session.actions import EventKind
from mpmsgr.session.auth import NoAuthentication
from mpmsgr.session.endpoint import Timing
from mpmsgr.session.policy import LOSSLESS_PEER, Policies
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import CEPH_PACIFIC
from mpmsgr.wire.v1.tags import Tag
from tests.interop.carrier import Handshake, Link, garbled, lost
from tests.interop.ceph import Cluster, needs_ceph_osd
from tests.interop.osd_peer import NAME, Badge, Caller, OsdPeer, listen, version_command

pytestmark = needs_ceph_osd

NewPeer = Callable[..., OsdPeer]
#: What an OSD requires of an OSD; more as soon as there are pools.
REQUIRED = 0x2E01020002046200
#: Nonces whose addresses sort before and after that of any process. Their bytes are compared, the
#: lowest first, so the one that sorts first is the larger number.
BEFORE, AFTER = 1 << 24, 0xFFFFFFFF
#: Shorter than an answer with the ack before it, longer than the ack.
ANSWER_SIZE = 100

first_of_two = pytest.mark.parametrize("we_first", [True, False], ids=["we-first", "osd-first"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # An OSD that is told WAIT calls again after its longest backoff; the default is 15 s.
    with Cluster("ms_max_backoff = 1") as running:
        yield running


@pytest.fixture(scope="module")
def osds(cluster: Cluster) -> list[EntityAddr]:
    """The cluster addresses of osd.0 and osd.1."""
    return [cluster.start_osd(number)[1] for number in range(2)]


@pytest.fixture
def new_peer(cluster: Cluster, osds: list[EntityAddr]) -> Iterator[NewPeer]:
    """Makes peers of osd.0, which has to survive them: it aborts when told nonsense."""
    yield partial(OsdPeer, osds[0], cluster.fsid)
    assert cluster.daemons["osd.0"].poll() is None


@pytest.fixture
def peer(new_peer: NewPeer) -> Iterator[OsdPeer]:
    with new_peer() as peer:
        yield peer


# opening a session


def test_a_new_session_is_answered_seq(peer: OsdPeer) -> None:
    handshake = peer.open().handshake
    assert (handshake.tags, handshake.proposed, handshake.in_seqs) == (["SEQ"], [0], (0, 0))
    (reply,) = handshake.replies
    assert (reply.features, reply.protocol_version, reply.flags) == (CEPH_PACIFIC, 10, 0)
    assert reply.connect_seq == peer.session.connect_seq == 1
    assert reply.global_seq == peer.session.peer_global_seq > 0

    peer.ask(1, 2, 3)
    peer.settle()
    assert peer.answered == [1, 2, 3]
    assert [m.seq for m in peer.messages] == [1, 2, 3]
    assert {m.src for m in peer.messages} == {EntityName.parse("osd.0")}
    assert peer.news == [EventKind.CONNECT]


def test_another_protocol_version_is_refused(new_peer: NewPeer) -> None:
    with new_peer(protocol_version=24) as peer:
        assert refusal(peer) == ["BADPROTOVER"]
        assert "version 10" in peer.faults[0].cause


def test_missing_features_are_named(new_peer: NewPeer) -> None:
    with new_peer(policies=Policies(replace(LOSSLESS_PEER, features_supported=1))) as peer:
        assert refusal(peer) == ["FEATURES"]
        assert f"the peer requires features {REQUIRED:#x}" in peer.faults[0].cause


def test_no_authorizer_is_refused_twice(new_peer: NewPeer) -> None:
    with new_peer(authenticator=NoAuthentication()) as peer:
        assert refusal(peer) == ["BADAUTHORIZER", "BADAUTHORIZER"]


def refusal(peer: OsdPeer) -> list[str]:
    """The OSD's answers, the last of which makes the endpoint hang up."""
    peer.want()
    link = peer.dial()
    peer.until(lambda: peer.faults, "a refusal")
    assert peer.session.connect_seq == 0
    return link.handshake.tags


# coming back


def test_after_a_cut_nothing_is_lost_or_repeated(peer: OsdPeer) -> None:
    first = settled(peer)
    with peer.spoiling(lost):
        peer.ask(2, 3)
    peer.cut(first)
    assert peer.session.connect_seq == 2

    handshake = peer.open().handshake
    # Row 11, and yet RETRY_GLOBAL comes first: whatever we say, with the value that it knows.
    assert (handshake.tags, handshake.proposed) == (["RETRY_GLOBAL", "SEQ"], [2, 2])
    assert handshake.replies[0].global_seq == first.handshake.connects[0].global_seq
    assert handshake.connects[1].global_seq > handshake.connects[0].global_seq
    assert handshake.replies[1].connect_seq == peer.session.connect_seq == 3
    assert handshake.in_seqs == (1, 1)
    peer.settle()
    assert peer.answered == [1, 2, 3]


def test_a_message_that_arrived_broken_is_sent_again(peer: OsdPeer) -> None:
    link = settled(peer)
    with peer.spoiling(garbled):
        peer.ask(2)
    peer.until(lambda: link.pipe.closed, "the OSD hangs up")

    handshake = peer.open().handshake
    assert (handshake.tags, handshake.in_seqs) == (["RETRY_GLOBAL", "SEQ"], (1, 1))
    peer.settle()
    assert peer.answered == [1, 2]


def test_an_old_connect_seq_is_corrected(peer: OsdPeer) -> None:
    """Nothing to say on either side: both park, and our connect_seq stays what the OSD has."""
    peer.cut(settled(peer))
    assert (peer.session.state, peer.session.connect_seq) == (State.STANDBY, 1)

    peer.ask(2)
    handshake = peer.open().handshake
    assert handshake.tags == ["RETRY_SESSION", "RETRY_GLOBAL", "SEQ"]
    assert handshake.proposed == [1, 2, 2]
    assert [reply.connect_seq for reply in handshake.replies] == [2, 0, 3]
    peer.settle()
    assert peer.answered == [1, 2]


def test_a_connect_that_comes_late_is_told_what_is_known(peer: OsdPeer) -> None:
    peer.cut(settled(peer))
    peer.ask(2)
    known = peer.open().handshake.connects[-1].global_seq
    peer.settle()
    assert peer.session.connect_seq == 3

    with Caller(peer.osd, peer.endpoint.addr) as caller:
        reply = caller.propose(global_seq=known - 1, connect_seq=4)
        assert (reply.tag, reply.global_seq) == (Tag.RETRY_GLOBAL, known)
        for connect_seq in (1, 2, 3):
            reply = caller.propose(global_seq=known + 1, connect_seq=connect_seq)
            assert (reply.tag, reply.connect_seq) == (Tag.RETRY_SESSION, 4)
    peer.ask(3)  # and the session is none the worse for it
    peer.settle()
    assert peer.answered == [1, 2, 3]


def test_a_session_that_the_osd_forgot_starts_over(peer: OsdPeer) -> None:
    link = settled(peer)
    peer.part(link)
    peer.ask(2)

    handshake = peer.open().handshake
    assert (handshake.tags, handshake.proposed) == (["RESETSESSION", "SEQ"], [1, 0])
    assert handshake.in_seqs == (0, 0)
    assert peer.news == [EventKind.CONNECT, EventKind.REMOTE_RESET, EventKind.CONNECT]
    assert peer.events[1].lost == (2,)
    peer.ask(3)
    peer.settle()
    assert peer.answered == [1, 3]


@pytest.mark.parametrize("connections", [1, 2])
def test_who_forgot_the_session_is_taken_in_anew(new_peer: NewPeer, connections: int) -> None:
    """Row 5: RETRY_GLOBAL as always, once more if the newcomer's global_seq is behind, READY."""
    with new_peer() as old:
        link = settled(old)
        for _ in range(connections - 1):
            old.cut(link)
            old.ask(2)
            link = old.open()
            old.settle()
        known = link.handshake.connects[-1].global_seq
        old.cut(link)
        with new_peer(listener=old.listener) as peer:
            handshake = peer.open().handshake
            behind = handshake.connects[0].global_seq < known
            assert behind == (connections > 1)
            assert handshake.tags == ["RETRY_GLOBAL"] * (1 + behind) + ["READY"]
            assert set(handshake.proposed) == {0}
            assert handshake.replies[0].global_seq == known
            assert peer.session.connect_seq == 1
            peer.ask(3)
            peer.settle()
            assert (peer.answered, peer.messages[0].seq) == ([3], 1)


def test_who_forgot_the_session_gets_what_it_did_not_acknowledge(new_peer: NewPeer) -> None:
    """A lossless_peer has no resetcheck: the answer goes on to the new session, its seq kept."""
    with new_peer() as old:
        old.cut(link_with_an_unread_answer(old))
        with new_peer(listener=old.listener) as peer:
            assert peer.open().handshake.tags == ["RETRY_GLOBAL", "READY"]
            peer.until(lambda: peer.messages, "the answer to the other session's command")
            assert [(m.tid, m.seq) for m in peer.messages] == [(2, 2)]


def settled(peer: OsdPeer) -> Link:
    """A connection over which one command was answered, acks and all."""
    link = peer.open()
    peer.ask(1)
    peer.settle()
    return link


def link_with_an_unread_answer(peer: OsdPeer) -> Link:
    """A connection over which command 2 was answered, which nobody here has noticed."""
    link = settled(peer)
    peer.ask(2)
    peer.unread(link, ANSWER_SIZE)
    return link


# being called


def test_the_osd_comes_back_with_its_answer(peer: OsdPeer) -> None:
    """We have the answer, but it does not know: its session is not idle, and ours is."""
    peer.cut(settled_but_for_our_ack(peer))
    assert peer.session.state is State.STANDBY

    handshake = peer.open_from(peer.called()).handshake
    assert (handshake.tags, handshake.proposed, handshake.in_seqs) == (["SEQ"], [2], (1, 1))
    assert peer.session.connect_seq == 3
    peer.ask(2)
    peer.settle()
    assert peer.answered == [1, 2]
    assert peer.news == [EventKind.CONNECT, EventKind.ACCEPT]


def test_the_osd_starts_over_with_who_forgot_it(peer: OsdPeer) -> None:
    settled_but_for_our_ack(peer)
    peer.endpoint.mark_down(peer.session)
    peer.run()

    handshake = peer.open_from(peer.called()).handshake
    assert (handshake.tags, handshake.proposed) == (["RESETSESSION", "READY"], [2, 0])
    peer.ask(2)
    peer.settle()
    assert peer.answered == [1, 2]
    assert peer.messages[1].seq > 2  # after a reset an OSD counts on from a random number


def test_the_osd_accepts_a_higher_connect_seq(peer: OsdPeer) -> None:
    """Our reply is lost, so that we are a connection ahead of it."""
    peer.cut(settled_but_for_our_ack(peer))
    link = peer.answer(peer.called())
    with peer.spoiling(lost):
        peer.until(lambda: peer.session.state is State.OPEN, "a connect of the OSD")
        peer.cut(link)

    handshake = peer.open_from(peer.called()).handshake
    assert (handshake.tags, handshake.proposed) == (["RETRY_SESSION", "SEQ"], [2, 4])
    assert peer.session.connect_seq == 5
    peer.ask(2)
    peer.settle()
    assert peer.answered == [1, 2]


def settled_but_for_our_ack(peer: OsdPeer) -> Link:
    """A connection over which one command was answered, and the OSD waits for our ack."""
    link = peer.open()
    peer.ask(1)
    peer.settle(acknowledge=False)
    return link


# races


@first_of_two
def test_race_our_address_sorts_first(new_peer: NewPeer, we_first: bool) -> None:
    with new_peer(BEFORE) as peer:
        ours, theirs = race(peer, collision(peer), we_first)
        assert (ours.tags, ours.proposed) == (["RETRY_GLOBAL", "SEQ"], [2, 2])
        assert theirs.tags == ([] if we_first else ["WAIT"])
        assert ours.in_seqs == (1, 2)
        both_went_on(peer)


@first_of_two
def test_race_the_osds_address_sorts_first(new_peer: NewPeer, we_first: bool) -> None:
    with new_peer(AFTER) as peer:
        ours, theirs = race(peer, collision(peer), we_first)
        assert ours.tags == (["WAIT"] if we_first else [])
        assert (theirs.tags, theirs.proposed) == (["SEQ"], [2])
        assert theirs.in_seqs == (2, 1)
        both_went_on(peer)


def test_an_osd_told_to_wait_calls_again(new_peer: NewPeer) -> None:
    with new_peer(BEFORE) as peer:
        caller = collision(peer)
        for _ in range(2):
            tell_to_wait(peer, caller)
            caller = peer.called()
        ours, theirs = race(peer, caller, we_first=True)
        assert (ours.tags, theirs.tags) == (["RETRY_GLOBAL", "SEQ"], [])
        both_went_on(peer)


def tell_to_wait(peer: OsdPeer, caller: socket.socket) -> None:
    """Let the OSD lose a race; it hangs up."""
    link = peer.answer(caller)
    assert run(peer, link).tags == ["WAIT"]
    peer.until(lambda: link.pipe.closed, "the OSD hangs up")


def collision(peer: OsdPeer) -> socket.socket:
    """Cut a session whose sides both have to come back, with the same connect_seq.

    Command 2 arrived but its answer did not, command 3 did not. Returns the OSD's call, unanswered;
    our own connection is wanted.
    """
    link = link_with_an_unread_answer(peer)
    with peer.spoiling(lost):
        peer.ask(3)
    peer.cut(link)
    assert peer.wanted()
    assert peer.session.connect_seq == 2
    return peer.called()


def race(peer: OsdPeer, caller: socket.socket, we_first: bool) -> tuple[Handshake, Handshake]:
    """Our handshake and the OSD's, one after the other; ours stays empty if it became pointless."""
    theirs = None if we_first else run(peer, peer.answer(caller))
    ours = run(peer, peer.dial()) if peer.wanted() else Handshake()
    return ours, theirs or run(peer, peer.answer(caller))


def run(peer: OsdPeer, link: Link) -> Handshake:
    """Go on to the end of a handshake, good or bad."""
    told_to_wait = ["WAIT"]
    peer.until(
        lambda: link.is_open or link.pipe.closed or link.handshake.tags == told_to_wait,
        "the end of a handshake",
    )
    return link.handshake


def both_went_on(peer: OsdPeer) -> None:
    """One connection is left, and each message arrived once."""
    assert (peer.session.state, peer.session.connect_seq) == (State.OPEN, 3)
    peer.ask(4)
    peer.settle()
    assert peer.answered == [1, 2, 3, 4]
    (link,) = (link for link in peer.links.values() if not link.pipe.closed)
    assert link.pipe is peer.session.pipe


# all of it, many times


@pytest.mark.parametrize("nonce", [BEFORE, AFTER], ids=["we-sort-first", "osd-sorts-first"])
def test_every_command_is_answered_once_however_often_the_osd_hangs_up(
    cluster: Cluster, osds: list[EntityAddr], nonce: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    async def main() -> dict[str, int]:
        timing = Timing(max_backoff_s=0.5)
        async with Messenger(NAME, nonce=nonce, authenticator=Badge(), timing=timing) as m:
            await m.bind("127.0.0.1:0")
            m.add_dispatcher_tail(Dispatcher())  # who has none accepts nobody
            con = m.get_connection(osds[0], "osd")
            for _ in range(50):
                asked = (con.request(version_command(cluster.fsid), timeout=60) for _ in range(4))
                for answer in await asyncio.gather(*asked):
                    assert b'"16.' in answer.data
            return m.statistics()

    try:
        cluster.admin("osd.0", "config set", var="ms_inject_socket_failures", val=["30"])
        seen = asyncio.run(main())
    finally:
        cluster.admin("osd.0", "config set", var="ms_inject_socket_failures", val=["0"])
    assert cluster.daemons["osd.0"].poll() is None
    assert seen["faults"] > 20
    assert seen["accepted"] > 5
    assert [seen[what] for what in ("hostile", "resets", "duplicates", "gaps")] == [0, 0, 0, 0]


def test_race_of_first_connections_in_the_place_of_a_dead_osd(
    cluster: Cluster, osds: list[EntityAddr], new_peer: NewPeer
) -> None:
    """osd.0 calls osd.1 for the first time while we, at its address, call osd.0."""
    place = osds[1]
    cluster.ceph("osd", "set", "nodown")  # or osd.0 has it struck off
    cluster.kill("osd.1")
    listener = listen(place.host, place.port)
    with new_peer(place.nonce, name=EntityName.parse("osd.1"), listener=listener) as peer:
        end_what_the_dead_osd_began(peer)
        peer.want()
        cluster.ceph("osd", "pool", "create", "shared", "4", "--size", "2")
        ours, theirs = race(peer, peer.called(), we_first=True)
        if place.sort_key() < osds[0].sort_key():
            assert (ours.tags, theirs.tags) == (["RETRY_GLOBAL", "SEQ"], [])
        else:
            assert (ours.tags, theirs.tags) == (["WAIT"], ["SEQ"])
        assert {*ours.proposed, *theirs.proposed} == {0}
        assert (peer.session.state, peer.session.connect_seq) == (State.OPEN, 1)
        peer.until(lambda: peer.messages, "what osd.0 wanted to say")
        assert peer.messages[0].seq == 1


def end_what_the_dead_osd_began(peer: OsdPeer) -> None:
    """Leave osd.0 without a session for this address: it may have had one."""
    peer.want()
    if run(peer, peer.dial()).tags[-1] == "WAIT":
        run(peer, peer.answer(peer.called()))
    session = peer.session
    assert session.pipe is not None
    peer.part(peer.links[session.pipe])
    peer.endpoint.mark_down(session)
    peer.run()
    peer.messages.clear()
