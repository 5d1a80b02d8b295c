"""Authorizers as the handshake sees them: opaque bytes (wire spec §13, session spec §15)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.v1.handshake import Connect


class Authorizer(NamedTuple):
    """What a connecting side presents: protocol number (0 = nothing) and bytes."""

    protocol: int = 0
    data: bytes = b""


class Verification(NamedTuple):
    """What an accepting side found: *reply* bytes go back; *challenge* asks for another round."""

    valid: bool
    reply: bytes = b""
    challenge: bool = False


class Authenticator(Protocol):
    """Gets and verifies authorizers; called in the middle of handshakes, so it must be quick."""

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        """The authorizer for a peer of *peer_type*; *force_new* after it was rejected."""

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        """The authorizer that answers a server's *challenge*; None: there is no answer."""

    def verify_reply(self, peer_type: int, reply: bytes) -> bool:
        """Did the server prove in its authorizer *reply* that it is the one?"""

    def verify_authorizer(
        self, connect: Connect, peer_addr: EntityAddr, challenge: bytes
    ) -> Verification:
        """Judge the authorizer in *connect*; called also when there is none (protocol 0).

        peer_addr: as the peer announced it; challenge: what it was asked on this connection, b"" =
        nothing so far.
        """


class NoAuthentication:
    """Presents nothing, accepts nothing (protocol 0) and the auth-none authorizer (protocol 1)."""

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        """No authorizer."""
        return Authorizer()

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        """No answer."""
        return None

    def verify_reply(self, peer_type: int, reply: bytes) -> bool:
        """Anyone will do."""
        return True

    def verify_authorizer(
        self, connect: Connect, peer_addr: EntityAddr, challenge: bytes
    ) -> Verification:
        """Valid for protocols 0 and 1."""
        return Verification(connect.authorizer_protocol in (0, 1))
