"""Connections as a worker sees them: the sockets are elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.payload import to_message
from mpmsgr.errors import OutboxFull, SessionReset
from mpmsgr.messenger.runner import Lane
from mpmsgr.pool.envelope import Intro, OutRecord
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import encode_parts

if TYPE_CHECKING:
    from mpmsgr.pool.runtime import Runtime


class RemoteConnection(Connection):
    """One peer. What is sent collects here until the worker's next batch leaves.

    completed: items handled since then; dirty: it waits to be taken; gone: the session is over.
    """

    def __init__(self, runtime: Runtime, id_: int) -> None:
        self.id = id_
        self.peer_type = 0
        self.peer_addr = self.my_addr = EntityAddr()
        self.features = 0
        self.lossy = False
        self.priv: Any = None
        self.last_reset: SessionReset | None = None
        self.lane = Lane()
        self.gone = False
        self.completed = 0
        self.dirty = False
        self._out: list[Any] = []
        self._pushes: list[int] = []
        self._outbox_full, self._outbox_bytes, self._full_with = "block", 0, 0
        self._room: list[asyncio.Future[None]] = []
        self._runtime = runtime

    def introduce(self, intro: Intro) -> None:
        """Take over facts from the I/O process."""
        self.peer_type = intro.peer_type
        self.peer_addr = EntityAddr.parse(intro.peer_addr)
        self.my_addr = EntityAddr.parse(intro.my_addr or "-")
        self.features, self.lossy = intro.features, intro.lossy
        self._outbox_full, self._outbox_bytes = intro.outbox_full, intro.outbox_bytes
        self._full_with = intro.full_with
        if not self._full_with:
            self._wake_senders()

    def leave(self) -> None:
        """The session is over."""
        self.gone = True
        self._wake_senders()

    def detach(self) -> None:
        """The session is no longer told about here: whether it is full, or over."""
        self._full_with = 0
        self._wake_senders()

    def _wake_senders(self) -> None:
        waiting, self._room = self._room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send_message`."""
        if self.gone:
            return False
        if type(m) is not Message:
            m = to_message(m, data)
        if not m.tid:
            if self._full_with and self._outbox_full != "drop_oldest":
                raise OutboxFull(self.peer_addr, self._full_with, self._outbox_bytes)
            m.tid = self._runtime.tids.next()
            self._pushes.append(len(self._out) // 2)
        head, body = encode_parts(m, self._runtime.name, limits=self._runtime.limits)
        self._out += (head, body[0] if len(body) == 1 else body)
        if not self.dirty:
            self._runtime.has_output(self)
        return True

    async def send(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send`."""
        while self._full_with and self._outbox_full == "block" and not self.gone:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(room)
            await room
        return self.send_message(m, data)

    def mark_down(self) -> None:
        """End the session, without an event on this side; what is not written yet is dropped."""
        if not self.gone:
            self._runtime.mark_down(self)

    def connection(self, id_: int) -> Connection:
        """See `Connection.connection`."""
        return self._runtime.connection(id_)

    @property
    def is_connected(self) -> bool:
        """Is the session still there, as far as this worker was told?"""
        return not self.gone

    def take_record(self) -> OutRecord:
        """What happened since the last batch."""
        record: OutRecord = (self.id, self.completed, self._out)
        if self._pushes:
            record = (*record, self._pushes)
            self._pushes = []
        self.completed, self._out, self.dirty = 0, [], False
        return record
