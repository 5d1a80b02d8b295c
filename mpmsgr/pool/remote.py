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

    Pushes keep to the outbox's limit although the outbox is elsewhere: not more than that many
    bytes leave before the I/O process has said how full it is by then. One that was not told
    about the session (`detach`, or got by id alone) knows no limit: there, what finds the outbox
    full is dropped.
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
        self._limit = self._full_with = 0  # of the outbox, for pushes; what is in it if it is full
        self._blocks = False
        self._pushed = self._asked = 0  # bytes since the last answer; of these, when we asked
        self._room: asyncio.Future[None] | None = None  # while somebody waits for it
        self._runtime = runtime

    def introduce(self, intro: Intro) -> None:
        """Take over facts from the I/O process."""
        self.peer_type = intro.peer_type
        self.peer_addr = EntityAddr.parse(intro.peer_addr)
        self.my_addr = EntityAddr.parse(intro.my_addr or "-")
        self.features, self.lossy = intro.features, intro.lossy
        self._limit = 0 if intro.outbox_full == "drop_oldest" else intro.outbox_bytes
        self._blocks = intro.outbox_full == "block"
        self._full_with = intro.full_with
        self._pushed -= self._asked
        self._asked = 0
        if self._asks() and not self.dirty:
            self._runtime.has_output(self)
        if not self._is_full():
            self._wake_senders()

    def leave(self) -> None:
        """The session is over."""
        self.gone = True
        self._wake_senders()

    def detach(self) -> None:
        """The session is no longer told about here: whether it is full, or over."""
        self._limit = self._full_with = self._pushed = self._asked = 0
        self._wake_senders()

    def _wake_senders(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    def _is_full(self) -> bool:
        return self._limit > 0 and (self._full_with > 0 or self._pushed >= self._limit)

    def _asks(self) -> bool:
        """Is it time to ask how full the outbox is? Early enough not to have to wait."""
        return 2 * self._pushed > self._limit > 0 and not self._asked

    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send_message`."""
        if self.gone:
            return False
        if type(m) is not Message:
            m = to_message(m, data)
        runtime = self._runtime
        if not m.tid or m.src is runtime.name:  # that name is ours: it went to another before
            self._push(m)
            return True
        head, body = encode_parts(m, runtime.name, limits=runtime.limits)
        self._out += (head, body[0] if len(body) == 1 else body)
        if not self.dirty:
            runtime.has_output(self)
        return True

    def _push(self, m: Message) -> None:
        if self._is_full():
            raise OutboxFull(self.peer_addr, max(self._full_with, self._pushed), self._limit)
        runtime = self._runtime
        m.tid, m.src = m.tid or runtime.tids.next(), runtime.name
        head, body = encode_parts(m, runtime.name, limits=runtime.limits)
        self._pushes.append(len(self._out) // 2)
        self._pushed += sum(map(len, body)) if self._limit else 0
        self._out += (head, body[0] if len(body) == 1 else body)
        if not self.dirty:
            runtime.has_output(self)

    async def send(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send`."""
        while self._blocks and self._is_full() and not self.gone:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)
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
        if self._pushes or self._pushed:
            asks = self._asks()
            record = (*record, self._pushes, asks)
            self._pushes = []
            self._asked = self._pushed if asks else self._asked
        self.completed, self._out, self.dirty = 0, [], False
        return record
