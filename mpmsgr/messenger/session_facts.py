"""What connections know of their session, in the process that owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpmsgr.session.policy import Policy
from mpmsgr.session.session import HandshakeFacts, Session
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr

if TYPE_CHECKING:
    from mpmsgr.messenger.messenger import Messenger


class SessionFacts:
    """The facts of `Connection`, of *session*."""

    messenger: Messenger
    session: Session

    @property
    def id(self) -> int:
        """The session's id."""
        return self.session.id

    @property
    def peer_type(self) -> int:
        """Entity type number of the peer."""
        return self.session.peer_type

    @property
    def peer_addr(self) -> EntityAddr:
        """The peer's address, as far as it is known."""
        return self.session.peer_addr

    @property
    def my_addr(self) -> EntityAddr:
        """Our address as the peer was told."""
        return self.session.handshake.own if self.session.handshake else self.messenger.addr

    @property
    def features(self) -> int:
        """Negotiated feature bits; 0 before the first session."""
        return self.session.features

    @property
    def policy(self) -> Policy:
        """The policy in force; `lossy` is what the server decided."""
        return self.session.policy

    @property
    def handshake(self) -> HandshakeFacts | None:
        """What the last handshake said; None before the first."""
        return self.session.handshake

    @property
    def is_connected(self) -> bool:
        """Is the session open?"""
        return self.session.state is State.OPEN

    @property
    def failed(self) -> bool:
        """Is the session over for good?"""
        return self.session.state is State.CLOSED

    @property
    def last_keepalive(self) -> float | None:
        """When the peer last asked for a sign of life, seconds of `Messenger.now`, or None."""
        return self.session.last_keepalive

    @property
    def last_keepalive_ack(self) -> float | None:
        """The stamp that the peer returned last, seconds of `Messenger.now`; None before that."""
        return self.session.last_keepalive_ack
