"""Dispatchers that get and verify authorizers (session spec §15), as the handshake asks them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from mpmsgr.dispatch.chain import name_of, overrides
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.errors import PLUGIN_FAILURES
from mpmsgr.session.auth import Authenticator, Authorizer, Verification
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.v1.handshake import Connect

log = logging.getLogger("mpmsgr.dispatch")


class Authorities:
    """Asks *dispatchers* in order, then *otherwise*: an `Authenticator`.

    Where one of them verifies peers, *otherwise* does not: what nobody claims is invalid then. An
    exception is logged, and proves nothing.
    """

    def __init__(
        self, dispatchers: Callable[[], Iterable[Dispatcher]], otherwise: Authenticator
    ) -> None:
        self._dispatchers = dispatchers
        self._otherwise = otherwise

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        """See `Authenticator`."""
        for dispatcher in self._with("get_authorizer"):
            try:
                authorizer = dispatcher.get_authorizer(peer_type, force_new)
            except PLUGIN_FAILURES:
                log.exception("%s: get_authorizer failed", name_of(dispatcher))
                return Authorizer()
            if authorizer is not None:
                return authorizer
        return self._otherwise.get_authorizer(peer_type, force_new)

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        """See `Authenticator`."""
        for dispatcher in self._with("answer_challenge"):
            try:
                authorizer = dispatcher.answer_challenge(peer_type, challenge)
            except PLUGIN_FAILURES:
                log.exception("%s: answer_challenge failed", name_of(dispatcher))
                return None
            if authorizer is not None:
                return authorizer
        return self._otherwise.answer_challenge(peer_type, challenge)

    def verify_reply(self, peer_type: int, reply: bytes) -> bool:
        """See `Authenticator`."""
        for dispatcher in self._with("verify_reply"):
            try:
                valid = dispatcher.verify_reply(peer_type, reply)
            except PLUGIN_FAILURES:
                log.exception("%s: verify_reply failed", name_of(dispatcher))
                return False
            if valid is not None:
                return valid
        return self._otherwise.verify_reply(peer_type, reply)

    def verify_authorizer(
        self, connect: Connect, peer_addr: EntityAddr, challenge: bytes
    ) -> Verification:
        """See `Authenticator`."""
        verifiers = self._with("verify_authorizer")
        if not verifiers:
            return self._otherwise.verify_authorizer(connect, peer_addr, challenge)
        presented = (connect.host_type, connect.authorizer_protocol, connect.authorizer)
        for dispatcher in verifiers:
            try:
                found = dispatcher.verify_authorizer(peer_addr, *presented, challenge)
            except PLUGIN_FAILURES:
                log.exception("%s: verify_authorizer failed", name_of(dispatcher))
                break
            if found is not None:
                return found
        return Verification(False)

    def _with(self, callback: str) -> list[Dispatcher]:
        return [d for d in self._dispatchers() if overrides(d, callback)]
