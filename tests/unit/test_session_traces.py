"""The worked traces of session spec §16, as two endpoints speak them on a calm network.

A trace is what the handshakes said: ``C connect 0``, ``S READY 1``; one-letter names of hosts.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from mpmsgr.session.actions import EventKind
from mpmsgr.session.endpoint import Timing
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSLESS_PEER,
    LOSSLESS_PEER_REUSE,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    STATELESS_SERVER,
    Policy,
)
from mpmsgr.session.session import Session, Target
from mpmsgr.session.states import State
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.v1.handshake import CONNECT_SIZE, REPLY_SIZE, HandshakeBuffer
from mpmsgr.wire.v1.tags import Tag
from tests.simulation.host import Books, Host
from tests.simulation.network import CALM, Clock, End, Network, Socketed

PORT = 6800


class TracedEnd(End):
    """Notes connects and replies: they are written one by one, and no frame has their sizes."""

    def write(self, data: bytes) -> None:
        buf, network = HandshakeBuffer(Limits()), self.network
        buf.feed(data)
        if isinstance(network, TracedNetwork):
            said = None
            if len(data) == CONNECT_SIZE and (proposal := buf.read_connect()):
                said = f"connect {proposal.connect_seq}"
            elif len(data) in (REPLY_SIZE, REPLY_SIZE + 8) and (answer := buf.read_reply()):
                said = f"{Tag(answer.tag).name} {answer.connect_seq}"
            if said is not None:
                network.trace.append(f"{self.host.label} {said}")
        super().write(data)


class TracedNetwork(Network):
    """A network that remembers what handshakes said."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, Random(1), CALM)
        self.trace: list[str] = []

    def new_end(self, host: Socketed, pipe: Pipe | None) -> End:
        return TracedEnd(self, host, pipe)


class World:
    """Hosts on a calm network."""

    def __init__(self) -> None:
        self.clock, self.books = Clock(), Books()
        self.books.only_priority = 127
        self.network = TracedNetwork(self.clock)
        self.hosts: dict[str, Host] = {}

    def host(self, label: str, policy: Policy, *, port: int = PORT, nonce: int = 0) -> Host:
        number = ord(label) - ord("A") + 1
        host = Host(
            self.network,
            self.books,
            label,
            f"10.0.0.{number}",
            port,
            policy,
            Random(number),
            nonce=nonce or number,
            timing=Timing(jitter=False),
        )
        self.network.hosts.append(host)
        self.hosts[label] = host
        return host

    def pass_time(self, seconds: float = 1.0) -> None:
        until = self.clock.now + seconds
        while self.clock.next_at() <= until:
            self.clock.step()
        self.clock.now = until

    def cut(self) -> None:
        """Every connection breaks; both ends hear of it before anything else happens."""
        for end in [end for end in self.network.ends if end.is_open]:
            end.lose("cut")

    def trace(self) -> list[str]:
        """What was said since the last time."""
        said = list(self.network.trace)
        self.network.trace.clear()
        return said


def target(host: Host, *, nonce: int | None = None) -> Target:
    return Target(host.ip, PORT, nonce)


def only(host: Host) -> Session:
    (session,) = host.endpoint.registry
    return session


def seqs(*hosts: Host) -> list[int]:
    return [only(host).connect_seq for host in hosts]


def events(host: Host) -> list[str]:
    return [kind.value for track in host.tracks.values() for kind in track.events]


def client_and_server(
    client: Policy = LOSSLESS_CLIENT, server: Policy = STATEFUL_SERVER
) -> tuple[World, Host, Host, Session]:
    """C has a session with S, in which C has sent one message."""
    world = World()
    c, s = world.host("C", client, port=0), world.host("S", server)
    session = c.connect(target(s))
    c.send(session, 1)
    world.pass_time()
    assert world.trace() == ["C connect 0", "S READY 1"]
    return world, c, s, session


def test_first_connect() -> None:
    _, c, s, _ = client_and_server()
    assert seqs(c, s) == [1, 1]
    assert (events(c), events(s)) == (["connect"], ["accept"])


