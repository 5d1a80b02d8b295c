"""The accepting side of a handshake (session spec §4 to §7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mpmsgr.errors import HandshakeRefused
from mpmsgr.session.actions import Event, EventKind, Report, Write
from mpmsgr.session.admission import Refusal, refusal
from mpmsgr.session.decision import Facts, Row, Verdict, decide
from mpmsgr.session.established import Established
from mpmsgr.session.policy import Policy, protocol_version
from mpmsgr.session.session import HandshakeFacts, Session
from mpmsgr.session.states import Move, State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import RECONNECT_SEQ, has_feature, sanitize
from mpmsgr.wire.v1.handshake import (
    FLAG_LOSSY,
    Connect,
    HandshakeBuffer,
    Reply,
    encode_seq,
    encode_server_hello,
)
from mpmsgr.wire.v1.tags import Tag

if TYPE_CHECKING:
    from mpmsgr.session.endpoint import Endpoint
    from mpmsgr.session.pipe import Pipe

#: So many replacements of a session's live socket in so many seconds are a quarrel of two peers,
#: not the reconnects of one whose old socket we have not missed yet.
_CONTEST_TAKEOVERS, _CONTEST_S = 8, 10.0

_NO_SESSION = Session(0, 0, EntityAddr(), Policy())


class Acceptor:
    """Answers the handshake that comes in over *pipe*, as often as the client repeats it.

    own: the address to announce. Each step reads one structure; a step returns True when the
    next one may be tried.
    """

    def __init__(self, endpoint: Endpoint, pipe: Pipe, own: EntityAddr) -> None:
        self._endpoint, self._pipe, self._own = endpoint, pipe, own
        self._buf = HandshakeBuffer(endpoint.limits)
        self._step: Callable[[float], bool] = self._read_banner
        self._peer_addr = EntityAddr()
        self._session: Session | None = None
        self._challenge = b""
        self._challenged = False
        self._auth_reply = b""

    def start(self) -> None:
        """Say hello; nothing needs to be read first."""
        hello = encode_server_hello(self._own, self._pipe.peer)
        self._endpoint.emit(Write(self._pipe, hello))

    def received(self, data: bytes, now: float) -> None:
        """The next bytes. Raises ProtocolError."""
        self._buf.feed(data)
        while self._step(now):
            pass

    # steps

    def _read_banner(self, now: float) -> bool:
        if self._buf.read_banner() is None:
            return False
        self._step = self._read_address
        return True

    def _read_address(self, now: float) -> bool:
        addr = self._buf.read_address()
        if addr is None:
            return False
        self._peer_addr = addr.with_ip_of(self._pipe.peer) if addr.is_blank_ip else addr
        self._step = self._read_connect
        return True

    def _read_connect(self, now: float) -> bool:
        connect = self._buf.read_connect()
        if connect is None:
            return False
        policy = self._endpoint.policies.of(connect.host_type)
        reply = self._refusal(connect, policy)
        if reply is None:
            return self._decide(connect, policy, now)
        self._endpoint.emit(Write(self._pipe, reply.encode()))
        return True

    def _read_seq(self, now: float) -> bool:
        seq = self._buf.read_seq()
        if seq is None:
            return False
        assert self._session is not None
        self._session.outbox.pass_over(seq)
        self._established(self._session, now)
        return False

    # checks before the decision

    def _refusal(self, c: Connect, policy: Policy) -> Reply | None:
        """The first check of spec §4 that fails, as its reply; None when all pass."""
        if c.protocol_version != self._version(c):
            return self._reply(c, policy, Tag.BADPROTOVER)
        if policy.features_required & ~sanitize(c.features):
            return self._reply(c, policy, Tag.FEATURES)
        authenticator = self._endpoint.authenticator
        verified = authenticator.verify_authorizer(c, self._peer_addr, self._challenge)
        if verified.challenge and not self._challenged:
            self._challenged, self._challenge = True, verified.reply
            return self._reply(c, policy, Tag.CHALLENGE_AUTHORIZER, authorizer=verified.reply)
        if not verified.valid:
            return self._reply(c, policy, Tag.BADAUTHORIZER)
        self._auth_reply = verified.reply
        return None

    def _version(self, c: Connect) -> int:
        own_type = self._endpoint.name.type
        version = self._endpoint.protocol_version
        return version or protocol_version(own_type, c.host_type, connecting=False)

    def _reply(
        self,
        c: Connect,
        policy: Policy,
        tag: Tag,
        *,
        global_seq: int = 0,
        connect_seq: int = 0,
        authorizer: bytes = b"",
    ) -> Reply:
        """A reply that opens nothing: its features say what would have been negotiated."""
        features = (c.features & policy.features_supported) | policy.features_required
        return Reply(tag, features, global_seq, connect_seq, self._version(c), authorizer)

    # the decision

    def _decide(self, c: Connect, policy: Policy, now: float) -> bool:
        existing = self._endpoint.registry.find_peer(self._peer_addr)
        facts = self._facts(c, policy, existing)
        row = decide(facts)
        decisions = self._endpoint.counters.decisions
        decisions[row.number] = decisions.get(row.number, 0) + 1
        self._refuse_new(row, facts)
        if row.verdict is Verdict.OPEN:
            session = self._endpoint.new_incoming(self._peer_addr, c.host_type, policy)
            return self._open(session, c, Tag.READY, now)
        if row.verdict is Verdict.REPLACE:
            assert existing is not None
            return self._replace(existing, row, c, policy, now)
        if row.verdict is Verdict.RESETSESSION:
            reply = self._reply(c, policy, Tag.RESETSESSION)
        elif row.verdict is Verdict.RETRY_GLOBAL:
            assert existing is not None
            reply = self._reply(c, policy, Tag.RETRY_GLOBAL, global_seq=existing.peer_global_seq)
        else:
            assert existing is not None
            reply = self._retry_or_wait(existing, row, c, policy)
        self._endpoint.emit(Write(self._pipe, reply.encode()))
        return True

    def _facts(self, c: Connect, policy: Policy, existing: Session | None) -> Facts:
        """Of connect *c*, which speaks of the session *existing*."""
        e = existing or _NO_SESSION
        return Facts(
            existing is not None,
            e.state,
            e.lossy,
            e.policy.server,
            e.connect_seq,
            e.peer_global_seq,
            c.connect_seq,
            c.global_seq,
            policy.resetcheck,
            self._peer_addr.sort_key() < self._endpoint.addr.sort_key(),
            policy.lossy and not policy.register_lossy_clients,
        )

    def _refuse_new(self, row: Row, facts: Facts) -> None:
        """Raise HandshakeRefused if nobody new is let in, and this would be somebody new."""
        endpoint = self._endpoint
        sessions, max_sessions = len(endpoint.registry), endpoint.max_sessions
        why = refusal(
            row,
            facts,
            lame_duck=endpoint.lame_duck,
            sessions=sessions,
            max_sessions=max_sessions,
        )
        if why is None:
            return
        endpoint.counters.sessions_refused[why.value] += 1
        detail = f"{self._peer_addr} asks for a new session"
        if why is Refusal.MAX_SESSIONS:
            detail += f"; there are {sessions}, at most {max_sessions} may be"
        raise HandshakeRefused(why.value, detail)

    def _retry_or_wait(self, existing: Session, row: Row, c: Connect, policy: Policy) -> Reply:
        if row.verdict is Verdict.RETRY_SESSION:
            connect_seq = (existing.connect_seq + 1) & 0xFFFFFFFF
            return self._reply(c, policy, Tag.RETRY_SESSION, connect_seq=connect_seq)
        existing.keepalive_due = True  # so that our winning attempt cannot go idle
        return self._reply(c, policy, Tag.WAIT)

    def _replace(self, existing: Session, row: Row, c: Connect, policy: Policy, now: float) -> bool:
        """Spec §6: this pipe takes *existing* over, or its place if it is lossy."""
        endpoint = self._endpoint
        self._count_takeover(existing, now)
        if row.resets:
            endpoint.reset_session(existing, "the peer started a new session")
        reconnect = has_feature(c.features, RECONNECT_SEQ) and not row.hard
        tag = Tag.SEQ if reconnect else Tag.READY
        if existing.lossy:
            endpoint.end(existing, "replaced by a new connection of the same peer")
            if c.connect_seq and not policy.lossy:  # it was disposable, its peer does not know
                reply = self._reply(c, policy, Tag.RESETSESSION)
                endpoint.emit(Write(self._pipe, reply.encode()))
                return True
            session = endpoint.new_incoming(self._peer_addr, c.host_type, policy)
            return self._open(session, c, tag, now)
        endpoint.detach(existing)
        endpoint.registry.register(existing, self._peer_addr)
        existing.follow(policy)
        if row.hard:
            existing.begin_again()
        existing.in_seq_acked = existing.ack_seq
        existing.outbox.requeue_sent()
        return self._open(existing, c, tag, now)

    def _count_takeover(self, session: Session, now: float) -> None:
        """Again and again the same session, while it is in use: two peers with one identity."""
        endpoint = self._endpoint
        endpoint.counters.replaced += 1
        if session.state is not State.OPEN:
            return
        if now - session.takeovers_since > _CONTEST_S:
            session.takeovers, session.takeovers_since = 0, now
        session.takeovers += 1
        if session.takeovers == _CONTEST_TAKEOVERS:
            endpoint.counters.contested += 1
            text = (
                f"{_CONTEST_TAKEOVERS} connections took the place of a live one within"
                f" {_CONTEST_S:g} s: do two peers use the identity {session.peer_addr}?"
            )
            endpoint.emit(Report(session, "contested", text))

    def _open(self, session: Session, c: Connect, tag: Tag, now: float) -> bool:
        endpoint, policy = self._endpoint, session.policy
        supported = policy.features_supported
        session.connect_seq = (c.connect_seq + 1) & 0xFFFFFFFF
        session.peer_global_seq = c.global_seq
        session.features = supported & sanitize(c.features)
        flags = FLAG_LOSSY if policy.lossy else 0
        global_seq = endpoint.next_global_seq()
        version = self._version(c)
        session.handshake = HandshakeFacts(
            self._own,
            self._peer_addr,
            self._pipe.peer,
            tag.name,
            session.features,
            version,
            c.global_seq,
            session.connect_seq,
            policy.lossy,
        )
        reply = Reply(
            tag, supported, global_seq, session.connect_seq, version, self._auth_reply, flags
        )
        self._session = session
        self._attach(session, now)
        data = reply.encode()
        if tag == Tag.SEQ:
            endpoint.emit(Write(self._pipe, data + encode_seq(session.in_seq_acked)))
            self._step = self._read_seq
            return True
        endpoint.emit(Write(self._pipe, data))
        self._established(session, now)
        return False

    def _attach(self, session: Session, now: float) -> None:
        """*session* goes on over our pipe; its reply is not written yet."""
        session.move(Move.ACCEPTED)
        session.pipe, self._pipe.session = self._pipe, session
        session.last_received = now
        self._endpoint.emit(Event(session, EventKind.ACCEPT))

    def _established(self, session: Session, now: float) -> None:
        stage = Established(self._endpoint, self._pipe, session, offset=self._buf.offset)
        self._endpoint.session_ready(session, self._pipe, now)
        self._pipe.establish(stage, self._buf.take_rest(), now)
