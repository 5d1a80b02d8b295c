"""Connections as fast dispatchers see them where there are workers: in the I/O process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.group import Group, Service
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.dispatch.payload import to_message
from mpmsgr.errors import HandlerError, SessionReset
from mpmsgr.messenger.local_group import LocalGroup
from mpmsgr.messenger.messenger import Messenger
from mpmsgr.messenger.session_facts import SessionFacts
from mpmsgr.pool.front import PoolFront
from mpmsgr.pool.items import SessionLane
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message


class FastService(Service):
    """The sessions of *messenger*, whose messages *front* hands to workers."""

    def __init__(self, messenger: Messenger, front: PoolFront) -> None:
        self.messenger = messenger
        self.front = front

    def connection_of(self, session: Session) -> FastConnection:
        """The connection of *session*."""
        lane = self.front.lane_of(session)
        if lane.fast is None:
            lane.fast = FastConnection(self, lane)
        return lane.fast

    def connection(self, id_: int) -> FastConnection:
        """See `Service.connection`."""
        session = self.messenger.endpoint.registry.sessions.get(id_)
        if session is None:
            return FastConnection(self, SessionLane(Session.over(id_)))
        return self.connection_of(session)

    def group(self, name: str) -> Group:
        """See `Service.group`."""
        return LocalGroup(name, self.messenger, self.front.groups, None)


class FastConnection(SessionFacts, Connection):  # type: ignore[override]
    """One peer. What is sent leaves at once; nothing here waits."""

    def __init__(self, service: FastService, lane: SessionLane) -> None:
        self.messenger = service.messenger
        self.session = lane.session
        self.priv: Any = None
        self.last_reset: SessionReset | None = None
        self._service = service
        self._lane = lane
        self._is_down = False

    @property
    def failed(self) -> bool:
        """Is the session over for good?"""
        return self._is_down or self.session.state is State.CLOSED

    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send_message`."""
        if self._is_down:
            return False
        return self.messenger.send(self.session, m if type(m) is Message else to_message(m, data))

    async def send(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send_message`: it does not wait for room."""
        return self.send_message(m, data)

    def awaits(self, m: Message) -> bool:
        """See `Connection.awaits`: do handlers in workers?"""
        return self._lane.requests is not None and m.tid in self._lane.requests

    def send_keepalive(self) -> None:
        """See `Connection.send_keepalive`."""
        self.messenger.send_keepalive(self.session)

    def mark_down(self) -> None:
        """See `Connection.mark_down`; soon, when what came with this message is dealt with."""
        if not self.failed:
            self._is_down = True
            asyncio.get_running_loop().call_soon(self._service.front.mark_down, self.id)

    def mark_disposable(self) -> None:
        """See `Connection.mark_disposable`."""
        self.messenger.endpoint.mark_disposable(self.session)

    def connection(self, id_: int) -> Connection:
        """See `Connection.connection`."""
        return self._service.connection(id_)

    def group(self, name: str) -> Group:
        """See `Connection.group`."""
        return LocalGroup(name, self.messenger, self._service.front.groups, self.session)

    def request(
        self, m: Any, data: Bytes = b"", *, timeout: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Raises HandlerError: a reply would have to be waited for."""
        raise HandlerError("request", "is not there for fast dispatchers: they cannot wait")

    async def _request(self, m: Any, data: Bytes, timeout: float | None) -> Any:
        raise NotImplementedError

    def _current(self) -> Invocation | None:
        return None
