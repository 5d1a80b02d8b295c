"""What a worker does with batches: run the dispatchers, send back what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic, monotonic_ns
from typing import Any

from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.group import Group, Service
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.dispatch.serial import STOPPED as AGAIN_LATER
from mpmsgr.dispatch.serial import Serial
from mpmsgr.dispatch.state import State
from mpmsgr.errors import SessionReset
from mpmsgr.messenger.runner import Runner
from mpmsgr.messenger.tids import TidSource
from mpmsgr.pool import envelope as env
from mpmsgr.pool import page as cell
from mpmsgr.pool.link import Link
from mpmsgr.pool.outbound import Outbound
from mpmsgr.pool.outlet import LaneOutlet, Outlet
from mpmsgr.pool.pushes import Pushes
from mpmsgr.pool.remote import RemoteConnection, RemoteGroup, check_held
from mpmsgr.pool.ringed import Ringed
from mpmsgr.pool.waiting import Waiting
from mpmsgr.pool.worker_memory import WorkerMemory
from mpmsgr.session.actions import EventKind
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import PRIO_DEFAULT, Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import decode_raw, encode_parts, raw_ids

#: Replies leave at the latest this long after the first of them was made, in seconds, also while
#: a batch of slow messages is being worked on. About half of what a worker holds (credit.py).
_FLUSH_EVERY_S = 0.0005

_RESETS = {EventKind.RESET.value, EventKind.REMOTE_RESET.value}
_NOWHERE = [0] * (cell.STARTED + cell.STARTED_COUNT)


class _SupersededError(Exception):
    """The I/O process whose batch is being worked on is gone, and another one is served now."""


class Runtime(Service):
    """The dispatchers of one worker and its link to the I/O process.

    name: whose messages ours are; on_first: called when the first item is completed; on_busy:
    called now and then while a batch is being worked on, when no event reaches the loop; on_broken:
    called in the handling of an error that is none of a handler's, and is to end the process: what
    is in work here is in good order nowhere but in the I/O process; memory:
    what is shared with the I/O process, None: everything travels in frames; limits: of what is
    sent; send_priority: of what is sent and names none; state_limit: bytes of a lane's state;
    held_limit: bytes a handler may hold; credit: messages this worker may hold.
    """

    def __init__(
        self,
        chain: Chain,
        name: EntityName,
        slot: int,
        generation: int,
        on_first: Callable[[], None],
        on_busy: Callable[[], None],
        *,
        on_broken: Callable[[], None],
        memory: WorkerMemory | None = None,
        limits: Limits | None = None,
        send_priority: int = PRIO_DEFAULT,
        state_limit: int = 1 << 16,
        held_limit: int = 128 << 20,
        credit: int = 1024,
    ) -> None:
        self.name = name
        self.threshold = memory.threshold if memory else 1 << 62
        self.limits = limits or Limits()
        self.state_limit, self.held_limit = state_limit, held_limit
        self.send_priority = send_priority
        self.tids = TidSource()
        self.pushes = Pushes()
        self.runner = Runner[RemoteConnection](chain, self, self)
        self._slot, self._generation = slot, generation
        self._on_first: Callable[[], None] | None = on_first
        self._on_busy = on_busy
        self._on_broken = on_broken
        self._on_linked: Callable[[], None] | None = None
        self.incarnation = 0
        self._link: Link | None = None
        self._memory = memory
        if memory is not None:
            memory.on_ended = self._views_ended
        self._cells: Any = memory.page.cells if memory else list(_NOWHERE)
        self._ringed = Ringed()
        self._cons: dict[int, RemoteConnection] = {}
        self._lanes: dict[int, LaneOutlet] = {}  # those that have no connection of their own
        self._asking: dict[int, RemoteConnection] = {}  # by tid: who waits for a reply
        self._out = Outbound(self._send_batch)
        self._waiting = Waiting(credit)
        self._timed: dict[int, int] = {}  # by number: when the items began that are timed
        self._handled = self._failed_told = 0
        self._number = 0  # of the item that came last
        self._epoch = 0  # RECALL, as far as it is dealt with
        self._stopped_at = 0  # while nothing is run until RECALLED comes: from this number on
        self._flush_at = self._busy_since = 0.0

    # the link

    def connect(
        self,
        endpoint: str,
        incarnation: int,
        on_linked: Callable[[], None],
        ingress: tuple[int, int] | None = None,
    ) -> None:
        """Serve the I/O process at *endpoint*; whatever came from an earlier one is void.

        on_linked: called when it has told that it knows us; ingress: descriptor and size of its
        arena.
        """
        self.disconnect()
        self.incarnation, self._on_linked = incarnation, on_linked
        if self._memory is not None and ingress is not None:
            self._ringed = self._memory.link(*ingress)
        me = env.identity(self._slot, self._generation)
        self._link = Link.dealer(endpoint, me, self._received)
        chain = self.runner.chain
        routes = {type_: handling.as_wire() for type_, handling in chain.routes().items()}
        every = [[name, seconds] for name, seconds, _ in chain.every()]
        facts = {env.ROUTES: routes, env.EVERY: every, env.NUMBER: self._number}
        self._send(env.READY, facts)

    @property
    def shortest_deadline_s(self) -> float:
        """Of all handlers that have one, in seconds; 0: none has."""
        handlings = self.runner.chain.routes().values()
        return min((h.soft_s for h in handlings if h.hard_s), default=0.0)

    def disconnect(self) -> None:
        """Leave the I/O process that we serve."""
        for con in [*self._cons.values(), *self._asking.values()]:
            con.leave()
        self._cons.clear()
        self._asking.clear()
        self.pushes.fail()
        self._lanes.clear()
        self._out.discard()
        # Numbers go on: what still runs for the earlier one keeps its own.
        self._stopped_at = self._epoch = self._cells[cell.RECALL] = 0
        self._waiting.clear()
        self._timed.clear()
        if self._link is not None:
            self._link.close()
            self._link = None

    def goodbye(self) -> None:
        """Nothing more will come from here."""
        self._out.flush()
        self._send(env.BYE, None)
        self.disconnect()

    def _send(self, kind: int, payload: object) -> None:
        if self._link is not None:
            frame = (self.incarnation, self._generation, kind, payload)
            # The first frame is read before our ring is known.
            self._link.send(env.pack(frame) if kind == env.READY else self._ringed.pack(frame))

    # batches in

    def _received(self, parts: list[bytes]) -> None:
        incarnation, records, more = self._ringed.unpack(parts[0])
        if incarnation != self.incarnation:
            return
        if more is not None:
            self._told(more)
        if self._on_linked is not None:
            self._on_linked()
            self._on_linked = None
        self._out.working = True
        if self._memory is not None:
            self._memory.tells_soon = True
        self._cells[cell.RUNNING] = cell.LAST
        self._busy_since = monotonic()
        self._flush_at = self._busy_since + _FLUSH_EVERY_S
        try:
            for record in records:
                self._record(*record)
            if more is not None and env.RECALLED in more:
                self._recalled(more[env.RECALLED])
        except _SupersededError:
            self.runner.running = None  # it completed, for nobody
        except BaseException:  # of a handler, too: what is no Exception is no failure of its own
            self._on_broken()
            raise
        finally:
            self._cells[cell.RUNNING] = 0
            self._out.flush()
            if (self._waiting.count, self._waiting.nbytes) != self._waiting.told:
                self._send_batch([])
            self._out.working = False
            if self._memory is not None:
                self._memory.told()

    def _told(self, more: dict[str, Any]) -> None:
        """What came beside the records."""
        if self._memory is not None:
            if env.WELCOME in more:
                self._memory.welcome(more[env.WELCOME])
            self._memory.freed(more.get(env.FREED, ()))
        for _, answer in more.get(env.ANSWERS, ()):
            self._answered(answer)
        for answer in more.get(env.PUSHED, ()):
            self.pushes.answered(*answer)

    def _answered(self, answer: Any) -> None:
        """The raw reply to a request, or its tid: the session is over."""
        tid = answer if type(answer) is int else raw_ids(answer)[1]
        con = self._asking.pop(tid, None)
        if con is None:
            return  # nobody waits for it any more
        if type(answer) is int:
            con.unanswered(tid)
        else:
            con.answered(decode_raw(answer, con.peer_addr.nonce))

    def _record(
        self, con_id: Any, intro: Any, items: Any = None, lane_id: Any = 0, moved: bool = False
    ) -> None:
        if con_id == "lane":
            self._introduce_lane(intro, items, lane_id, moved)
        elif con_id == "forget":
            self._lanes.pop(intro, None)
        elif items is None:
            self._forget(con_id)
        else:
            con = self._cons.get(con_id)
            if con is None:
                con = self._cons[con_id] = RemoteConnection(self, con_id)
            if intro is not None:
                con.introduce(env.Intro(*intro))
            self._items(con, self._other_lane(lane_id) if lane_id else con.lane, items)

    def _other_lane(self, id_: int) -> LaneOutlet:
        """A lane that is not its connection's; of one message alone nobody was told before."""
        return self._lanes.get(id_) or LaneOutlet(id_, self.incarnation)

    def _items(self, con: RemoteConnection, lane: Serial, items: list[Any]) -> None:
        nonce, cells = con.peer_addr.nonce, self._cells
        submit, begun, recall = self.runner.submit, cell.BEGUN, cell.RECALL
        for item in items:
            if item is None:
                self._begin_anew(lane)
                continue
            self._number = number = self._number + 1
            # In this order: the I/O process asks us to stop first, and looks how far we got then.
            cells[begun] = number
            if cells[recall] != self._epoch and self._is_recalled(number):
                self._give_up(item)
            elif type(item) is bytes:
                submit(lane, con, decode_raw(item, nonce), number)
            else:
                self._special(con, lane, item, number)
        if lane.waiting:
            outlet = _outlet(con, lane)
            if self._waiting.park(lane, outlet):
                self._note(outlet, env.PARK, 1)

    def _begin_anew(self, lane: Serial) -> None:
        """What waits in *lane* comes again."""
        for _, _, number in lane.waiting:
            self._timed.pop(number, None)
        lane.waiting.clear()
        lane.blocked &= ~AGAIN_LATER
        self._unpark(lane)

    def _unpark(self, lane: Serial) -> None:
        outlet = self._waiting.unpark(lane)
        if outlet is not None:
            self._note(outlet, env.PARK, 0)

    def _note(self, outlet: Outlet, what: int, value: Any) -> None:
        """Say *value* with the next batch."""
        outlet.note(what, value)
        if not outlet.dirty:
            self._out.has_output(outlet)

    def _is_recalled(self, number: int) -> bool:
        """RECALL has changed: does it speak to us, not to one that died before us?"""
        epoch = self._cells[cell.RECALL]
        if epoch >> 32 != self._generation:
            self._epoch = epoch
            return False
        self._stopped_at = self._stopped_at or number
        return True

    def _special(self, con: RemoteConnection, lane: Serial, item: Any, number: int) -> None:
        """What is not plainly a new message in the frame."""
        attempt = 1
        if len(item) == 3:
            attempt, item, is_timed = item
            if is_timed:
                self._timed[number] = monotonic_ns()
        if type(item) is list and type(item[0]) is str:
            self._event(con, lane, item[0], item[1], number)
            return
        m = decode_raw(self._raw(item), con.peer_addr.nonce)
        m.attempt = attempt
        self.runner.submit(lane, con, m, number)

    def _raw(self, item: Any) -> Any:
        if type(item) is bytes:
            return item
        assert self._memory is not None
        return self._memory.lease(*item)

    def _give_up(self, item: Any) -> None:
        """*item* is not run here. If it is in the arena, it was never looked at."""
        if type(item) is list and len(item) == 3:
            item = item[1]
        if type(item) is list and type(item[0]) is int and self._memory is not None:
            self._memory.skip(item[0])

    def _event(
        self, con: RemoteConnection, lane: Serial, kind: str, lost: list[int], number: int
    ) -> None:
        if kind in _RESETS:
            con.last_reset = SessionReset(con.peer_addr, len(lost), lost)
        if kind == EventKind.RESET.value:
            self._cons.pop(con.id, None)
            con.leave()
        self.runner.submit(lane, con, kind, number)

    def _introduce_lane(self, lane_id: int, con_id: int, state: bytes | None, moved: bool) -> None:
        con = self._cons.get(con_id)
        if con is None:
            con = self._cons[con_id] = RemoteConnection(self, con_id)
        lane: Serial = con.lane
        if lane_id != con_id:
            lane = self._lanes[lane_id] = LaneOutlet(lane_id, self.incarnation)
        lane.state = State(state, self.state_limit) if state else None
        if moved:
            self.runner.submit(lane, con, "lane_moved")

    def _forget(self, con_id: int) -> None:
        """Another worker has the connection now, or nobody. What is still sent goes by its id."""
        con = self._cons.pop(con_id, None)
        if con is not None:
            con.detach()

    def _recalled(self, epoch: int) -> None:
        """What came before is void, where it was not begun: say from where on."""
        self._out.flush()
        self._send(env.STOPPED, [epoch, self._stopped_at or self._number + 1])
        self._epoch, self._stopped_at = epoch, 0

    # the runner's host

    def begun(self, run: Invocation) -> None:
        """See `Host`."""
        handling, cells = run.handling, self._cells
        if handling.hard_s and isinstance(run.item, Message):
            now = monotonic_ns()
            cells[cell.TYPE], cells[cell.CON] = run.item.type, run.con.id
            cells[cell.STARTED_NS] = now
            cells[cell.SOFT_NS] = now + int(handling.soft_s * 1e9)
            cells[cell.HARD_NS] = now + int(handling.hard_s * 1e9)

    def suspended(self, run: Invocation) -> None:
        """See `Host`."""
        if self._memory is not None and run.number:
            run.cell = self._memory.page.begin_async(run.number)
        if run.number:
            self._waiting.add(run.number, run.item)
        self._end_deadline(run)

    def resumed(self, lane: Serial, number: int) -> None:
        """See `Host`. In no batch: the page has to name it itself."""
        self._cells[cell.RUNNING] = number
        self._waiting.end(number)
        if number in self._timed:
            self._timed[number] = monotonic_ns()
        self._unpark(lane)

    def broken(self) -> None:
        """See `Host`."""
        self._on_broken()

    def completed(self, run: Invocation) -> None:
        """See `Host`."""
        lane, con = run.lane, run.con
        outlet: Any = con if lane is con.lane else lane  # type: ignore[attr-defined]
        if not run.plain:
            self._release(run)
            if outlet.incarnation != self.incarnation:
                return  # it ran for an I/O process that is gone
            if run.mark >= 0 and not con.dirty:  # type: ignore[attr-defined]
                self._out.has_output(con)  # type: ignore[arg-type]  # its replies come first
            self._let_leave(run.sends or ())
            if run.change is not None:
                outlet.note(env.STATE, run.change)
        if not run.number:
            return
        if self._timed and run.number in self._timed:
            outlet.note_times(self._timed.pop(run.number), monotonic_ns())
        self._handled += 1
        outlet.completed += 1
        if not outlet.dirty:
            self._out.has_output(outlet)
        if self._out.working and monotonic() > self._flush_at:
            self._look_up()
        if self._on_first is not None:
            self._on_first()
            self._on_first = None

    def _let_leave(self, sends: Iterable[Any]) -> None:
        for con, head, body, push in sends:
            if body is None:
                if con is not None:
                    con.leave()
                self._out.act(head)
                continue
            body = self._wire(body)
            if con is None:
                self._out.act([*head, body])
            else:
                con.put(head, body, push)

    def _release(self, run: Invocation) -> None:
        """What was kept for its time is free again."""
        if run.is_async:
            self._waiting.end(run.number)
            if self._memory is not None and run.number:
                self._memory.page.end_async(run.cell)
        else:
            self._end_deadline(run)

    def _end_deadline(self, run: Invocation) -> None:
        if run.handling.hard_s:
            cells = self._cells
            cells[cell.HARD_NS] = cells[cell.SOFT_NS] = cells[cell.STARTED_NS] = 0

    def undone(self, run: Invocation) -> None:
        """See `Host`."""
        if run.mark >= 0:
            del run.con.out[run.mark :]  # type: ignore[attr-defined]
            run.mark = -1

    def retry(self, run: Invocation, after: float) -> None:
        """See `Host`."""
        self._release(run)
        self._timed.pop(run.number, None)
        lane, outlet = run.lane, _outlet(run.con, run.lane)
        if outlet.incarnation != self.incarnation:
            return
        lane.blocked |= AGAIN_LATER
        self._waiting.drop(lane)
        self._note(outlet, env.RETRY, after)

    def poisoned(self, run: Invocation, reason: str) -> None:
        """See `Host`."""
        _outlet(run.con, run.lane).note_poison(reason)

    def _look_up(self) -> None:
        """In a long batch: send what is ready, see what else there is."""
        self._out.flush()
        incarnation = self.incarnation
        self._on_busy()
        if self.incarnation != incarnation:
            raise _SupersededError
        self._flush_at = monotonic() + _FLUSH_EVERY_S

    # what connections ask for

    def connection(self, id_: int) -> RemoteConnection:
        """The connection with *id_*, known here or not."""
        return self._cons.get(id_) or RemoteConnection(self, id_)

    def group(self, name: str) -> Group:
        """See `Service.group`."""
        return RemoteGroup(name, self, 0)

    def has_output(self, con: RemoteConnection) -> None:
        """*con* has something for the next batch."""
        self._out.has_output(con)

    def settle(self, m: Message) -> None:
        """Have the large data of *m* lie where nobody will write to it."""
        if self._memory is not None:
            m.data = self._memory.settle(m.data)

    def encode(self, m: Message) -> tuple[bytes, tuple[Any, ...], int]:
        """Head, body and size of a parcel of ours, which gets a tid if it has none."""
        m.tid, m.src = m.tid or self.tids.next(), self.name
        m.priority = m.priority or self.send_priority
        if len(m.data) > self.threshold:
            self.settle(m)
        head, body = encode_parts(m, self.name, limits=self.limits)
        return head, body, sum(map(len, body))

    def _wire(self, body: Any) -> Any:
        """*body* as the envelope has it: what lies in an arena is only named."""
        if type(body) is not tuple:
            body = (body,)
        parts = [self._refer(part) if len(part) > self.threshold else part for part in body]
        return parts[0] if len(parts) == 1 and type(parts[0]) is bytes else parts

    def _refer(self, part: Any) -> Any:
        # The view may end now: that is told behind what refers to it (`_send_batch`).
        reference = self._memory.refer(part) if self._memory is not None else None
        return part if reference is None else reference

    def send(self, run: Invocation | None, send: Any, nbytes: int) -> None:
        """Have *send* wait until *run* completes; at once, if nothing holds it, also in the midst
        of a batch.
        """
        if run is not None and run.holds:
            self.hold(run, send, nbytes)
            return
        self._let_leave([send])
        if self._out.working:
            self._out.flush()

    def hold(self, run: Invocation, send: Any, nbytes: int) -> None:
        """Keep *send* until *run* completes. Raises HandlerError above the limit."""
        check_held(run.held_bytes, nbytes, self.held_limit)
        run.hold(send, nbytes)

    def allocate(self, nbytes: int) -> memoryview:
        """See `Connection.allocate`."""
        run = self.runner.holder()
        if run is not None:
            check_held(run.held_bytes, nbytes, self.held_limit)
        view = self._memory.allocate(nbytes) if self._memory is not None and nbytes else None
        return memoryview(bytearray(nbytes)) if view is None else view

    def act(self, *head: Any, body: Any = None, nbytes: int = 0) -> None:
        """Say something that is no connection's, behind all that was said before."""
        run = self.runner.holder()
        if run is not None:
            self.hold(run, (None, list(head), body, False), nbytes)
        else:
            self._let_leave([(None, list(head), body, False)])

    def end(self, con: RemoteConnection) -> None:
        """End the session of *con*; as what is sent, when the handler that wants it completes."""
        self.send(self.runner.current(), (con, ["down", con.id], None, False), 0)

    def request(self, con: RemoteConnection, m: Message) -> None:
        """Send *m*, whose reply goes to `con.answered`: at once."""
        head, body, _ = self.encode(m)
        self._asking[m.tid] = con  # which is not among ours, where another worker has the session
        self._let_leave([(None, ["request", con.id, m.tid, head], body, False)])

    def forget_request(self, tid: int) -> None:
        """Nobody waits for its reply any more."""
        con = self._asking.pop(tid, None)
        if con is not None:  # and none came
            self._out.act(["forgo", con.id, tid])

    async def push(self, con: RemoteConnection, m: Message | None) -> bool:
        """Send *m*, or nothing, at once; True if it is queued, or could be. Raises OutboxFull."""
        if self._link is None:
            return False
        token, answer = self.pushes.expect()
        record: list[Any] = ["push", con.id, token]
        body = None
        if m is not None:
            head, body, _ = self.encode(m)
            record.append(head)
        self._let_leave([(None, record, body, False)])
        try:
            return await answer
        finally:
            self.pushes.forget(token)

    # batches out

    def _views_ended(self) -> None:
        """Views have gone, and no batch has said so."""
        assert self._memory is not None
        self._out.act(["ended", self._memory.take_ended()])

    def _send_batch(self, records: list[Any]) -> None:
        self._cells[cell.HANDLED] = self._handled
        ended = self._memory.take_ended() if self._memory is not None else None
        if ended:
            records.append(["ended", ended])
        busy_us = 0
        if self._out.working:
            now = monotonic()
            busy_us = int((now - self._busy_since) * 1e6)
            self._busy_since = now
        self._waiting.told = self._waiting.count, self._waiting.nbytes
        batch = [records, busy_us, *self._waiting.told]
        if self.runner.failed != self._failed_told:
            batch.append(self.runner.failed - self._failed_told)
            self._failed_told = self.runner.failed
        self._send(env.BATCH, batch)


def _outlet(con: Any, lane: Any) -> Outlet:
    """Where what *lane* has to say collects: the connection's own lane says it with that."""
    outlet: Outlet = con if lane is con.lane else lane
    return outlet
