"""Executes injected faults: a driver that cuts, delays and dribbles as an `Injector` draws."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.session.actions import Close, Deliver, Event, EventKind, Write
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.inject import DelayQueue, Injector
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Pause, Session
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.v1.parcel import raw_ids

if TYPE_CHECKING:
    from mpmsgr.messenger.sink import Sink


class DelayedDelivery:
    """Holds back received messages as *injector* draws, then passes them to *deliver*, in order."""

    def __init__(self, injector: Injector, deliver: Callable[[Session, list[Bytes]], None]) -> None:
        self._injector = injector
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._queues: dict[Session, DelayQueue] = {}
        self._timers: dict[Session, asyncio.TimerHandle] = {}

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """Deliver *raws*, each when its time has come."""
        queue = self._queues.setdefault(session, DelayQueue())
        now = self._loop.time()
        for raw in raws:
            _seq, _tid, type_, _priority = raw_ids(raw)
            delay = self._injector.delay(session, type_)
            queue.push(raw, now + delay if delay else 0.0)
        self._release(session)

    def _release(self, session: Session) -> None:
        timer = self._timers.pop(session, None)
        if timer is not None:
            timer.cancel()
        queue = self._queues.get(session)
        if queue is None:
            return
        ready = queue.due(self._loop.time())
        if ready:
            self._deliver(session, ready)
        if len(queue):
            self._timers[session] = self._loop.call_at(queue.next_at, self._release, session)
        else:
            self._queues.pop(session, None)

    def flush(self, session: Session) -> None:
        """Deliver everything of *session* now: its socket is gone, the session is not."""
        ready = self.discard(session)
        if ready:
            self._deliver(session, ready)

    def discard(self, session: Session) -> list[Bytes]:
        """Forget what is held of *session*: it was reset."""
        timer = self._timers.pop(session, None)
        if timer is not None:
            timer.cancel()
        queue = self._queues.pop(session, None)
        return queue.flush() if queue is not None else []

    def flush_all(self) -> None:
        """Deliver everything now."""
        for session in list(self._queues):
            self.flush(session)

    def close(self) -> None:
        """Forget everything."""
        for session in list(self._queues):
            self.discard(session)


class DribblingTransport:
    """An asyncio transport of which some writes move a few bytes only, the rest a turn later."""

    def __init__(self, transport: asyncio.Transport, injector: Injector, pipe: Pipe) -> None:
        self._transport, self._injector, self._pipe = transport, injector, pipe
        self._loop = asyncio.get_running_loop()
        self._rest = bytearray()

    def write(self, data: Bytes) -> None:
        """Write all of *data*, sooner or later."""
        waiting = bool(self._rest)
        self._rest += data
        if not waiting:
            self._go_on()

    def writelines(self, parts: Iterable[Bytes]) -> None:
        """Write all of *parts*."""
        self.write(b"".join(parts))

    def _go_on(self) -> None:
        if not self._rest or self._transport.is_closing():
            return
        size = self._injector.write_size(self._pipe.session) or len(self._rest)
        self._transport.write(bytes(self._rest[:size]))
        del self._rest[:size]
        if self._rest:
            self._loop.call_soon(self._go_on)

    def close(self) -> None:
        """Write what is left, then close."""
        rest, self._rest = self._rest, bytearray()
        if rest and not self._transport.is_closing():
            self._transport.write(bytes(rest))
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class FaultyDriver(Driver):
    """A driver with faults of *injector*."""

    def __init__(
        self, endpoint: Endpoint, sink: Sink, advertise: EntityAddr | None, injector: Injector
    ) -> None:
        self._injector = injector
        self._delayed = DelayedDelivery(injector, self._deliver_now)
        super().__init__(endpoint, sink, advertise)

    def receive_buffer(self, pipe: Pipe | None) -> memoryview:
        """See `Driver`; short reads."""
        size = self._injector.read_size(pipe.session if pipe else None)
        return self.buffer[:size] if size else super().receive_buffer(pipe)

    def wrap(self, transport: asyncio.Transport, pipe: Pipe) -> asyncio.Transport:
        """See `Driver`; short writes."""
        return cast(asyncio.Transport, DribblingTransport(transport, self._injector, pipe))

    def received(self, pipe: Pipe, data: bytes) -> None:
        """See `Driver`; cuts, and the internal delays of handshakes."""
        delay = self._injector.injection.internal_delay_s
        if self._cut(pipe):
            return
        if delay and pipe.established is None and isinstance(pipe.handle, PipeTransport):
            pipe.handle.pause_reading()
            self._loop.call_later(delay, self._received_late, pipe, data)
        else:
            super().received(pipe, data)

    def _received_late(self, pipe: Pipe, data: bytes) -> None:
        super().received(pipe, data)
        paused = pipe.session.paused if pipe.session else Pause(0)
        if isinstance(pipe.handle, PipeTransport) and not (paused or pipe.closed):
            pipe.handle.resume_reading()

    def landed(self, pipe: Pipe, size: int) -> None:
        """See `Driver`; cuts."""
        if not self._cut(pipe):
            super().landed(pipe, size)

    def _cut(self, pipe: Pipe) -> bool:
        if not isinstance(pipe.handle, PipeTransport) or not self._injector.cuts(pipe.session):
            return False
        pipe.handle.abort()
        self.socket_lost(pipe, "injected socket failure")
        return True

    def _write(self, action: Write) -> None:
        if not self._cut(action.pipe):
            super()._write(action)

    def _deliver(self, action: Deliver) -> None:
        self._delayed.deliver(action.session, action.raws)

    def _deliver_now(self, session: Session, raws: list[Bytes]) -> None:
        """Deliver what was held back as if it had just come: what handlers do waits for its end."""
        before, self._executing = self._executing, True
        try:
            self.sink.deliver(session, raws)
        finally:
            self._executing = before
        self.run()

    def _event(self, action: Event) -> None:
        if action.kind is EventKind.REMOTE_RESET:
            self._delayed.discard(action.session)
        super()._event(action)

    def _close(self, action: Close) -> None:
        session = action.pipe.session
        if session is not None:
            self._lost(session)
        super()._close(action)

    def _lost(self, session: Session) -> None:
        """Deliver now what is held back of *session*, or forget it with a lossy one (spec §10)."""
        if session.lossy:
            self._delayed.discard(session)
        else:
            self._delayed.flush(session)

    async def drain(self) -> None:
        """See `Driver`; what is held back is delivered now."""
        self._delayed.flush_all()
        await super().drain()

    async def close(self) -> None:
        """See `Driver`."""
        self._delayed.close()
        await super().close()
