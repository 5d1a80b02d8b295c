"""Connections as a worker sees them: the sockets are elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.group import Group
from mpmsgr.dispatch.invocation import CURRENT, Invocation
from mpmsgr.dispatch.payload import to_message
from mpmsgr.dispatch.serial import Serial
from mpmsgr.errors import HandlerError, OutboxFull, RequestTimeout, SessionReset
from mpmsgr.messenger.requests import Requests, value_of
from mpmsgr.pool.envelope import ASKS, PUSHES, Intro
from mpmsgr.pool.outlet import Outlet
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import encode_parts

if TYPE_CHECKING:
    from mpmsgr.pool.runtime import Runtime


class RemoteConnection(Outlet, Connection):
    """One peer. What is sent collects here until the worker's next batch leaves.

    gone: the session is over; owned: the session's messages come to this worker.

    Pushes keep to the outbox's limit although the outbox is elsewhere: not more than that many
    bytes leave before the I/O process has said how full it is by then, and a handler holds no more
    of them. One that was not told
    about the session (`detach`, or got by id alone) knows no limit: there, what finds the outbox
    full is dropped, unless its sender waits for the answer (`send`).
    """

    def __init__(self, runtime: Runtime, id_: int) -> None:
        Outlet.__init__(self, id_, runtime.incarnation)
        self.peer_type = 0
        self.peer_addr = self.my_addr = EntityAddr()
        self.features = 0
        self.lossy = False
        self.priv: Any = None
        self.last_reset: SessionReset | None = None
        self.state_limit = runtime.state_limit
        self.lane = Serial(id_)
        self.gone = self.owned = False
        self._pushes: list[int] = []
        self._limit = self._full_with = 0  # of the outbox, for pushes; what is in it if it is full
        self._blocks = False
        self._pushed = self._asked = 0  # bytes since the last answer; of these, when we asked
        self._room: asyncio.Future[None] | None = None  # while somebody waits for it
        self._requests: Requests | None = None
        self._runtime = runtime

    def introduce(self, intro: Intro) -> None:
        """Take over facts from the I/O process."""
        self.peer_type = intro.peer_type
        self.peer_addr = EntityAddr.parse(intro.peer_addr)
        self.my_addr = EntityAddr.parse(intro.my_addr or "-")
        self.features, self.lossy = intro.features, intro.lossy
        self.owned = intro.owner
        if not intro.owner:
            self.detach()
            return
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
        if self._requests is not None:
            self._requests.fail(self.last_reset or SessionReset(self.peer_addr))

    def detach(self) -> None:
        """The session is no longer told about here: whether it is full, or over."""
        self.owned = False
        self._limit = self._full_with = self._pushed = self._asked = 0
        self._wake_senders()

    def _wake_senders(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    def _current(self) -> Invocation | None:
        return self._runtime.runner.current()

    def _is_full(self) -> bool:
        return self._limit > 0 and (self._full_with > 0 or self._pushed >= self._limit)

    def _asks(self) -> bool:
        """Is it time to ask how full the outbox is? Early enough not to have to wait."""
        return 2 * self._pushed > self._limit > 0 and not self._asked

    # sending

    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send_message`."""
        if self.gone:
            return False
        if type(m) is not Message:
            m = to_message(m, data)
        runtime = self._runtime
        push = not m.tid or m.src is runtime.name  # that name is ours: it went to another before
        if push:
            if self._is_full():
                raise OutboxFull(self.peer_addr, max(self._full_with, self._pushed), self._limit)
            m.tid, m.src = m.tid or runtime.tids.next(), runtime.name
            m.priority = m.priority or runtime.send_priority
        if len(m.data) > runtime.threshold:
            runtime.settle(m)
        head, parts = encode_parts(m, runtime.name, True, runtime.limits)
        body: Any = parts[0] if len(parts) == 1 else parts
        size = len(body) if len(parts) == 1 else sum(map(len, parts))
        run = runtime.runner.running
        if run is not None and run.con is self and run.plain and type(body) is bytes and not push:
            # A reply, and small, as most are. It waits where it will be fetched: nothing is fetched
            # before a handler that is not async has completed.
            if run.mark < 0:
                run.mark = len(self.out)
            run.held_bytes += size
            self.out += (head, body)
        else:
            run = run or CURRENT.get()
            if push and run is not None and run.holds:
                run.hold_push(self.id, size, self._limit)
            runtime.send(run, (self, head, body, size if push else 0), size)
        return True

    def put(self, head: bytes, body: Any, push: int) -> None:
        """Let a parcel leave with the next batch; *body* as the envelope has it; *push*: its size
        where nobody waits for it, else 0.
        """
        if push:
            self._pushes.append(len(self.out) // 2)
            if self._limit:
                self._pushed += push
        self.out += (head, body)
        if not self.dirty:
            self._runtime.has_output(self)

    async def send(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send`."""
        if not (self.owned or self.gone):
            m = to_message(m, data)
            if not m.tid or m.src is self._runtime.name:
                return await self._push(m)
        while self._blocks and self._is_full() and not self.gone:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)
        return self.send_message(m, data)

    async def _push(self, m: Message) -> bool:
        """Whether the session is there, only the I/O process can say. What a handler sends has to
        wait until it completes: then that is all that is asked before.
        """
        runtime = self._runtime
        if runtime.runner.holder() is None:
            return await runtime.push(self, m)
        return await runtime.push(self, None) and self.send_message(m)

    def allocate(self, nbytes: int) -> memoryview:
        """See `Connection.allocate`."""
        return self._runtime.allocate(nbytes)

    # requests

    async def _request(self, m: Any, data: Bytes, timeout: float | None) -> Any:
        """See `Connection.request`. The reply does not wait for the lane: it bypasses it."""
        runtime = self._runtime
        request = to_message(m, data)
        request.tid = request.tid or runtime.tids.next()
        requests = self._requests = self._requests or Requests()
        future = requests.expect(request.tid)
        try:
            if self.gone:
                raise self.last_reset or SessionReset(self.peer_addr)
            runtime.request(self, request)
            async with asyncio.timeout(timeout):
                reply = await future
        except TimeoutError:
            raise RequestTimeout(
                self.peer_addr, request.type, request.tid, timeout or 0, "in a worker"
            ) from None
        finally:
            requests.forget(request.tid)
            runtime.forget_request(request.tid)
        return reply if isinstance(m, Message) else value_of(reply)

    def answered(self, m: Message) -> None:
        """The reply to a request of a handler."""
        if self._requests is not None:
            self._requests.take_reply(m)

    def unanswered(self, tid: int) -> None:
        """There will be no reply to that request: the session is over."""
        if self._requests is not None:
            self._requests.give_up(tid, self.last_reset or SessionReset(self.peer_addr))

    # the rest

    def mark_down(self) -> None:
        """End the session, without an event on this side; what is not written yet is dropped."""
        if not self.gone:
            self._runtime.end(self)

    def mark_disposable(self) -> None:
        """See `Connection.mark_disposable`."""
        self._runtime.act("disposable", self.id)

    def send_keepalive(self) -> None:
        """See `Connection.send_keepalive`."""
        self._runtime.act("keepalive", self.id)

    def connection(self, id_: int) -> Connection:
        """See `Connection.connection`."""
        return self._runtime.connection(id_)

    def group(self, name: str) -> Group:
        """See `Connection.group`."""
        return RemoteGroup(name, self._runtime, self.id)

    @property
    def is_connected(self) -> bool:
        """Is the session still there, as far as this worker was told?"""
        return not self.gone

    @property
    def failed(self) -> bool:
        """Is the session over, as far as this worker was told?"""
        return self.gone

    def take_record(self) -> list[Any]:
        """See `Outlet.take_record`."""
        if self._pushes or self._pushed:
            self.note(PUSHES, self._pushes)
            self._pushes = []
            if self._asks():
                self.note(ASKS, True)
                self._asked = self._pushed
        return super().take_record()


class RemoteGroup(Group):
    """See `Group`; membership is kept in the I/O process. con_id: whose it is, 0: nobody's."""

    def __init__(self, name: str, runtime: Runtime, con_id: int) -> None:
        super().__init__(name)
        self._runtime = runtime
        self._con_id = con_id

    def join(self) -> None:
        """See `Group.join`."""
        self._runtime.act("join", self.name, self._member())

    def leave(self) -> None:
        """See `Group.leave`."""
        self._runtime.act("leave", self.name, self._member())

    def _member(self) -> int:
        if not self._con_id:
            raise ValueError(f"group {self.name!r} was not got from a connection")
        return self._con_id

    def send(self, m: Any, data: Bytes = b"") -> None:
        """See `Group.send`."""
        runtime = self._runtime
        head, body, size = runtime.encode(to_message(m, data))
        runtime.act("group", self.name, head, body=body, nbytes=size)


def check_held(held: int, more: int, limit: int) -> None:
    """Raise HandlerError if a handler that holds *held* bytes may not hold *more*."""
    if held + more > limit:
        text = (
            f"of {more} bytes: the handler holds {held} already until it completes, at most {limit}"
            " (held_bytes); @handles(streaming=True) sends at once"
        )
        raise HandlerError("a message", text)
