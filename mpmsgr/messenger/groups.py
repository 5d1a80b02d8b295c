"""Which sessions are in which group, in the process that owns the sessions."""

from __future__ import annotations

from typing import Any

from mpmsgr.messenger.driver import Driver
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.v1.parcel import Parcel


class Groups:
    """Members by group, groups by member. A group exists while it has members."""

    def __init__(self) -> None:
        self.members: dict[str, dict[int, Session]] = {}
        self._of: dict[int, set[str]] = {}  # by session id

    def join(self, name: str, session: Session) -> None:
        """*session* is a member, until it leaves or ends; one that is over never is."""
        if session.state is State.CLOSED:
            return
        self.members.setdefault(name, {})[session.id] = session
        self._of.setdefault(session.id, set()).add(name)

    def leave(self, name: str, session: Session) -> None:
        """*session* is no member, if it was one."""
        members = self.members.get(name, {})
        if members.pop(session.id, None) is not None:
            self._of[session.id].discard(name)
            if not members:
                del self.members[name]
            if not self._of[session.id]:
                del self._of[session.id]

    def ended(self, session: Session) -> None:
        """*session* is over, and with it all of its memberships."""
        for name in list(self._of.get(session.id, ())):
            self.leave(name, session)

    def send(self, driver: Driver, name: str, head: bytes, body: Any) -> list[Parcel]:
        """Queue the parcel of *head* and *body* (see `Parcel.revive`) for every member whose outbox
        has room; returns what was queued.
        """
        endpoint, now = driver.endpoint, driver.now()
        queued = []
        for session in list(self.members.get(name, {}).values()):
            parcel = Parcel.revive(head, body)
            parcel.push = True
            if endpoint.admit(session, parcel.size):
                endpoint.send(session, [parcel], now)
                queued.append(parcel)
            else:
                endpoint.push_dropped(session, 1)
        return queued
