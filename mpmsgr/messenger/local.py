"""The sink of a messenger whose dispatchers run in its own process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.dispatch.routes import KeyName, key_of
from mpmsgr.dispatch.serial import HELD, STOPPED, Serial
from mpmsgr.errors import SessionReset
from mpmsgr.messenger.connection import LocalConnection, MessengerConnection
from mpmsgr.messenger.groups import Groups
from mpmsgr.messenger.in_work import InWork
from mpmsgr.messenger.runner import Item, Runner
from mpmsgr.messenger.sink import HEAP, Sink
from mpmsgr.messenger.throttles import CLAIMS_ABOVE
from mpmsgr.messenger.ticker import Ticker
from mpmsgr.session.actions import Event, EventKind
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import decode_raw

log = logging.getLogger("mpmsgr.dispatch")

_RESETS = (EventKind.RESET, EventKind.REMOTE_RESET)
#: Above so many lanes of keys, those that have neither messages nor a state are forgotten.
_KEYS = 10_000


class LocalSink(Sink):
    """Decodes messages, hands replies to those who wait, everything else to the dispatchers.

    connection_of(session): its connection, made when it is first asked for; overrun(session): it
    is full, and more of its requests wait than we want to keep; on_handled(session, seq, prefix): a
    message of a session whose acks wait for that; service: for @every functions, caller: stands for
    the connection that their calls do not have; in_work: who has to know what is, if it is bounded.
    """

    def __init__(
        self,
        chain: Chain,
        connection_of: Callable[[Session], MessengerConnection],
        overrun: Callable[[Session], None],
        on_handled: Callable[[Session, int, HandledPrefix], None],
        service: Service,
        caller: LocalConnection,
        in_work: InWork | None,
    ) -> None:
        self.claims_above = CLAIMS_ABOVE if in_work is not None else 0
        self._in_work = in_work
        self._overrun = overrun
        self._on_handled = on_handled
        self._caller = caller
        self._owed: dict[Message, tuple[Session, HandledPrefix]] = {}  # their acks wait for us
        self.runner = Runner[LocalConnection](chain, self, service)
        self.groups = Groups()
        self._connection_of = connection_of
        self._keys: dict[KeyName, Serial] = {}
        self._ticker = Ticker(self._tick)
        self._calls: dict[str, Serial] = {}  # lanes of @every functions
        self._later: dict[Serial, asyncio.TimerHandle] = {}  # until a message is run again
        self._running = 0
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    # sink

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """See `Sink`."""
        nonce = session.peer_addr.nonce
        self._deliver(session, [decode_raw(raw, nonce) for raw in raws])

    def deliver_decoded(
        self, session: Session, raws: list[Bytes], messages: Sequence[Message | None]
    ) -> None:
        """See `Sink`."""
        nonce = session.peer_addr.nonce
        pairs = zip(raws, messages, strict=True)
        self._deliver(session, [m or decode_raw(raw, nonce) for raw, m in pairs])

    def _deliver(self, session: Session, messages: list[Message]) -> None:
        con = self._connection_of(session)
        for m in messages:
            if session.handled is not None:
                self._owed[m] = session, session.handled
            self.dispatch(con, m)
        if con.held_bytes > session.held_limit:
            self._overrun(session)
        if self._in_work is not None:
            self._in_work.came(con)

    def place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        """See `Sink`."""
        if self._in_work is None or pipe.session is None:
            return HEAP
        return self._in_work.place(self._connection_of(pipe.session), pipe, size, lead)

    def unplace(self, pipe: Pipe) -> None:
        """See `Sink`."""
        if self._in_work is not None:
            self._in_work.throttles.unclaim(pipe)

    def read_on(self, con: MessengerConnection) -> None:
        """What *con* waits for may be behind messages for which there is no room."""
        if self._in_work is not None:
            self._in_work.read_on(con)

    def dispatch(self, con: LocalConnection, m: Message) -> None:
        """One message, decoded."""
        if con.received(m):
            self._handled(m)
        else:
            if con.lane.blocked & HELD:
                con.held_bytes += m.size
            elif self._in_work is not None and isinstance(con, MessengerConnection):
                self._in_work.add(con, m)
            self._submit(self._lane_of(con, m), con, m)

    def _lane_of(self, con: LocalConnection, m: Message) -> Serial:
        """Messages of a full session wait for it, whatever their order."""
        handling = self.runner.chain.handling(m.type)
        if handling.ordering == "session" or con.lane.blocked & HELD:
            return con.lane
        if handling.ordering == "none":
            return Serial()
        key = key_of(handling, m.front)
        return con.lane if key is None else self._lane_of_key(key)

    def _lane_of_key(self, key: KeyName) -> Serial:
        lane = self._keys.get(key)
        if lane is None:
            if len(self._keys) > _KEYS:
                self._keys = {name: lane for name, lane in self._keys.items() if lane.is_kept}
            lane = self._keys[key] = Serial()
        return lane

    def _submit(self, lane: Serial, con: LocalConnection, item: Item) -> None:
        self._running += 1
        self._idle.clear()
        self.runner.submit(lane, con, item)

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
        if kind is EventKind.RESET:
            self.groups.ended(event.session)
            self.read_on(con)
        if kind is EventKind.REMOTE_RESET or (kind is EventKind.RESET and event.session.lossy):
            self._discard(con, kind)
        waiting = con.lane.waiting
        if kind is EventKind.ACCEPT and waiting and waiting[-1][1] == kind.value:
            return  # one says as much as many
        self._submit(con.lane, con, kind.value)

    def _discard(self, con: MessengerConnection, kind: EventKind) -> None:
        """Forget messages of an ended session that no handler has; events stay (spec §8, §10), but
        for an earlier one of *kind* and what followed on it.
        """
        queue = con.lane.waiting
        events = [waiting for waiting in queue if not isinstance(waiting[1], Message)]
        names = [name for _, name, _ in events]
        stay = events[: names.index(kind.value)] if kind.value in names else events
        self._running -= len(events) - len(stay)
        self._forget([item for _, item, _ in queue if isinstance(item, Message)])
        queue.clear()
        queue.extend(stay)
        if con.lane in self._later:  # for nothing, now
            self._later.pop(con.lane).cancel()
            self.runner.unblock(con.lane, STOPPED)

    def full(self, session: Session, full: bool) -> None:
        """See `Sink`."""
        con = self._connection_of(session)
        if session.full:  # by now
            con.lane.blocked |= HELD
            self.read_on(con)
            return
        con.held_bytes = 0
        con.has_room()
        self.runner.unblock(con.lane, HELD)

    async def drain(self) -> None:
        """See `Sink`."""
        self.close()
        await self._idle.wait()

    def close(self) -> None:
        """No more calls of @every functions, and nobody waits to be read on."""
        self._ticker.close()
        if self._in_work is not None:
            self._in_work.throttles.close()

    # @every

    def use_chain(self, chain: Chain) -> None:
        """Run the dispatchers of *chain* from now on, and what they want called regularly."""
        self.runner.chain = chain
        self._ticker.set({task.name: task.seconds for task in chain.every()})

    def _tick(self, name: str) -> None:
        lane = self._calls.setdefault(name, Serial())
        if not lane.blocked:  # or the last call is not over
            self._submit(lane, self._caller, name)

    # host of the runner

    def begun(self, run: Invocation) -> None:
        """See `Host`."""

    def suspended(self, run: Invocation) -> None:
        """See `Host`."""

    def resumed(self, lane: Serial, number: int) -> None:
        """See `Host`."""

    def completed(self, run: Invocation) -> None:
        """See `Host`."""
        for leave in run.sends or ():
            leave()
        self._forget([run.item])

    def undone(self, run: Invocation) -> None:
        """See `Host`."""

    def retry(self, run: Invocation, after: float) -> None:
        """See `Host`."""
        lane, item = run.lane, run.item
        if isinstance(item, Message):
            item.attempt += 1
        lane.blocked |= STOPPED
        lane.waiting.appendleft((run.con, item, 0))
        self._later[lane] = asyncio.get_running_loop().call_later(after, self._again, lane)

    def _again(self, lane: Serial) -> None:
        del self._later[lane]
        self.runner.unblock(lane, STOPPED)

    def broken(self) -> None:
        """See `Host`. The error goes on to the event loop, which logs it."""

    def poisoned(self, run: Invocation, reason: str) -> None:
        """See `Host`."""
        log.error("%r of %s is dropped: without workers there is no quarantine", run.item, run.con)

    def _handled(self, item: Item) -> None:
        """Tell a session whose acks wait for that."""
        if isinstance(item, Message) and item in self._owed:
            session, prefix = self._owed.pop(item)
            self._on_handled(session, item.seq, prefix)

    def _forget(self, items: Sequence[Item]) -> None:
        self._running -= len(items)
        if self._in_work is not None:
            self._in_work.remove(items)
        if self._owed:
            for item in items:
                self._handled(item)
        if not self._running:
            self._idle.set()