def test_loss_lossless_client_and_stateful_server() -> None:
    world, c, s, session = client_and_server()
    world.cut()
    assert only(s).state is State.STANDBY
    assert seqs(c, s) == [2, 1]
    world.pass_time()
    assert world.trace() == ["C connect 2", "S SEQ 3"]
    assert seqs(c, s) == [3, 3]
    c.send(session, 1)
    world.pass_time()
    assert s.tracks[1].delivered == [1, 2]


def test_idle_loss_of_lossless_peers() -> None:
    world = World()
    a, b = world.host("A", LOSSLESS_PEER), world.host("B", LOSSLESS_PEER)
    session = a.connect(target(b))
    a.send(session, 1)
    world.pass_time()
    world.cut()
    assert [only(host).state for host in (a, b)] == [State.STANDBY] * 2
    world.pass_time(60.0)
    assert world.trace() == ["A connect 0", "B READY 1"]
    a.send(session, 1)
    world.pass_time()
    assert world.trace() == ["A connect 1", "B RETRY_SESSION 2", "A connect 2", "B SEQ 3"]
    assert seqs(a, b) == [3, 3]
    assert b.tracks[1].delivered == [1, 2]


def test_the_other_peer_may_be_the_one_to_wake_up() -> None:
    world = World()
    a, b = world.host("A", LOSSLESS_PEER), world.host("B", LOSSLESS_PEER)
    a.send(a.connect(target(b)), 1)
    world.pass_time()
    world.cut()
    world.trace()
    b.send(only(b), 1)
    world.pass_time()
    assert world.trace() == ["B connect 1", "A RETRY_SESSION 2", "B connect 2", "A SEQ 3"]
    assert a.tracks[1].delivered == [2]


def test_the_client_marked_the_session_down_and_reconnects() -> None:
    world, c, s, session = client_and_server()
    s.send(only(s), 1)
    world.pass_time()
    c.mark_down(session)
    again = c.connect(target(s))
    c.send(again, 1)
    world.pass_time()
    assert world.trace() == ["C connect 0", "S READY 1"]
    assert events(s) == ["accept", "remote_reset", "accept"]
    assert seqs(c, s) == [1, 1]


def test_the_server_marked_the_session_down() -> None:
    world, c, s, session = client_and_server()
    s.mark_down(only(s))
    c.send(session, 1)
    world.pass_time()
    assert world.trace() == ["C connect 2", "S RESETSESSION 0", "C connect 0", "S READY 1"]
    assert events(c) == ["connect", "remote_reset", "connect"]
    assert c.track(session).lost == [2]
    c.send(session, 1)
    world.pass_time()
    assert s.tracks[2].delivered == [3]


def test_the_server_lost_the_session_but_kept_its_nonce() -> None:
    world, c, s, _session = client_and_server()
    s.crash()
    new = world.host("S", STATEFUL_SERVER)
    world.pass_time()
    assert world.trace() == ["C connect 2", "S RESETSESSION 0", "C connect 0", "S READY 1"]
    assert events(c) == ["connect", "remote_reset", "connect"]
    assert seqs(c, new) == [1, 1]


def test_the_server_came_back_with_another_nonce() -> None:
    world, c, s, _ = client_and_server()
    s.crash()
    new = world.host("S", STATEFUL_SERVER, nonce=1000)
    world.pass_time()
    assert world.trace() == ["C connect 0", "S READY 1"]  # given none, the client takes any
    assert events(c) == ["connect", "remote_reset", "connect"]
    assert seqs(c, new) == [1, 1]


def test_a_nonce_that_was_given_is_insisted_on_for_ever() -> None:
    world = World()
    c, s = world.host("C", LOSSLESS_CLIENT, port=0), world.host("S", STATEFUL_SERVER)
    session = c.connect(target(s, nonce=s.endpoint.addr.nonce))
    world.pass_time()
    s.crash()
    new = world.host("S", STATEFUL_SERVER, nonce=1000)
    world.trace()
    world.pass_time(100.0)
    assert world.trace() == []
    assert session.state is State.CONNECTING
    assert "wrong peer" in session.cause
    assert len(new.endpoint.registry) == 0
    assert 10 < session.attempts < 15


