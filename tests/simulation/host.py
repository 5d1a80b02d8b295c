"""A host of the simulation: an endpoint, its driver, and an application that keeps books."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from mpmsgr.session.acceptor import Acceptor
from mpmsgr.session.actions import (
    Action,
    Answered,
    Close,
    Deliver,
    Dial,
    Event,
    EventKind,
    Fault,
    Flush,
    FlushSoon,
    Full,
    Report,
    Wake,
    Write,
)
from mpmsgr.session.endpoint import Endpoint, Timing
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.policy import Policies, Policy
from mpmsgr.session.session import Session, Target
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName, EntityType
from mpmsgr.wire.v1.parcel import encode_parcel, raw_ids
from mpmsgr.wire.v1.tags import Tag
from tests.simulation.network import End, Network

ACK_DELAY_S = 0.005
#: A handler takes up to so many seconds where acks wait for it.
WORK_S = 3.0
_WAIT = bytes([Tag.WAIT])
TYPE = 0x8001


class Line(NamedTuple):
    """One line of the story of a history."""

    at: float
    host: str
    what: str
    facts: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.at:9.3f} {self.host:>10}  {self.what} " + " ".join(map(str, self.facts))


def brief(session: Session) -> str:
    """*session* in a few words."""
    state, outbox = session.state.value, session.outbox
    seqs = f"cseq={session.connect_seq} in={session.in_seq} out={outbox.out_seq}"
    return f"#{session.id} {state} {seqs} sent={len(outbox.sent)} queued={outbox.queued}"


class Track:
    """Everything that happened to one session: what the books are checked against."""

    def __init__(self, host: Host, session: Session) -> None:
        self.host, self.session = host, session
        self.sent: list[int] = []
        self.delivered: list[int] = []
        self.lost: list[int] = []
        self.events: list[EventKind] = []
        self.opened = False
        self.ended = False
        self.disposable = False

    @property
    def settled(self) -> bool:
        """Did the session work, and was not reset since?"""
        ups_and_downs = [kind for kind in self.events if kind is not EventKind.REFUSED]
        return bool(ups_and_downs) and ups_and_downs[-1] in (EventKind.CONNECT, EventKind.ACCEPT)

    def __repr__(self) -> str:
        return f"{self.host.label}#{self.session.id}"


class Books:
    """What was sent and delivered in the whole history, and its story.

    on_delivery: called with the receiving and the sending track and the tid.
    """

    def __init__(self) -> None:
        self.sender: dict[int, Track] = {}
        self.priority: dict[int, int] = {}
        self.handled: set[int] = set()
        self.only_priority = 0
        self.story: list[Line] = []
        self.on_delivery: Callable[[Track, Track, int], None] = lambda to, by, tid: None
        self.on_event: Callable[[Track, Event], None] = lambda track, event: None
        self.on_wait: Callable[[Host, EntityAddr], None] = lambda host, peer: None
        self.on_fault: Callable[[Host, Fault], None] = lambda host, fault: None
        self._next_tid = 0

    def next_tid(self) -> int:
        """A tid nobody had before."""
        self._next_tid += 1
        return self._next_tid


class Host:
    """One endpoint at *ip*, as `Driver` would run it. A port of 0 only connects.

    echo: how often the application answers a message; talkative: it greets whoever comes.
    """

    def __init__(
        self,
        network: Network,
        books: Books,
        label: str,
        ip: str,
        port: int,
        policy: Policy,
        rng: Random,
        *,
        nonce: int,
        timing: Timing,
        echo: float = 0.0,
        talkative: bool = False,
    ) -> None:
        self.network, self.clock, self.books = network, network.clock, books
        self.label, self.ip, self.port, self.rng = label, ip, port, rng
        self.echo, self.talkative = echo, talkative
        self.alive = True
        self._executing = False
        self.tracks: dict[int, Track] = {}
        self.ends: dict[Pipe, End] = {}
        self._dirty: dict[Pipe, None] = {}
        self._soon: dict[Pipe, None] = {}
        addr = EntityAddr.of(ip, port, nonce) if port else EntityAddr(nonce=nonce)
        kind = EntityType.SERVICE if port else EntityType.CLIENT
        self.endpoint = Endpoint(
            EntityName(kind, 0), addr, Policies(policy), Random(rng.random()), timing=timing
        )
        self.policy = policy
        if port:
            network.listen(self, port)

    def say(self, what: str, *facts: Any) -> None:
        """Add a line to the story; sessions as they are at this moment."""
        facts = tuple(brief(fact) if isinstance(fact, Session) else fact for fact in facts)
        self.books.story.append(Line(self.clock.now, self.label, what, facts))

    def track(self, session: Session) -> Track:
        """The books of *session*."""
        known = self.tracks.get(session.id)
        if known is None:
            known = self.tracks[session.id] = Track(self, session)
        return known

    # the application

    def connect(self, target: Target) -> Session:
        """The session with *target*."""
        session = self.endpoint.connect(target, EntityType.SERVICE, self.clock.now)
        self.track(session)
        self.run()
        return session

    def send(self, session: Session, count: int, size: int = 0) -> None:
        """Send *count* messages, of mixed priorities if the books say so."""
        track = self.track(session)
        if session.state is State.CLOSED:
            return
        parcels = []
        for _ in range(count):
            tid = self.books.next_tid()
            priority = self.books.only_priority or self.rng.choice((63, 127, 196, 255, 300))
            self.books.sender[tid], self.books.priority[tid] = track, priority
            track.sent.append(tid)
            m = Message(TYPE, b"m%d" % tid, data=bytes(size), tid=tid, priority=priority)
            parcels.append(encode_parcel(m, self.endpoint.name))
        self.say("send", track, track.sent[-count:])
        self.endpoint.send(session, parcels, self.clock.now)
        self.run()

    def mark_down(self, session: Session) -> None:
        """End *session* here."""
        track = self.track(session)
        track.lost += self.endpoint.mark_down(session)
        track.ended = True
        self.say("mark_down", track, "lost", track.lost)
        self.run()

    def close(self, session: Session) -> None:
        """End *session* in order."""
        track = self.track(session)
        track.lost += self.endpoint.close(session, self.clock.now)
        track.ended = True
        self.say("close", track, "lost", track.lost)
        self.run()

    def crash(self) -> None:
        """Be gone at once."""
        self.say("crash")
        self.alive = False
        self.network.crash(self)

    # what happens to sockets

    def accepted(self, end: End, peer: EntityAddr, own: EntityAddr) -> Pipe:
        """See `Socketed`."""
        announced = own._replace(nonce=self.endpoint.addr.nonce)
        pipe = self.endpoint.accept(peer, announced, self.clock.now)
        self.ends[pipe] = end
        self.run()
        return pipe

    def dialled(self, end: End, peer: EntityAddr) -> None:
        """See `Socketed`."""
        assert end.pipe is not None
        self.ends[end.pipe] = end
        self.endpoint.dialled(end.pipe, peer, self.clock.now)
        self.run()

    def received(self, end: End, data: bytes) -> None:
        """See `Socketed`."""
        assert end.pipe is not None
        end.pipe.receive(data, self.clock.now)
        self.run()

    def lost(self, pipe: Pipe, cause: str, *, refused: bool = False) -> None:
        """See `Socketed`."""
        if not self.alive:
            return
        self._dirty.pop(pipe, None)
        self._soon.pop(pipe, None)
        self.endpoint.lost(pipe, cause, self.clock.now, refused=refused)
        self.run()

    # executing

    def run(self) -> None:
        """Execute the endpoint's actions, as `Driver` does."""
        if self._executing:
            return
        self._executing = True
        while actions := self.endpoint.take():
            for action in actions:
                _EXECUTE[type(action)](self, action)
        self._executing = False

    def _dial(self, action: Dial) -> None:
        self.say("dial", action.pipe, action.pipe.session)
        self.network.dial(self, action.pipe, action.host, action.port)

    def _write(self, action: Write) -> None:
        if action.pipe in self._dirty:
            self._flush(action.pipe)
        end = self.ends.get(action.pipe)
        if end is not None:
            end.write(action.data)
        stage = action.pipe.stage
        if isinstance(stage, Acceptor) and action.data[:1] == _WAIT:
            self.say("tells to wait", action.pipe, stage._peer_addr)
            self.books.on_wait(self, stage._peer_addr)

    def _mark(self, action: Flush) -> None:
        self._mark_dirty(action.pipe)

    def _mark_dirty(self, pipe: Pipe) -> None:
        if not self._dirty:
            self.clock.call_at(self.clock.now, self._flush_dirty)
        self._dirty[pipe] = None

    def _mark_soon(self, action: FlushSoon) -> None:
        if not self._soon:
            self.clock.call_at(self.clock.now + ACK_DELAY_S, self._flush_soon)
        self._soon[action.pipe] = None

    def _flush_soon(self) -> None:
        soon, self._soon = self._soon, {}
        for pipe in soon:
            if pipe.established is not None and pipe.established.flush_soon:
                self._mark_dirty(pipe)

    def _flush_dirty(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for pipe in dirty:
            if self.alive:
                self._flush(pipe)

    def _flush(self, pipe: Pipe) -> None:
        out = pipe.output(self.clock.now)
        end = self.ends.get(pipe)
        if out and end is not None:
            end.write(b"".join(out))
        if pipe.has_more:
            self._mark_dirty(pipe)

    def _close(self, action: Close) -> None:
        end = self.ends.pop(action.pipe, None)
        if end is not None:
            end.close()

    def _wake(self, action: Wake) -> None:
        self.clock.call_at(action.at, self._woken, action.target, action.at)

    def _woken(self, target: Pipe | Session, at: float) -> None:
        if self.alive and target.wake_at == at:
            self.endpoint.wake(target, self.clock.now)
            self.run()

    def _deliver(self, action: Deliver) -> None:
        track = self.track(action.session)
        for raw in action.raws:
            tid = raw_ids(raw)[1]
            track.delivered.append(tid)
            self.say("deliver", track, tid)
            self.books.on_delivery(track, self.books.sender[tid], tid)
            self._begin(action.session, raw)
        if self.echo and self.rng.random() < self.echo:
            self.send(action.session, 1)

    def _begin(self, session: Session, raw: Bytes) -> None:
        """A handler begins; others begin and end meanwhile."""
        seq, tid, _, _ = raw_ids(raw)
        if session.handled is None:
            self.books.handled.add(tid)
        else:
            end = self.clock.now + self.rng.random() * WORK_S
            self.clock.call_at(end, self._handled, session, session.handled, seq, tid)

    def _handled(self, session: Session, prefix: HandledPrefix, seq: int, tid: int) -> None:
        if self.alive:
            self.books.handled.add(tid)
            self.say("handled", self.track(session), tid)
            self.endpoint.handled(session, [seq], self.clock.now, prefix=prefix)
            self.run()

    def _event(self, action: Event) -> None:
        track = self.track(action.session)
        self.say(action.kind.value, track, action.session, action.cause, "lost", action.lost)
        self.books.on_event(track, action)
        track.events.append(action.kind)
        track.lost += action.lost
        if action.kind in (EventKind.CONNECT, EventKind.ACCEPT):
            track.opened = True
            if self.talkative:
                self.send(action.session, 1)
        if action.kind is EventKind.RESET:
            track.ended = True

    def _report(self, action: Report) -> None:
        self.say("report", action.session, action.kind, action.text)

    def _ignore(self, action: Action) -> None:
        pass

    def _fault(self, action: Fault) -> None:
        hostile = "hostile" if action.hostile else ""
        self.say("fault", action.pipe, action.pipe.session, action.cause, hostile)
        self.books.on_fault(self, action)


_EXECUTE: dict[type[Action], Callable[[Host, Any], None]] = {
    Dial: Host._dial,
    Write: Host._write,
    Flush: Host._mark,
    FlushSoon: Host._mark_soon,
    Close: Host._close,
    Wake: Host._wake,
    Deliver: Host._deliver,
    Event: Host._event,
    Answered: Host._ignore,
    Full: Host._ignore,
    Report: Host._report,
    Fault: Host._fault,
}
