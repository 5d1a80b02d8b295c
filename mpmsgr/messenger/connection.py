"""Connections of a messenger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.group import Group
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.dispatch.payload import PayloadError, decode, to_message, type_of
from mpmsgr.dispatch.serial import Serial
from mpmsgr.errors import ConnectError, OutboxFull, RequestTimeout, SessionReset
from mpmsgr.messenger.requests import Requests, value_of
from mpmsgr.messenger.session_facts import SessionFacts
from mpmsgr.messenger.stream import MessageStream
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message

if TYPE_CHECKING:
    from mpmsgr.messenger.messenger import Messenger


log = logging.getLogger("mpmsgr.messenger")


class LocalConnection(Connection):
    """What connections in the messenger's own process share: requests, streams, reset facts.

    held_bytes: of the messages that came since the outbox is full, and have to wait.
    """

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger
        self.priv: Any = None
        self.last_reset: SessionReset | None = None
        self.lane = Serial()
        self.held_bytes = 0
        self._room: asyncio.Future[None] | None = None  # while somebody waits for it
        self._requests = Requests()
        self._streams: dict[int, MessageStream] = {}

    def connection(self, id_: int) -> Connection:
        """See `Connection.connection`."""
        return self.messenger.connection(id_)

    def awaits(self, m: Message) -> bool:
        """See `Connection.awaits`."""
        return self._requests.knows(m.tid) or m.type in self._streams

    async def _request(self, m: Any, data: Bytes, timeout: float | None) -> Any:
        request = to_message(m, data)
        request.tid = request.tid or self.messenger.sender.tids.next()
        try:
            async with asyncio.timeout(timeout):
                while self._is_full():
                    await self._wait_room()
                future = self._requests.expect(request.tid)
                if not self._send_now(request):
                    raise self._lost()
                reply = await future
        except TimeoutError:
            where, state = self._whereabouts()
            raise RequestTimeout(where, request.type, request.tid, timeout or 0, state) from None
        finally:
            self._requests.forget(request.tid)
        return reply if isinstance(m, Message) else value_of(reply)

    def _send_now(self, m: Message) -> bool:
        raise NotImplementedError

    def _current(self) -> Invocation | None:
        return self.messenger.running()

    def group(self, name: str) -> Group:
        """See `Connection.group`."""
        return self.messenger.group(name, self)

    async def send(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send`."""
        while True:
            try:
                return self.send_message(m, data)
            except OutboxFull:
                if not self._blocks():
                    raise
            await self._wait_room()

    def _blocks(self) -> bool:
        return False

    async def _wait_room(self) -> None:
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)

    def has_room(self) -> None:
        """The outbox is not full any more, or the session is over: wake who waits to send."""
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    def messages(self, type_: int | type) -> MessageStream:
        """Pushed messages of *type_*, from now on; they are not offered to dispatchers."""
        number = type_of(type_)
        stream = self._streams.get(number)
        if stream is None:
            stream = self._streams[number] = MessageStream(number)
            if self._is_over():
                stream.end(self._lost())
        return stream

    def received(self, m: Message) -> bool:
        """Is *m* a reply or for a stream? Then it has gone there."""
        if self._requests and self._requests.take_reply(m):
            return True
        stream = self._streams.get(m.type)
        if stream is None:
            return False
        try:
            decode(m)
        except PayloadError as err:
            log.warning("%s from %s", err, self)
        else:
            stream.put(m)
        return True

    def was_reset(self, error: SessionReset, *, final: bool, kept: Collection[int] = ()) -> None:
        """Requests raise *error* at once, but for *kept* tids; streams too when it is *final*."""
        self.last_reset = error
        self._requests.fail(error, kept)
        self.has_room()
        if final:
            for stream in self._streams.values():
                stream.end(error)

    def _lost(self) -> SessionReset:
        return self.last_reset or SessionReset(self.peer_addr)

    def _is_over(self) -> bool:
        return self.messenger.closed

    def _is_full(self) -> bool:
        return False

    def _whereabouts(self) -> tuple[object, str]:
        return self.peer_addr, "open"


class MessengerConnection(SessionFacts, LocalConnection):  # type: ignore[override]
    """The connection of one session."""

    def __init__(self, messenger: Messenger, session: Session) -> None:
        super().__init__(messenger)
        self.session = session
        self._connected: asyncio.Event = asyncio.Event()
        self._answers: list[asyncio.Future[float]] = []

    # acts

    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """See `Connection.send_message`."""
        run = self.messenger.holder()
        if run is None:
            return self.messenger.sender.send(self.session, to_message(m, data))
        return self.messenger.sender.hold(self.session, to_message(m, data), run)

    def _send_now(self, m: Message) -> bool:
        sent = self.messenger.sender.send(self.session, m)
        self.messenger.read_on(self)
        return sent

    @property
    def is_owed_reply(self) -> bool:
        """Has it pending requests?"""
        return len(self._requests) > 0

    def send_keepalive(self) -> None:
        """See `Connection.send_keepalive`."""
        self.messenger.send_keepalive(self.session)

    async def ping(self, timeout: float | None = None) -> float:
        """Round-trip time of a KEEPALIVE2, in seconds. Raises TimeoutError, SessionReset."""
        if self._is_over():
            raise self._lost()
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._answers.append(future)
        sent = self.messenger.now()
        self.send_keepalive()
        async with asyncio.timeout(timeout):
            return await future - sent

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Return when the session is open. Raises ConnectError after *timeout* seconds."""
        if self.session.state not in (State.OPEN, State.CLOSED):
            self._connected.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError:
            raise self._connect_error() from None
        if self.session.state is State.CLOSED:
            raise self._connect_error()

    def _connect_error(self) -> ConnectError:
        session = self.session
        return ConnectError(session.target or session.peer_addr, session.attempts, session.cause)

    def mark_down(self) -> None:
        """End the session, without an event on this side; pending requests raise SessionReset."""
        run = self.messenger.holder()
        if run is None:
            self.messenger.mark_down(self.session)
        else:
            run.hold(lambda: self.messenger.mark_down(self.session), 0)

    def mark_disposable(self) -> None:
        """See `Connection.mark_disposable`."""
        self.messenger.endpoint.mark_disposable(self.session)

    # what the messenger tells

    def connected(self) -> None:
        """The session is open."""
        self._connected.set()

    def answered(self, now: float) -> None:
        """A keepalive came back."""
        answers, self._answers = self._answers, []
        for future in answers:
            if not future.done():
                future.set_result(now)

    def was_reset(self, error: SessionReset, *, final: bool, kept: Collection[int] = ()) -> None:
        """See `LocalConnection.was_reset`."""
        super().was_reset(error, final=final, kept=kept)
        if final:
            self._connected.set()  # whoever waits finds the session closed
        else:
            self._connected.clear()
        answers, self._answers = self._answers, []
        for future in answers:
            if not future.done():
                future.set_exception(error)

    def _is_over(self) -> bool:
        return self.session.state is State.CLOSED

    def _is_full(self) -> bool:
        return self.session.full

    def _blocks(self) -> bool:
        return self.session.policy.outbox_full == "block"

    def _whereabouts(self) -> tuple[object, str]:
        session = self.session
        state = session.state.value + (f", {session.cause}" if session.cause else "")
        return session.target or session.peer_addr, state
