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

    def find_target(self, target: Target) -> Session | None:
        """The live session that connects to *target*."""
        return self._by_target.get(target)

    def register(self, session: Session, addr: EntityAddr) -> None:
        """Make *session* findable under *addr*, and under no other address."""
        self._forget_addr(session)
        session.peer_addr = addr
        self._by_addr[addr] = session

    def remove(self, session: Session) -> None:
        """Forget *session*."""
        self.sessions.pop(session.id, None)
        self._forget_addr(session)
        if session.target is not None and self._by_target.get(session.target) is session:
            del self._by_target[session.target]

    def _forget_addr(self, session: Session) -> None:
        if self._by_addr.get(session.peer_addr) is session:
            del self._by_addr[session.peer_addr]