def race(a_nonce: int, b_nonce: int, policy: Policy) -> tuple[World, Host, Host]:
    """A and B connect to each other at the same moment and both have something to say."""
    world = World()
    a = world.host("A", policy, nonce=a_nonce)
    b = world.host("B", policy, nonce=b_nonce)
    for one, other in ((a, b), (b, a)):
        one.send(one.connect(target(other, nonce=other.endpoint.addr.nonce)), 2)
    world.pass_time(20.0)
    return world, a, b


def winner(a: Host, b: Host) -> str:
    """Whose connection survived."""
    pipes = [only(host).pipe for host in (a, b)]
    assert all(pipe is not None and pipe.established for pipe in pipes)
    dialled = [host.label for host, pipe in zip((a, b), pipes, strict=True) if not pipe.incoming]  # type: ignore[union-attr]
    (label,) = dialled
    return label


def test_both_connect_at_once_and_the_lower_address_wins() -> None:
    for policy in (LOSSLESS_PEER, LOSSLESS_PEER_REUSE):
        for a_nonce, b_nonce, lower in ((1, 2, "A"), (2, 1, "B"), (0x100, 1, "A"), (1, 0x100, "B")):
            _, a, b = race(a_nonce, b_nonce, policy)
            assert winner(a, b) == lower
            assert [s.delivered for host in (a, b) for s in host.tracks.values()] == [
                [3, 4],
                [1, 2],
            ]
            assert "remote_reset" not in events(a) + events(b)
            assert len(a.tracks) == len(b.tracks) == 1  # both applications keep their connection


def test_both_reconnect_at_once() -> None:
    world, a, b = race(1, 2, LOSSLESS_PEER)
    for _ in range(5):
        a.send(only(a), 1)
        b.send(only(b), 1)
        world.cut()
        world.pass_time(20.0)
        assert winner(a, b) == "A"
    assert [len(t.delivered) for host in (a, b) for t in host.tracks.values()] == [7, 7]
    seq = only(a).connect_seq
    assert seqs(a, b) == [seq, seq]


def test_a_lossy_client_starts_over_by_itself() -> None:
    world, c, s, session = client_and_server(LOSSY_CLIENT, STATELESS_SERVER)
    world.cut()
    world.pass_time()
    assert session.state is State.CLOSED
    assert (events(c), events(s)) == (["connect", "reset"], ["accept", "reset"])
    again = c.connect(target(s))
    c.send(again, 1)
    world.pass_time()
    assert world.trace() == ["C connect 0", "S READY 1"]


def test_a_stateful_server_and_a_parking_client() -> None:
    """Scenario 6 of spec §18: the message that discovers the loss is lost, and named."""
    world, c, s, session = client_and_server(LOSSLESS_PEER)
    s.mark_down(only(s))
    world.pass_time()
    assert session.state is State.STANDBY
    assert events(c) == ["connect"]
    c.send(session, 1)
    world.pass_time()
    assert world.trace() == ["C connect 1", "S RESETSESSION 0", "C connect 0", "S READY 1"]
    assert c.track(session).lost == [2]
    c.send(session, 1)
    world.pass_time()
    assert s.tracks[2].delivered == [3]


def test_what_a_reset_would_drop_is_resent_if_so_configured() -> None:
    world = World()
    client = replace(LOSSLESS_CLIENT, on_remote_reset="resend")
    server = replace(STATEFUL_SERVER, dedupe_window=100)
    c, s = world.host("C", client, port=0), world.host("S", server)
    session = c.connect(target(s))
    c.send(session, 2)
    while not s.tracks or not s.tracks[1].delivered:
        world.clock.step()  # delivered, not yet acknowledged
    s.mark_down(only(s))
    c.send(session, 1)
    world.pass_time()
    assert c.track(session).lost == []
    assert c.track(session).events == [
        EventKind.CONNECT,
        EventKind.REMOTE_RESET,
        EventKind.CONNECT,
    ]
    assert s.tracks[1].delivered + s.tracks[2].delivered == [1, 2, 3]
    assert session.outbox.nbytes == 0
