"""What must hold in every history, at every moment or at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mpmsgr.session.actions import Event, EventKind, Fault
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.v1.parcel import Parcel
from tests.simulation.host import Books, Host, Track
from tests.simulation.plan import Plan


class Violation(AssertionError):
    """A promise was broken."""


class Deliveries:
    """Judges each delivery and each event when it happens, and the balance at the end.

    Lossless without churn: every message once in the history. With churn: once per receiving
    session. Always in the order of sending, per session and priority. Lossy: a prefix.
    """

    def __init__(self, plan: Plan, books: Books, lossy: bool) -> None:
        self._plan, self._books, self._lossy = plan, books, lossy
        self._last: dict[tuple[Track, Track, int], int] = {}
        self._count: Counter[int] = Counter()
        self._at_host: set[tuple[Host, int]] = set()
        self._receiver: dict[Track, Track] = {}

    def delivered(self, to: Track, by: Track, tid: int) -> None:
        """*to* was given *tid*, sent by *by*."""
        if to.ended or not to.opened:
            raise Violation(f"{to} got {tid} {'after its end' if to.ended else 'before its start'}")
        key = (to, by, self._books.priority[tid])
        if tid <= self._last.get(key, 0):
            word = "twice" if tid in to.delivered[:-1] else "out of order"
            raise Violation(f"{to} got {tid} of {by} {word}")
        self._last[key] = tid
        self._count[tid] += 1
        if self._plan.resend and (to.host, tid) in self._at_host:
            raise Violation(f"{to} got {tid} of {by}, which its host had before")
        self._at_host.add((to.host, tid))
        if not self._plan.churn and self._count[tid] > 1:
            raise Violation(f"{tid} of {by} was delivered twice")
        if self._lossy and by.sent[: self._delivered_of(by)][-1] != tid:
            raise Violation(f"{to} got {tid} of {by}: not a prefix of {by.sent}")
        if not self._plan.churn and self._receiver.setdefault(by, to) is not to:
            raise Violation(f"{by} reaches {to}, but before that {self._receiver[by]}")

    def _delivered_of(self, by: Track) -> int:
        return sum(self._count[tid] > 0 for tid in by.sent)

    def happened(self, track: Track, event: Event) -> None:
        """*event* came to *track*.

        Where nobody ends sessions, a reset needs a peer whose side of a first handshake is not
        over: its READY was cut off (row 5), or it was a race and one side goes on already (row 10).
        """
        if track.ended:
            raise Violation(f"{track}: {event.kind} after its end")
        if self._plan.churn or self._lossy:
            return
        if event.kind is EventKind.RESET:
            raise Violation(f"{track}: reset, though nobody gave it up: {event.cause}")
        if event.kind is EventKind.REMOTE_RESET and any(t.settled for t in partners(track)):
            raise Violation(f"{track}: remote reset, though its peer never lost it: {event.cause}")

    def failed(self, host: Host, fault: Fault) -> None:
        """A pipe of *host* failed; two endpoints of ours never break the protocol.

        But a stale connect may leave a session that its peer knows otherwise.
        """
        if fault.hostile and not (self._plan.churn and fault.cause.startswith("in_seq is")):
            raise Violation(f"{host.label} takes its peer for hostile: {fault.cause}")

    def balance(self, hosts: Iterable[Host]) -> None:
        """At the end: what was sent was delivered, or reported as lost, or its sender died."""
        if self._lossy:
            return
        for host in hosts:
            for track in host.tracks.values():
                self._balance(track)

    def _balance(self, track: Track) -> None:
        lost = set(track.lost)
        missing = [t for t in track.sent if not self._count[t] and t not in lost]
        if missing and track.host.alive and not track.disposable:
            raise Violation(f"{track}: {missing} neither delivered nor reported as lost")
        both = [t for t in track.lost if self._count[t]]
        if both and not self._plan.churn and EventKind.REMOTE_RESET not in track.events:
            raise Violation(f"{track}: {both} delivered and reported as lost")
        if len(track.lost) != len(lost):
            raise Violation(f"{track}: reported as lost twice: {track.lost}")


def told_to_wait(host: Host, peer: EntityAddr) -> None:
    """*host* answered WAIT to *peer*: of two attempts the lower address's one survives (§5)."""
    own = host.endpoint.addr
    if _in_memory(own) >= _in_memory(peer):
        raise Violation(f"{host.label} at {own} told the lower address {peer} to wait")


