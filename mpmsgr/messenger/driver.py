"""Executes what an endpoint wants done: the one place where sessions meet sockets and the clock."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpmsgr.logs import RateLimit, held_back
from mpmsgr.messenger.sink import HEAP
from mpmsgr.messenger.timers import Timers
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.session.actions import (
    Answered,
    Arrived,
    Close,
    Deliver,
    Dial,
    Event,
    Fault,
    Flush,
    FlushSoon,
    Full,
    Place,
    Report,
    StayPaused,
    Wake,
    Write,
)
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Pause, Session
from mpmsgr.wire.address import EntityAddr

if TYPE_CHECKING:
    from mpmsgr.messenger.sink import Sink
    from mpmsgr.messenger.throttles import Throttles

log = logging.getLogger("mpmsgr.session")

#: Longest time an ack waits for something to travel with, in seconds. Longer than most handlers
#: take, so that it leaves with their replies: a write of its own costs as much as five messages.
ACK_DELAY_S = 0.04
#: How long a closing socket may take to send what was written, in seconds.
_CLOSE_S = 1.0
#: Lines of one kind about sessions are at least so far apart, in seconds.
_REPORT_EVERY_S = 5.0
_RECEIVE_BUFFER = 256 * 1024
#: Read at the most where a message is expected that will get a place: what comes of it this way is
#: copied. 4 and 16 KiB cost the same for messages of 64 KiB; with others of 10 KiB between them,
#: 4 KiB costs twice as much.
_SHORT_READ = 16 * 1024
#: A server stops reading a peer that leaves more than this unread, in bytes.
_UNREAD_LIMIT = 4 * 1024 * 1024


class Driver:
    """The sockets and timers of one endpoint, on the running loop.

    on_answer(session): a keepalive came back; advertise: what is announced in place of the
    address a socket was accepted at; throttles: what decides which sessions are read, if anything
    does.
    """

    def __init__(self, endpoint: Endpoint, sink: Sink, advertise: EntityAddr | None) -> None:
        self.endpoint = endpoint
        self.sink = sink
        endpoint.claims_above = sink.claims_above
        self.buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._short = self.buffer[:_SHORT_READ]
        self._usual = self.buffer
        self.on_answer: Callable[[Session], None] = lambda session: None
        self.advertise = advertise
        self.throttles: Throttles | None = None
        self._loop = asyncio.get_running_loop()
        self._dirty: set[Pipe] = set()
        self._soon: set[Pipe] = set()
        self._flush_soon_timer: asyncio.TimerHandle | None = None
        self._timers = Timers(self._woken)
        self._dials: dict[Pipe, asyncio.Task[None]] = {}
        self._transports: set[PipeTransport] = set()
        # Addresses by themselves: all sessions that were told the same one refer to one object.
        self._announced: dict[EntityAddr, EntityAddr] = {}
        self._claiming: set[Pipe] = set()  # a place was asked for what they bring
        self._placeless: set[Pipe] = set()  # and it waits for `grant`
        self._all_gone = asyncio.Event()
        self._executing = False
        self._closed = False
        self._rate = RateLimit(_REPORT_EVERY_S)
        self._execute: dict[type, Callable[[Any], None]] = {
            Dial: self._dial,
            Write: self._write,
            Flush: self._mark,
            FlushSoon: self._mark_soon,
            Close: self._close,
            Wake: self._wake,
            Deliver: self._deliver,
            Place: self._place,
            Arrived: self._arrived,
            StayPaused: self._stay_paused,
            Event: self._event,
            Answered: self._answered,
            Full: self._full,
            Report: self._report,
            Fault: self._fault,
        }

    def now(self) -> float:
        """The clock of every `now`, in seconds."""
        return self._loop.time()

    # what sockets ask for

    def receive_buffer(self, pipe: Pipe | None) -> memoryview:
        """Where the next bytes of *pipe* go, unless they are of a message that has its place."""
        stage = pipe.established if pipe is not None else None
        return self._short if stage is not None and stage.parser.expects_large else self._usual

    def read_briefly(self, brief: bool) -> None:
        """Read little at a time: for as long as there is hardly room for what comes."""
        self._usual = self._short if brief else self.buffer

    def wrap(self, transport: asyncio.Transport, pipe: Pipe) -> asyncio.Transport:
        """What is written to instead of *transport*."""
        return transport

    # what happens to sockets

    def accepted(self, transport: PipeTransport, peer: EntityAddr, own: EntityAddr) -> Pipe:
        """A socket was accepted."""
        announced = (self.advertise or own)._replace(nonce=self.endpoint.addr.nonce)
        announced = self._announced.setdefault(announced, announced)
        pipe = self.endpoint.accept(peer, announced, self.now())
        pipe.handle = transport
        self.run()
        return pipe

    def dialled(self, pipe: Pipe, peer: EntityAddr) -> None:
        """Our TCP connection is there."""
        self.endpoint.dialled(pipe, peer, self.now())
        self.run()

    def received(self, pipe: Pipe, data: bytes) -> None:
        """Bytes came."""
        pipe.receive(data, self._loop.time())
        self.run()

    def landed(self, pipe: Pipe, size: int) -> None:
        """Bytes of a large message came where they belong."""
        pipe.landed(size, self._loop.time())
        self.run()

    def socket_lost(self, pipe: Pipe, cause: str) -> None:
        """A socket is gone."""
        self._dirty.discard(pipe)
        self._soon.discard(pipe)
        self.endpoint.lost(pipe, cause, self.now())
        self.run()

    def write_paused(self, pipe: Pipe, paused: bool) -> None:
        """The peer's reading stalled, or goes on."""
        if not paused:
            self._mark_dirty(pipe)
            if pipe.session is not None:
                self.resume_reading(pipe.session, Pause.UNREAD)

    # reading on and off

    def pause_reading(self, session: Session, reason: Pause) -> None:
        """Stop reading *session* for one more *reason*; its silence is not held against it."""
        before = session.paused
        session.paused |= reason
        if not before:
            self.endpoint.paused(session, self.now())
        self._stop_reading(session)

    def _stay_paused(self, action: StayPaused) -> None:
        self._stop_reading(action.session)

    def _stop_reading(self, session: Session) -> None:
        transport = session.pipe.handle if session.pipe else None
        if isinstance(transport, PipeTransport):
            transport.pause_reading()

    def resume_reading(self, session: Session, reason: Pause) -> None:
        """*reason* is over: read *session* again, if it was the last one."""
        if not session.paused & reason:
            return
        session.paused &= ~reason
        session.last_received = self.now()
        pipe = session.pipe
        if session.paused or pipe is None:
            return
        if isinstance(pipe.handle, PipeTransport):
            pipe.handle.resume_reading()
        if pipe.holds_something:
            self._loop.call_soon(self._read_on, pipe)  # not in the midst of what made room

    def _read_on(self, pipe: Pipe) -> None:
        pipe.read_on(self.now())
        self.run()

    # places for long messages

    def grant(self, pipe: Pipe, place: memoryview) -> bool:
        """Now there is *place* (or HEAP) for the message of *pipe*: read on.

        False: too late, the pipe is gone.
        """
        if pipe not in self._placeless:
            return False
        granted = pipe.land(None if place is HEAP else place)
        self._wait_no_more(pipe)
        return granted

    def _place(self, action: Place) -> None:
        pipe = action.pipe
        if pipe.closed or pipe.session is None:
            return
        self._claiming.add(pipe)
        place = self.sink.place(pipe, action.size, action.lead)
        if place is None:
            self._placeless.add(pipe)
            self.pause_reading(pipe.session, Pause.ARENA)
        else:
            pipe.land(None if place is HEAP else place)

    def _arrived(self, action: Arrived) -> None:
        self._unplace(action.pipe)

    def _unplace(self, pipe: Pipe) -> None:
        if pipe not in self._claiming:
            return
        self._claiming.discard(pipe)
        if pipe in self._placeless:
            self._wait_no_more(pipe)
        self.sink.unplace(pipe)

    def _wait_no_more(self, pipe: Pipe) -> None:
        self._placeless.discard(pipe)
        if pipe.session is not None:
            self.resume_reading(pipe.session, Pause.ARENA)

    # executing

    def run(self) -> None:
        """Execute the endpoint's actions, and those that doing so brings up."""
        if self._executing:
            return
        self._executing = True
        execute = self._execute
        try:
            while actions := self.endpoint.take():
                for action in actions:
                    execute[type(action)](action)
        finally:
            self._executing = False

    def _dial(self, action: Dial) -> None:
        if self._closed:
            return
        task = self._loop.create_task(self._connect(action))
        self._dials[action.pipe] = task
        task.add_done_callback(lambda _: self._dials.pop(action.pipe, None))

    async def _connect(self, action: Dial) -> None:
        pipe = action.pipe
        try:
            await self._loop.create_connection(
                lambda: PipeTransport(self, pipe), action.host, action.port
            )
        except (OSError, ValueError) as err:  # ValueError: a host name that cannot be encoded
            refused = isinstance(err, ConnectionRefusedError)
            self.endpoint.lost(pipe, _dial_error(action, err), self.now(), refused=refused)
            self.run()

    def _write(self, action: Write) -> None:
        if isinstance(action.pipe.handle, PipeTransport):
            if action.pipe in self._dirty:
                self._flush(action.pipe)
            action.pipe.handle.write(action.data)

    def _close(self, action: Close) -> None:
        self._stop_dialling(action.pipe)
        self._unplace(action.pipe)
        transport = action.pipe.handle
        if isinstance(transport, PipeTransport):
            transport.close()
            if transport.has_unsent:  # a peer that does not read would keep the socket for ever
                self._loop.call_later(_CLOSE_S, transport.abort)

    def _stop_dialling(self, pipe: Pipe) -> None:
        """Cancel the dial of *pipe*, unless it has its socket: uvloop would close that without a
        word to its protocol.
        """
        dial = self._dials.get(pipe)
        connected = pipe.handle in self._transports
        if dial is not None and not connected and dial is not asyncio.current_task():
            dial.cancel()

    def _deliver(self, action: Deliver) -> None:
        self.sink.deliver(action.session, action.raws)

    def _event(self, action: Event) -> None:
        self.sink.event(action)

    def _answered(self, action: Answered) -> None:
        self.on_answer(action.session)

    def _full(self, action: Full) -> None:
        self.sink.full(action.session, action.full)

    def _report(self, action: Report) -> None:
        more = self._held_back(action.kind)
        if more is not None:
            fields = {"session": action.session.id, "peer": str(action.session.peer_addr)}
            log.warning("session %d, %s%s", action.session.id, action.text, more, extra=fields)

    def _held_back(self, kind: str) -> str | None:
        """What a line of *kind* says of those before it; None: it is held back, too."""
        held = self._rate.allows(kind, self.now())
        return None if held is None else held_back(held)

    def _fault(self, action: Fault) -> None:
        pipe, more = action.pipe, self._held_back(action.kind) if action.kind else ""
        if more is None:
            return
        grave = action.hostile or (pipe.incoming and pipe.session is None)
        fields: dict[str, object] = {"peer": str(pipe.peer)}
        if pipe.session is not None:
            fields["session"] = pipe.session.id
        level = logging.WARNING if grave else logging.INFO
        log.log(
            level, "pipe %d, peer %s: %s%s", pipe.id, pipe.peer, action.cause, more, extra=fields
        )

    # timers

    def _wake(self, action: Wake) -> None:
        self._timers.add(action.target, action.at)

    def _woken(self, target: Pipe | Session) -> None:
        self.endpoint.wake(target, max(self.now(), target.wake_at or 0.0))
        self.run()

    # writing

    def _mark(self, action: Flush) -> None:
        self._mark_dirty(action.pipe)

    def _mark_dirty(self, pipe: Pipe) -> None:
        if not self._dirty:
            self._loop.call_soon(self._flush_dirty)
        self._dirty.add(pipe)

    def _mark_soon(self, action: FlushSoon) -> None:
        self._soon.add(action.pipe)
        if self._flush_soon_timer is None:
            self._flush_soon_timer = self._loop.call_later(ACK_DELAY_S, self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_soon_timer = None
        soon, self._soon = self._soon, set()
        for pipe in soon:
            if pipe.established is not None and pipe.established.flush_soon:
                self._mark_dirty(pipe)

    def _flush_dirty(self) -> None:
        """Once per loop turn: one write for each pipe that has something to say."""
        dirty, self._dirty = self._dirty, set()
        now = self._loop.time()
        for pipe in dirty:
            self._flush(pipe, now)
        if self.endpoint.has_actions:  # an outbox that was full may have room
            self.run()

    def _flush(self, pipe: Pipe, now: float | None = None) -> None:
        transport = pipe.handle
        if not isinstance(transport, PipeTransport):
            return
        if transport.write_paused:
            self._throttle_reader(pipe)
            return
        out = pipe.output(self._loop.time() if now is None else now)
        if out:
            transport.write_all(out)
        if pipe.has_more:
            self._mark_dirty(pipe)

    def _throttle_reader(self, pipe: Pipe) -> None:
        """A client that sends requests and reads no replies has to wait."""
        session = pipe.session
        if session is None or not session.policy.server:
            return
        if session.outbox.nbytes > _UNREAD_LIMIT:
            self.pause_reading(session, Pause.UNREAD)

    # the end

    async def drain(self) -> None:
        """Return when everything received has been handled."""
        await self.sink.drain()

    async def close(self) -> None:
        """Close every socket and timer, written bytes first; later events are ignored."""
        self._closed = True
        self._flush_dirty()
        self._timers.close()
        if self._flush_soon_timer is not None:
            self._flush_soon_timer.cancel()
        for pipe in list(self._dials):
            self._stop_dialling(pipe)
        for pipe in list(self.endpoint.registry.pipes):
            pipe.close()
        await self._close_transports()

    async def _close_transports(self) -> None:
        for transport in list(self._transports):
            transport.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                while self._transports:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:  # a peer that does not read what is left
            for transport in list(self._transports):
                transport.abort()

    def transport_made(self, transport: PipeTransport) -> None:
        """*transport* has a socket."""
        self._transports.add(transport)

    def transport_gone(self, transport: PipeTransport) -> None:
        """The socket of *transport* is closed."""
        self._transports.discard(transport)
        if not self._transports:
            self._all_gone.set()


def _dial_error(action: Dial, err: Exception) -> str:
    known = isinstance(err, OSError) and err.errno and err.errno > 0
    why = os.strerror(err.errno) if known else str(err)  # type: ignore[attr-defined]
    return f"cannot connect to {action.host}:{action.port}: {why}"
