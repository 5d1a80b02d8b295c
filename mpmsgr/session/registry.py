"""Which sessions and pipes an endpoint has (session spec §1)."""

from __future__ import annotations

from collections.abc import Iterator

from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session, Target
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr


class Registry:
    """Live sessions by id, by the peer's address, by the target we were told; and open pipes."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.pipes: set[Pipe] = set()
        self._by_addr: dict[EntityAddr, Session] = {}
        self._by_target: dict[Target, Session] = {}
        self._by_place: dict[tuple[str, int], Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self.sessions.values()))

    def __len__(self) -> int:
        return len(self.sessions)

    def add(self, session: Session) -> None:
        """A new session, not findable by address yet."""
        self.sessions[session.id] = session
        if session.target is not None:
            self._by_target[session.target] = session

    def find(self, addr: EntityAddr) -> Session | None:
        """The live session registered for the peer at *addr*."""
        session = self._by_addr.get(addr)
        return None if session is None or session.state is State.CLOSED else session

    def find_peer(self, addr: EntityAddr) -> Session | None:
        """The same, or the live session that dials *addr* and has not heard yet who is there."""
        session = self.find(addr)
        if session is not None or not addr.port:
            return session
        target = Target(addr.host, addr.port, addr.nonce)
        session = self._by_target.get(target) or self._by_target.get(target._replace(nonce=None))
        return session if session is not None and session.peer_addr.is_blank_ip else None

    def find_target(self, target: Target) -> Session | None:
        """The live session that connects to *target*, or that the peer there opened."""
        session = self._by_target.get(target)
        if session is not None:
            return session
        session = self._by_place.get((target.host, target.port))
        if session is None or target.nonce not in (None, session.peer_addr.nonce):
            return None
        return session

    def register(self, session: Session, addr: EntityAddr) -> None:
        """Make *session* findable under *addr*, and under no other address."""
        self._forget_addr(session)
        session.peer_addr = addr
        self._by_addr[addr] = session
        if addr.port:
            self._by_place[addr.host, addr.port] = session

    def remove(self, session: Session) -> None:
        """Forget *session*."""
        self.sessions.pop(session.id, None)
        self._forget_addr(session)
        if session.target is not None and self._by_target.get(session.target) is session:
            del self._by_target[session.target]

    def _forget_addr(self, session: Session) -> None:
        addr = session.peer_addr
        if self._by_addr.get(addr) is session:
            del self._by_addr[addr]
        if addr.port and self._by_place.get((addr.host, addr.port)) is session:
            del self._by_place[addr.host, addr.port]