def _in_memory(addr: EntityAddr) -> bytes:
    """The bytes the reference compares (wire spec §4.1), IPv4 only."""
    return (
        (1).to_bytes(4, "little")
        + addr.nonce.to_bytes(4, "little")
        + (2).to_bytes(2, "little")
        + addr.port.to_bytes(2, "big")
        + addr.ip
    )


def partners(track: Track) -> list[Track]:
    """Sessions of the peer of *track* that speak to its host."""
    own, peer = track.host.endpoint.addr, track.session.peer_addr
    everyone = track.host.network.hosts
    return [
        other
        for host in everyone
        if isinstance(host, Host) and host.endpoint.addr.nonce == peer.nonce
        for other in host.tracks.values()
        if other.session.peer_addr.nonce == own.nonce
    ]


def check_acks(host: Host) -> None:
    """What the sessions of *host* do not keep any more was handled, or reported as lost."""
    for track in host.tracks.values():
        if track.session.policy.lossy or track.disposable:
            continue
        kept = {parcel.tid for parcel in waiting(track.session)}
        for tid in track.sent:
            if tid not in host.books.handled and tid not in kept and tid not in track.lost:
                raise Violation(f"{track}: {tid} was acknowledged, and is not handled yet")


def waiting(session: Session) -> list[Parcel]:
    """What *session* has to send or to repeat."""
    parcels = [*session.outbox.sent]
    for queue in session.outbox._queues.values():
        parcels += queue
    return parcels


def check_host(host: Host) -> None:
    """Registry, pipes, states and queues agree with each other."""
    registry = host.endpoint.registry
    for session in registry.sessions.values():
        if session.state is State.CLOSED:
            raise Violation(f"{host.label}: {session} is closed, but registered")
        _check_pipe(host, session)
        _check_outbox(host, session)
    for index in (registry._by_addr, registry._by_target):
        for key, session in index.items():
            if registry.sessions.get(session.id) is not session:
                raise Violation(f"{host.label}: {key} leads to {session}, which is gone")
    for pipe in registry.pipes:
        if pipe.closed:
            raise Violation(f"{host.label}: {pipe} is closed, but registered")
        owned = pipe.session is not None and pipe.session.pipe is pipe
        if not owned and not (pipe.incoming and pipe.established is None):
            raise Violation(f"{host.label}: {pipe} belongs to nobody")


def _check_pipe(host: Host, session: Session) -> None:
    pipe, state = session.pipe, session.state
    if pipe is None:
        good = state is not State.OPEN
    else:
        good = (
            state is not State.STANDBY
            and pipe.session is session
            and not pipe.closed
            and pipe in host.endpoint.registry.pipes
        )
        if pipe.established is not None:
            good = good and state is State.OPEN
    if not good:
        raise Violation(f"{host.label}: {session} with {pipe}")


def _check_outbox(host: Host, session: Session) -> None:
    outbox = session.outbox
    if outbox.nbytes != sum(parcel.size for parcel in waiting(session)):
        raise Violation(f"{host.label}: {session} counts {outbox.nbytes} bytes wrongly")
    if host.track(session).disposable:
        return  # lossy since then, with what it had kept before
    seqs = [parcel.seq for parcel in outbox.sent]
    if seqs != list(range(outbox.out_seq - len(seqs) + 1, outbox.out_seq + 1)):
        raise Violation(f"{host.label}: {session} sent {seqs}, out_seq {outbox.out_seq}")
    if session.lossy and seqs:
        raise Violation(f"{host.label}: {session} is lossy and keeps {seqs}")


def unsettled(hosts: Iterable[Host]) -> str:
    """The first session that still has something to do, in words; empty when there is none."""
    for host in hosts:
        for session in host.endpoint.registry:
            outbox = session.outbox
            idle = not outbox.sent and not outbox.queued
            parked = session.state is State.STANDBY
            if parked and (idle or not partner_lives(host, session)):
                continue
            if session.state is State.OPEN and idle:
                continue
            return f"{host.label}: {session} {session.cause}"
    return ""


def partner_lives(host: Host, session: Session) -> bool:
    """Does the peer of *session* still have it?"""
    return any(t.host.alive and not t.ended for t in partners(host.track(session)))
