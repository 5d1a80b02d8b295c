"""Fast dispatch: what is done with messages before they get where they usually go (spec §5).

Their handlers run between bytes of peers, in the process that has the sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from mpmsgr.dispatch.chain import name_of, overrides
from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.errors import PLUGIN_FAILURES
from mpmsgr.logs import RateLimit, held_back
from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.refusals import refuse_failed
from mpmsgr.messenger.sink import Sink
from mpmsgr.session.actions import Event, EventKind
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import decode_raw, raw_ids

log = logging.getLogger("mpmsgr.dispatch")

#: Lines about one callback that took too long are at least so far apart, in seconds.
_SLOW_EVERY_S = 5.0
_CALLBACKS = {
    EventKind.CONNECT: "handle_fast_connect",
    EventKind.ACCEPT: "handle_fast_accept",
}


@dataclass
class FastCounts:
    """Messages dispatched, those of which the handler raised, callbacks that took too long."""

    dispatched: int = 0
    failed: int = 0
    over_budget: int = 0


class _Taken(NamedTuple):
    """*m* of *con*, that *dispatcher* takes; prefix: where it counts as handled, if acks wait."""

    dispatcher: Dispatcher
    con: Connection
    m: Message
    prefix: HandledPrefix | None


class _Held:
    """What of a session waits, and how much it is in bytes."""

    def __init__(self) -> None:
        self.taken: deque[_Taken] = deque()
        self.nbytes = 0


class FastSink(Sink):
    """Dispatches fast what dispatchers claim, and passes everything else on to *inner*.

    connection_of(session): what dispatchers get; budget_s: seconds that one callback may take
    (0 = any number), else it is counted and logged.
    """

    def __init__(
        self,
        inner: Sink,
        driver: Driver,
        connection_of: Callable[[Session], Connection],
        budget_s: float,
    ) -> None:
        self.claims_above = inner.claims_above
        self.counts = FastCounts()
        self._inner = inner
        self._driver = driver
        self._connection_of = connection_of
        self.budget_s = budget_s
        self._rate = RateLimit(_SLOW_EVERY_S)
        self._held: dict[Session, _Held] = {}
        self._none_held: asyncio.Event = asyncio.Event()
        self._none_held.set()
        self.use(())

    def use(self, dispatchers: Sequence[Dispatcher]) -> None:
        """The fast list, from now on."""
        self._fast = tuple(dispatchers)
        self._preprocess = [d for d in self._fast if overrides(d, "fast_preprocess")]
        by_type = not any(overrides(d, "can_fast_dispatch") for d in self._fast)
        types = frozenset(type_ for d in self._fast for type_ in d.message_types)
        #: Nobody wants to see messages of other types than these; None: somebody might.
        self._types = types if by_type and not self._preprocess else None

    # sink

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """See `Sink`."""
        con, prefix = self._connection_of(session), session.handled
        nonce, types = session.peer_addr.nonce, self._types
        rest: list[Bytes] = []
        messages: list[Message | None] = []
        for raw in raws:
            m = dispatcher = None
            if types is None or raw_ids(raw)[2] in types:
                m = decode_raw(raw if type(raw) is bytes else memoryview(raw).toreadonly(), nonce)
                dispatcher = self._taker(con, m)
            if m is None or dispatcher is None:
                rest.append(raw)
                messages.append(m)
            elif session.full or session in self._held:
                self._hold(session, _Taken(dispatcher, con, m, prefix), len(raw))
            else:
                self._run(session, dispatcher, con, m, prefix)
        if rest:
            self._inner.deliver_decoded(session, rest, messages)

    def event(self, event: Event) -> None:
        """See `Sink`."""
        session, kind = event.session, event.kind
        if kind in _CALLBACKS:
            self._tell(self._fast, _CALLBACKS[kind], self._connection_of(session))
        elif kind is EventKind.REMOTE_RESET or (kind is EventKind.RESET and session.lossy):
            self._discard(session)
        self._inner.event(event)

    def full(self, session: Session, full: bool) -> None:
        """See `Sink`."""
        self._inner.full(session, full)
        held = self._held.get(session)
        if held is None or session.full:
            return
        while held.taken and not session.full:
            self._run(session, *held.taken.popleft())
        if not held.taken:
            self._hold_no_more(session)

    def place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        """See `Sink`."""
        return self._inner.place(pipe, size, lead)

    def unplace(self, pipe: Pipe) -> None:
        """See `Sink`."""
        self._inner.unplace(pipe)

    async def drain(self) -> None:
        """See `Sink`."""
        await self._inner.drain()
        await self._none_held.wait()

    # the messenger's own connection

    def dispatches(self, con: Connection, m: Message) -> bool:
        """The messenger sent *m* to itself: was it dispatched?"""
        dispatcher = self._taker(con, m)
        if dispatcher is not None:
            self._dispatch(dispatcher, con, m)
        return dispatcher is not None

    def connected(self, con: Connection) -> None:
        """The messenger's own connection *con* is there, or has another address."""
        self._tell(self._fast, "handle_fast_connect", con)

    # messages

    def _taker(self, con: Connection, m: Message) -> Dispatcher | None:
        """Who dispatches *m*, after all have seen it."""
        if self._preprocess:
            self._tell(self._preprocess, "fast_preprocess", con, m)
        if con.awaits(m):
            return None
        for dispatcher in self._fast:
            try:
                if dispatcher.can_fast_dispatch(m):
                    return dispatcher
            except PLUGIN_FAILURES:
                log.exception("%s: can_fast_dispatch failed", name_of(dispatcher))
        return None

    def _hold(self, session: Session, taken: _Taken, nbytes: int) -> None:
        """Requests of a session whose outbox is full have to wait."""
        _move_out(taken.m)
        held = self._held.setdefault(session, _Held())
        held.taken.append(taken)
        held.nbytes += nbytes
        self._none_held.clear()
        if held.nbytes > session.held_limit:
            self._driver.endpoint.overrun(session, self._driver.now())

    def _run(
        self,
        session: Session,
        dispatcher: Dispatcher,
        con: Connection,
        m: Message,
        prefix: HandledPrefix | None,
    ) -> None:
        if not con.failed:
            _move_out(m)
            self._dispatch(dispatcher, con, m)
        if prefix is not None:
            self._done(session, m, prefix)

    def _done(self, session: Session, m: Message, prefix: HandledPrefix) -> None:
        driver = self._driver
        driver.endpoint.handled(session, [m.seq], driver.now(), prefix=prefix)

    def _dispatch(self, dispatcher: Dispatcher, con: Connection, m: Message) -> None:
        self.counts.dispatched += 1
        began = perf_counter()
        try:
            dispatcher.fast_dispatch(con, m)
        except PLUGIN_FAILURES as err:
            self.counts.failed += 1
            refuse_failed(con, m, err, self._rate)
        self._look_at_time(dispatcher, "fast_dispatch", began)

    def _discard(self, session: Session) -> None:
        """Its messages belong to a session that is no more."""
        held = self._held.get(session)
        if held is not None:
            for _, _, m, prefix in held.taken:
                if prefix is not None:
                    self._done(session, m, prefix)
            self._hold_no_more(session)

    def _hold_no_more(self, session: Session) -> None:
        del self._held[session]
        if not self._held:
            self._none_held.set()

    # callbacks

    def _tell(self, dispatchers: Sequence[Dispatcher], callback: str, *args: Any) -> None:
        for dispatcher in dispatchers:
            began = perf_counter()
            try:
                getattr(dispatcher, callback)(*args)
            except PLUGIN_FAILURES:
                log.exception("%s: %s of %s failed", name_of(dispatcher), callback, args[0])
            self._look_at_time(dispatcher, callback, began)

    def _look_at_time(self, dispatcher: Dispatcher, callback: str, began: float) -> None:
        took = perf_counter() - began
        if not 0 < self.budget_s < took:
            return
        self.counts.over_budget += 1
        who = f"{name_of(dispatcher)}.{callback}"
        held = self._rate.allows(who, began)
        if held is not None:
            budget = f"{self.budget_s * 1e3:g} ms"
            more = held_back(held)
            log.warning("%s took %.1f ms, its budget is %s%s", who, took * 1e3, budget, more)


def _move_out(m: Message) -> None:
    """Shared memory is no place for what is kept here, for as long as it may be."""
    if type(m.raw) is memoryview:
        m.data, m.raw = bytes(m.data), None
