"""One endpoint: its name, address and sessions. Events in, actions out.

Every public method that takes `now` (seconds, any monotonic clock) may leave actions; the caller
takes them with `take()` and executes them in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpmsgr.session.acceptor import Acceptor
from mpmsgr.session.actions import (
    Action,
    Close,
    Dial,
    Event,
    EventKind,
    Fault,
    Flush,
    Full,
    Report,
    StayPaused,
    Wake,
    Write,
)
from mpmsgr.session.admission import Refusal
from mpmsgr.session.auth import Authenticator, NoAuthentication
from mpmsgr.session.backoff import Backoff
from mpmsgr.session.connector import Connector
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.policy import Policies, Policy
from mpmsgr.session.registry import Registry
from mpmsgr.session.seen import SeenMessages
from mpmsgr.session.session import Pause, Session, Target
from mpmsgr.session.states import Move, State
from mpmsgr.session.upkeep import Upkeep
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.frames import CLOSE
from mpmsgr.wire.v1.parcel import Parcel

if TYPE_CHECKING:
    from random import Random


_U32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Timing:
    """Seconds: from accept or dial to an open session, and between connection attempts."""

    handshake_timeout_s: float = 10.0
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 15.0
    jitter: bool = True


@dataclass
class Counters:
    """What happened so far."""

    accepted: int = 0
    opened: int = 0
    faults: int = 0
    hostile: int = 0
    replaced: int = 0
    contested: int = 0
    resets: int = 0
    pushes_dropped: int = 0
    overruns: int = 0
    duplicates: int = 0
    gaps: int = 0
    decisions: dict[str, int] = field(default_factory=dict)
    sessions_refused: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((why.value for why in Refusal), 0)
    )


class Endpoint:
    """Sessions of one messenger.

    name, addr: who and where we are (an addr with a blank ip is learned from the first peer);
    protocol_version: 0 = by entity types (wire spec §10); first_id: ids of sessions count from
    here; draining: messages that arrive now are neither handled nor acknowledged; lame_duck: peers
    that connect may resume their sessions, new ones are refused; max_sessions: with so many, ours
    and our peers', peers get no more of them (0 = no limit); claims_above: for messages longer than
    so many bytes a place is asked for (`Place`), 0 = never.
    """

    def __init__(
        self,
        name: EntityName,
        addr: EntityAddr,
        policies: Policies,
        rng: Random,
        *,
        limits: Limits | None = None,
        timing: Timing | None = None,
        authenticator: Authenticator | None = None,
        protocol_version: int = 0,
        first_id: int = 1,
    ) -> None:
        self.name, self.addr, self.policies = name, addr, policies
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.authenticator: Authenticator = authenticator or NoAuthentication()
        self.protocol_version = protocol_version
        self.registry = Registry()
        self.counters = Counters()
        self.draining = self.lame_duck = False
        self.max_sessions = self.claims_above = 0
        self.seen = SeenMessages()
        initial_s, max_s = self.timing.initial_backoff_s, self.timing.max_backoff_s
        self.backoff = Backoff(initial_s, max_s, rng if self.timing.jitter else None)
        self._upkeep = Upkeep(self)
        self._rng = rng
        self._global_seq = 0
        self._next_id = first_id
        self._next_pipe_id = 1
        self._actions: list[Action] = []

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions = self._actions
        if actions:
            self._actions = []
        return actions

    @property
    def has_actions(self) -> bool:
        """Is there anything to take?"""
        return bool(self._actions)

    def emit(self, action: Action) -> None:
        """Add an action (for the stages of pipes)."""
        self._actions.append(action)

    def next_global_seq(self, old: int = 0) -> int:
        """A fresh global_seq, above *old* (session spec §1)."""
        self._global_seq = (max(self._global_seq, old) + 1) & _U32
        return self._global_seq

    # what the application does

    def connect(
        self,
        target: Target,
        peer_type: int,
        now: float,
        *,
        policy: Policy | None = None,
        verify_address: bool = True,
    ) -> Session:
        """The session with *target*, a new one if there is none. ValueError: a server policy."""
        known = self.registry.find_target(target)
        if known is not None:
            return known
        policy = policy or self.policies.of(peer_type)
        if policy.server:
            raise ValueError(f"the policy towards {target} is a server's: it never connects")
        session = self._new_session(EntityAddr(port=target.port), peer_type, policy)
        session.target = target
        session.verify_address = verify_address
        self.registry.add(session)
        self.dial(session, now)
        return session

    def send(self, session: Session, parcels: list[Parcel], now: float) -> bool:
        """Queue *parcels*, in any state but CLOSED; False: dropped, the session is over."""
        if session.state is State.CLOSED:
            return False
        session.outbox.put(parcels)
        if session.outbox_room < 0 and not session.full:
            self.fill(session)
        self._has_output(session, now)
        return True

    def handled(
        self,
        session: Session,
        seqs: Iterable[int],
        now: float,
        *,
        prefix: HandledPrefix | None = None,
    ) -> None:
        """Messages *seqs* of *session* were handled, or never will be: an ack may be due.

        prefix: what `session.handled` was when they were delivered. It is another one once the
        peer numbers its messages from the start, and then theirs are not those.
        """
        prefix = prefix or session.handled
        if prefix is None:
            return
        moved = False
        for seq in seqs:
            moved |= prefix.handled(seq)
            repeat = prefix.repeats.pop(seq, None)
            if repeat is not None:
                newer, work = repeat
                self.handled(newer, [work.seq], now, prefix=work.prefix)
        stage = session.pipe.established if session.pipe is not None else None
        if moved and stage is not None:
            stage.ack_due()

    def paused(self, session: Session, now: float) -> None:
        """*session* is not read any more: `session.paused` says why."""
        self._upkeep.paused(session, now)

    def send_keepalive(self, session: Session, now: float) -> None:
        """Ask the peer for a sign of life."""
        if session.state is not State.CLOSED:
            session.keepalive_due = True
            self._has_output(session, now)

    def _has_output(self, session: Session, now: float) -> None:
        if session.state is State.OPEN:
            if session.pipe is not None:
                self.emit(Flush(session.pipe))
        elif session.state is State.STANDBY and session.can_dial:
            session.move(Move.SEND)
            self.dial(session, now)

    def mark_down(self, session: Session) -> list[int]:
        """End *session* without an event; return the tids dropped (session spec §14)."""
        dropped = self._finish(session)
        self.emptied(session)
        return dropped

    def _finish(self, session: Session) -> list[int]:
        if session.state is State.CLOSED:
            return []
        self.detach(session)
        session.move(Move.END)
        self.registry.remove(session)
        return session.outbox.discard()

    def mark_down_all(self, cause: str) -> None:
        """End every session, with reset events, and every handshake (session spec §14)."""
        for session in self.registry:
            self.end(session, cause)
        for pipe in list(self.registry.pipes):
            self._close(pipe)

    def mark_disposable(self, session: Session) -> None:
        """The next fault of *session* is final."""
        session.disposable = True

    def close(self, session: Session, now: float) -> list[int]:
        """End *session* in order: its peer gets what is due and CLOSE. No event on this side.

        Returns the tids of what the peer has not acknowledged.
        """
        pipe = session.pipe
        if pipe is not None and pipe.established is not None:
            self.emit(Write(pipe, b"".join(pipe.output(now)) + CLOSE))
        return self.mark_down(session)

    # room in outboxes

    def admit(self, session: Session, size: int) -> bool:
        """May a push of *size* bytes be queued? Makes room for it where the policy says so.

        One that is longer than the whole limit passes alone. Under drop_oldest, False: it is the
        one to be dropped, for there is nothing else that may be.
        """
        missing = size - session.outbox_room
        if missing <= 0 or not session.outbox.nbytes:
            return True
        if session.policy.outbox_full == "drop_oldest":
            dropped = session.outbox.drop_pushes(missing)
            self.push_dropped(session, len(dropped))
            return size <= session.outbox_room
        self.fill(session)
        return False

    def push_dropped(self, session: Session, count: int) -> None:
        """*count* pushes were given up because the outbox is full."""
        if count:
            self.counters.pushes_dropped += count
            text = f"outbox of {session.peer_addr} full: {count} pushes dropped"
            self.emit(Report(session, "outbox", text))

    def fill(self, session: Session) -> None:
        """The outbox of *session* is full, until half of it is free again."""
        if not session.full:
            session.full = True
            self.emit(Full(session, True))

    def overrun(self, session: Session, now: float) -> None:
        """Too many requests of a full session wait for acks that do not come.

        From now on its messages are refused, its acks still read; when there is room its
        connection is cut, and the peer repeats what was refused. A lossy session, which could
        not, ends at once.
        """
        pipe, limit = session.pipe, session.policy.outbox_bytes
        if pipe is None or pipe.established is None or not session.full:
            return
        cause = f"it sends requests without end and does not take {limit} bytes of replies"
        if session.lossy:
            self.pipe_failed(pipe, cause, now)
        elif not pipe.established.refusing:
            pipe.established.refusing = True
            self.counters.overruns += 1
            self.emit(Report(session, "overrun", f"{session.peer_addr}: {cause}"))

    def emptied(self, session: Session) -> None:
        """The outbox of *session* has become shorter: has it room again?"""
        if session.full and session.outbox.nbytes <= session.policy.outbox_bytes // 2:
            session.full = False
            self.emit(Full(session, False))

    # what happens to sockets

    def accept(self, peer: EntityAddr, own: EntityAddr, now: float) -> Pipe:
        """A socket was accepted from *peer*; *own* is announced to it."""
        self.counters.accepted += 1
        pipe = self._new_pipe(peer, incoming=True, now=now)
        stage = Acceptor(self, pipe, own)
        pipe.stage = stage
        stage.start()
        return pipe

    def dialled(self, pipe: Pipe, peer: EntityAddr, now: float) -> None:
        """The TCP connection of *pipe* is there, to *peer*."""
        session = pipe.session
        if pipe.closed or session is None:
            return
        pipe.peer = peer
        stage = Connector(self, pipe, session)
        pipe.stage = stage
        stage.start()

    def lost(self, pipe: Pipe, cause: str, now: float, *, refused: bool = False) -> None:
        """The socket of *pipe* is gone, or never came to be; *refused*: ECONNREFUSED."""
        if refused and pipe.session is not None and not pipe.closed:
            self.emit(Event(pipe.session, EventKind.REFUSED, cause=cause))
        self.pipe_failed(pipe, cause, now)

    def wake(self, target: Pipe | Session, now: float) -> None:
        """A time asked for with Wake has come."""
        target.wake_at = None
        if isinstance(target, Session):
            self._upkeep.tick(target, now)
        elif target.deadline is not None and not target.closed:
            limit = self.timing.handshake_timeout_s
            if now >= target.deadline:
                self.pipe_failed(target, f"no session after {limit:g} s of handshake", now)
            else:
                self.schedule(target, target.deadline)

    # what the stages of pipes ask for

    def learned_addr(self, seen: EntityAddr) -> None:
        """A peer sees us at *seen*: our ip, if we did not know it (session spec §12)."""
        if self.addr.is_blank_ip:
            self.addr = self.addr.with_ip_of(seen)

    def new_incoming(self, peer_addr: EntityAddr, peer_type: int, policy: Policy) -> Session:
        """A session that a peer opens."""
        session = self._new_session(peer_addr, peer_type, policy)
        self.registry.add(session)
        if policy.register_lossy_clients or not policy.lossy:
            self.registry.register(session, peer_addr)
        return session

    def session_ready(self, session: Session, pipe: Pipe, now: float) -> None:
        """Frames may flow."""
        self.counters.opened += 1
        session.backoff_s = 0.0
        session.attempts = 0
        session.paused &= Pause.DISPATCH  # the other reasons went with the old socket
        if session.paused:
            self.emit(StayPaused(session))
        session.last_received = now
        session.opened_at = session.opened_at or now
        self._upkeep.watch(session, now)
        if session.full:  # a reset or the SEQ exchange may have emptied it
            self.emptied(session)
        in_handshake = session.handled is not None and session.ack_seq > session.in_seq_acked
        if session.is_queued or in_handshake:  # an ack that came due while it went on
            self.emit(Flush(pipe))

    def reset_session(self, session: Session, cause: str) -> None:
        """The peer lost the session: drop the queues, start over, tell the application."""
        lost, kept = session.reset(self._rng)
        self.counters.resets += 1
        event = Event(session, EventKind.REMOTE_RESET, tuple(lost), cause, tuple(kept))
        self.emit(event)
        self.emptied(session)  # after it: what is held belongs to the session that is no more

    def detach(self, session: Session) -> None:
        """Take the socket from *session* and close it."""
        pipe, session.pipe = session.pipe, None
        if pipe is not None:
            self._close(pipe)

    def end(self, session: Session, cause: str) -> None:
        """*session* is over: queues dropped, reset event."""
        lost = self._finish(session)
        self.emit(Event(session, EventKind.RESET, tuple(lost), cause))
        self.emptied(session)

    def peer_closed(self, pipe: Pipe, now: float) -> None:
        """CLOSE came: answer it, close, reset (session spec §14)."""
        if pipe.session is not None:
            self.emit(Write(pipe, CLOSE))
            self.end(pipe.session, "the peer closed the session")

    def pipe_failed(
        self, pipe: Pipe, cause: str, now: float, *, hostile: bool = False, kind: str = ""
    ) -> None:
        """*pipe* is of no use any more; *hostile*, *kind*: see `Fault`."""
        if pipe.closed:
            return
        accepting = pipe.incoming and pipe.established is None
        self._close(pipe)
        self.counters.faults += 1
        self.counters.hostile += hostile
        self.emit(Fault(pipe, cause, hostile, kind))
        session = pipe.session
        if session is None or session.pipe is not pipe:
            return
        session.pipe = None
        session.cause = cause
        if session.state is not State.WAIT:  # there the deadline goes on
            self._upkeep.fault(session, cause, now, accepting)

    # pieces

    def _new_session(self, peer_addr: EntityAddr, peer_type: int, policy: Policy) -> Session:
        session = Session(self._next_id, peer_type, peer_addr, policy)
        self._next_id += 1
        return session

    def _new_pipe(self, peer: EntityAddr, *, incoming: bool, now: float) -> Pipe:
        pipe = Pipe(self, self._next_pipe_id, incoming=incoming)
        self._next_pipe_id += 1
        pipe.peer = peer
        pipe.deadline = now + self.timing.handshake_timeout_s
        self.registry.pipes.add(pipe)
        self.schedule(pipe, pipe.deadline)
        return pipe

    def schedule(self, target: Pipe | Session, at: float) -> None:
        """Have *target* woken at *at*, unless it will be woken before."""
        if target.wake_at is None or at < target.wake_at:
            target.wake_at = at
            self.emit(Wake(target, at))

    def dial(self, session: Session, now: float) -> None:
        """Begin a connection attempt of *session*."""
        pipe = self._new_pipe(session.peer_addr, incoming=False, now=now)
        pipe.session, session.pipe = session, pipe
        session.attempts += 1
        target = session.target
        host = target.host if target else session.peer_addr.host
        self.emit(Dial(pipe, host, target.port if target else session.peer_addr.port))

    def _close(self, pipe: Pipe) -> None:
        pipe.close()
        self.registry.pipes.discard(pipe)
        self.emit(Close(pipe))
