"""The connecting side of a handshake (session spec §3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mpmsgr.errors import HandshakeRefused, ProtocolError
from mpmsgr.session.actions import Event, EventKind, Write
from mpmsgr.session.established import Established
from mpmsgr.session.policy import protocol_version
from mpmsgr.session.session import HandshakeFacts
from mpmsgr.session.states import Move
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import feature_names, sanitize
from mpmsgr.wire.v1.handshake import (
    BANNER,
    FLAG_LOSSY,
    Connect,
    HandshakeBuffer,
    Reply,
    encode_seq,
)
from mpmsgr.wire.v1.tags import Tag

if TYPE_CHECKING:
    from mpmsgr.session.endpoint import Endpoint
    from mpmsgr.session.pipe import Pipe
    from mpmsgr.session.session import Session


class Connector:
    """Runs one attempt of *session* over *pipe*, whose TCP connection is there.

    Each step reads one structure; a step returns True when the next one may be tried.
    """

    def __init__(self, endpoint: Endpoint, pipe: Pipe, session: Session) -> None:
        self._endpoint, self._pipe, self._session = endpoint, pipe, session
        self._buf = HandshakeBuffer(endpoint.limits)
        self._step: Callable[[float], bool] = self._read_banner
        self._announced = self._seen = EntityAddr()
        self._cseq = session.connect_seq
        self._gseq = endpoint.next_global_seq()
        self._supported = session.policy.features_supported
        self._authorizer = endpoint.authenticator.get_authorizer(session.peer_type, False)
        self._rejected = False
        self._reply: Reply | None = None

    def start(self) -> None:
        """Say hello; nothing needs to be read first."""
        self._endpoint.emit(Write(self._pipe, BANNER))

    def received(self, data: bytes, now: float) -> None:
        """The next bytes. Raises ProtocolError or HandshakeRefused."""
        self._buf.feed(data)
        while self._step(now):
            pass

    # steps

    def _read_banner(self, now: float) -> bool:
        if self._buf.read_banner() is None:
            return False
        self._step = self._read_announced
        return True

    def _read_announced(self, now: float) -> bool:
        addr = self._buf.read_address()
        if addr is None:
            return False
        self._announced = addr
        self._identify(addr)
        self._step = self._read_seen
        return not self._pipe.closed

    def _read_seen(self, now: float) -> bool:
        addr = self._buf.read_address()
        if addr is None:
            return False
        self._seen = addr
        self._endpoint.learned_addr(addr)
        self._endpoint.emit(Write(self._pipe, self._endpoint.addr.encode()))
        self._propose()
        self._step = self._read_reply
        return True

    def _read_reply(self, now: float) -> bool:
        reply = self._buf.read_reply()
        if reply is None:
            return False
        self._session.last_received = now
        return _ON_TAG[reply.tag](self, reply, now)

    def _read_seq(self, now: float) -> bool:
        seq = self._buf.read_seq()
        if seq is None:
            return False
        session = self._session
        try:
            session.outbox.skip_to(seq)
        except ProtocolError:
            # It remembers a session that is not ours; the next attempt says so (§5, row 5).
            session.connect_seq = 0
            session.begin_again()
            raise
        session.in_seq_acked = session.ack_seq
        self._endpoint.emit(Write(self._pipe, encode_seq(session.in_seq_acked)))
        self._open(now)
        return False

    def _read_nothing(self, now: float) -> bool:
        rest = self._buf.take_rest()
        if rest:
            raise ProtocolError("reply", rest[:16], "nothing after WAIT", offset=self._buf.offset)
        return False

    # who answers

    def _identify(self, announced: EntityAddr) -> None:
        """Check the address the server announces: is it whom we dialled, and who was there before?

        Raises HandshakeRefused when somebody else answered.
        """
        endpoint, session, peer = self._endpoint, self._session, self._pipe.peer
        addr = announced.with_ip_of(peer) if announced.is_blank_ip else announced
        if session.verify_address and (addr.ip, addr.port) != (peer.ip, peer.port):
            raise HandshakeRefused(
                "wrong peer", f"dialled {peer.host}:{peer.port}, it announces {announced}"
            )
        nonce = session.target.nonce if session.target else None
        if nonce is not None and addr.nonce != nonce:
            raise HandshakeRefused("wrong peer", f"nonce {nonce} wanted, it announces {announced}")
        other = endpoint.registry.find(addr)
        if other is not None and other is not session:
            endpoint.end(session, f"session {other.id} is connected to {addr} already")
            return
        if session.handshake is not None and addr.nonce != session.peer_addr.nonce:
            endpoint.reset_session(session, f"the service at {addr} is another incarnation")
            self._cseq = 0
        endpoint.registry.register(session, addr)

    # answers

    def _propose(self) -> None:
        session, own_type = self._session, self._endpoint.name.type
        connect = Connect(
            features=self._supported,
            host_type=own_type,
            global_seq=self._gseq,
            connect_seq=self._cseq,
            protocol_version=self._endpoint.protocol_version
            or protocol_version(own_type, session.peer_type, connecting=True),
            authorizer_protocol=self._authorizer.protocol,
            authorizer=self._authorizer.data,
            flags=FLAG_LOSSY if session.policy.lossy else 0,
        )
        self._endpoint.emit(Write(self._pipe, connect.encode()))

    def _on_ready(self, reply: Reply, now: float) -> bool:
        session = self._session
        if not self._endpoint.authenticator.verify_reply(session.peer_type, reply.authorizer):
            raise HandshakeRefused(Tag(reply.tag).name, "the server's authorizer reply is wrong")
        missing = session.policy.features_required & ~sanitize(reply.features)
        if missing:
            raise HandshakeRefused("READY", f"the peer lacks {_names(missing)}")
        if reply.connect_seq != (self._cseq + 1) & 0xFFFFFFFF:
            raise ProtocolError("reply.connect_seq", reply.connect_seq, str(self._cseq + 1))
        self._reply = reply
        if reply.tag == Tag.SEQ:
            self._step = self._read_seq
            return True
        self._open(now)
        return False

    def _open(self, now: float) -> None:
        assert self._reply is not None
        reply, session = self._reply, self._session
        session.connect_seq = reply.connect_seq
        session.peer_global_seq = reply.global_seq
        session.features = sanitize(reply.features) & self._supported
        session.handshake = HandshakeFacts(
            self._endpoint.addr,
            self._announced,
            self._seen,
            Tag(reply.tag).name,
            session.features,
            reply.protocol_version,
            reply.global_seq,
            reply.connect_seq,
            reply.lossy,
        )
        if reply.lossy != session.policy.lossy:  # the server decides
            session.follow(replace(session.policy, lossy=reply.lossy))
        session.move(Move.OPENED)
        self._endpoint.emit(Event(session, EventKind.CONNECT))
        stage = Established(self._endpoint, self._pipe, session, offset=self._buf.offset)
        self._endpoint.session_ready(session, self._pipe, now)
        self._pipe.establish(stage, self._buf.take_rest(), now)

    def _on_reset_session(self, reply: Reply, now: float) -> bool:
        self._endpoint.reset_session(self._session, "the peer has no such session")
        self._cseq = 0
        self._propose()
        return True

    def _on_retry_global(self, reply: Reply, now: float) -> bool:
        self._gseq = self._endpoint.next_global_seq(reply.global_seq)
        self._propose()
        return True

    def _on_retry_session(self, reply: Reply, now: float) -> bool:
        if reply.connect_seq <= self._session.connect_seq:
            allowed = f"more than {self._session.connect_seq}"
            raise ProtocolError("reply.connect_seq", reply.connect_seq, allowed)
        self._cseq = self._session.connect_seq = reply.connect_seq
        self._propose()
        return True

    def _on_wait(self, reply: Reply, now: float) -> bool:
        """We lost a race; if the winner does not show up, try again (the Async rule, spec §2)."""
        session, endpoint = self._session, self._endpoint
        session.move(Move.TOLD_TO_WAIT)
        self._pipe.deadline = None
        session.retry_at = now + endpoint.timing.max_backoff_s
        endpoint.schedule(session, session.retry_at)
        self._step = self._read_nothing
        return True

    def _on_bad_authorizer(self, reply: Reply, now: float) -> bool:
        if self._rejected:
            raise HandshakeRefused("BADAUTHORIZER", "a fresh authorizer was rejected as well")
        self._rejected = True
        self._authorizer = self._endpoint.authenticator.get_authorizer(
            self._session.peer_type, True
        )
        self._propose()
        return True

    def _on_challenge(self, reply: Reply, now: float) -> bool:
        answer = self._endpoint.authenticator.answer_challenge(
            self._session.peer_type, reply.authorizer
        )
        if answer is None:
            raise HandshakeRefused("CHALLENGE_AUTHORIZER", "there is no answer to the challenge")
        self._authorizer = answer
        self._propose()
        return True

    def _on_features(self, reply: Reply, now: float) -> bool:
        lacking = reply.features & ~self._supported
        raise HandshakeRefused("FEATURES", f"the peer requires {_names(lacking)}")

    def _on_bad_version(self, reply: Reply, now: float) -> bool:
        raise HandshakeRefused("BADPROTOVER", f"the peer speaks version {reply.protocol_version}")


def _names(features: int) -> str:
    names = ", ".join(feature_names(features))
    return f"features {features:#x}" + (f" ({names})" if names else "")


_ON_TAG: dict[int, Callable[[Connector, Reply, float], bool]] = {
    Tag.READY: Connector._on_ready,
    Tag.SEQ: Connector._on_ready,
    Tag.RESETSESSION: Connector._on_reset_session,
    Tag.RETRY_GLOBAL: Connector._on_retry_global,
    Tag.RETRY_SESSION: Connector._on_retry_session,
    Tag.WAIT: Connector._on_wait,
    Tag.BADAUTHORIZER: Connector._on_bad_authorizer,
    Tag.CHALLENGE_AUTHORIZER: Connector._on_challenge,
    Tag.FEATURES: Connector._on_features,
    Tag.BADPROTOVER: Connector._on_bad_version,
}
