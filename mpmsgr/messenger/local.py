"""The sink of a messenger whose dispatchers run in its own process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mpmsgr.dispatch.chain import Chain
from mpmsgr.errors import SessionReset
from mpmsgr.messenger.connection import LocalConnection, MessengerConnection
from mpmsgr.messenger.runner import HELD, Item, Runner
from mpmsgr.session.actions import Event, EventKind
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import decode_raw

_RESETS = (EventKind.RESET, EventKind.REMOTE_RESET)


class LocalSink:
    """Decodes messages, hands replies to those who wait, everything else to the dispatchers.

    connection_of(session): its connection, made when it is first asked for; overrun(session): it
    is full, and more of its requests wait than we want to keep.
    """

    def __init__(
        self,
        chain: Chain,
        connection_of: Callable[[Session], MessengerConnection],
        overrun: Callable[[Session], None],
    ) -> None:
        self._overrun = overrun
        self.runner = Runner[LocalConnection](chain, self._completed)
        self._connection_of = connection_of
        self._running = 0
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """See `Sink`."""
        con = self._connection_of(session)
        nonce = session.peer_addr.nonce
        for raw in raws:
            self.dispatch(con, decode_raw(raw, nonce))
        if con.held_bytes > session.held_limit:
            self._overrun(session)

    def dispatch(self, con: LocalConnection, m: Message) -> None:
        """One message, decoded."""
        if not con.received(m):
            if con.lane.blocked & HELD:
                con.held_bytes += m.size
            self._submit(con, m)

    def _submit(self, con: LocalConnection, item: Item) -> None:
        self._running += 1
        self._idle.clear()
        self.runner.submit(con.lane, con, item)

    def event(self, event: Event) -> None:
        """See `Sink`."""
        con = self._connection_of(event.session)
        kind = event.kind
        if kind in (EventKind.CONNECT, EventKind.ACCEPT):
            con.connected()
        elif kind in _RESETS:
            peer = event.session.target or event.session.peer_addr
            error = SessionReset(peer, len(event.lost), event.lost)
            con.was_reset(error, final=kind is EventKind.RESET, kept=event.kept)
        if kind is EventKind.REMOTE_RESET or (kind is EventKind.RESET and event.session.lossy):
            self._discard(con)
        self._submit(con, kind.value)

    def _discard(self, con: MessengerConnection) -> None:
        """Forget messages of an ended session that no handler has; events stay (spec §8, §10)."""
        queue = con.lane.waiting
        events = [item for item in queue if not isinstance(item, Message)]
        for _ in range(len(queue) - len(events)):
            self._completed(con)
        queue.clear()
        queue.extend(events)

    def full(self, session: Session, full: bool) -> None:
        """See `Sink`."""
        con = self._connection_of(session)
        if session.full:  # by now
            con.lane.blocked |= HELD
            return
        con.held_bytes = 0
        con.has_room()
        self.runner.release(con.lane, con)

    async def drain(self) -> None:
        """See `Sink`."""
        await self._idle.wait()

    def _completed(self, con: object) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
