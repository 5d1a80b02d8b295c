"""Runs dispatchers: callbacks of one lane one after the other, each lane on its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Generic, Protocol, TypeVar

from mpmsgr.dispatch.chain import CALLBACKS, Chain, name_of
from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher, Result
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handling import DEFAULT
from mpmsgr.dispatch.invocation import CURRENT, Invocation
from mpmsgr.dispatch.serial import RUNNING, Serial
from mpmsgr.dispatch.state import StateError
from mpmsgr.dispatch.verdicts import Poison, Retry, Verdict
from mpmsgr.errors import PLUGIN_FAILURES
from mpmsgr.logs import RateLimit, held_back
from mpmsgr.messenger.refusals import refuse, refuse_failed
from mpmsgr.wire.message import Message

log = logging.getLogger("mpmsgr.dispatch")

#: Lines about messages that are refused, of one kind, are at least so far apart, in seconds.
_REFUSED_EVERY_S = 5.0
#: What a callback fails with: CancelledError, when something it awaits, or asks, was cancelled.
_FAILURES = (*PLUGIN_FAILURES, asyncio.CancelledError)
#: A message, or the name of an event.
Item = Message | str

C = TypeVar("C", bound=Connection)


class Host(Protocol):
    """Whoever has things run."""

    def begun(self, run: Invocation) -> None:
        """The handler of *run* is about to be called, and is to be handled in its own way."""

    def suspended(self, run: Invocation) -> None:
        """It goes on in a task."""

    def resumed(self, lane: Serial, number: int) -> None:
        """Item *number*, which had to wait in *lane*, begins now; 0: no more of them do."""

    def completed(self, run: Invocation) -> None:
        """It has completed: what it sent may leave, with the change of the state."""

    def undone(self, run: Invocation) -> None:
        """It failed: what it sent and is kept with the connection is to be forgotten."""

    def retry(self, run: Invocation, after: float) -> None:
        """It is to run again in *after* seconds, before the rest of its lane."""

    def poisoned(self, run: Invocation, reason: str) -> None:
        """Its message belongs in quarantine; `completed` follows."""

    def broken(self) -> None:
        """What completes a callback in a task failed: called in the handling of that error."""


class Runner(Generic[C]):
    """Calls the dispatchers of *chain*, and tells *host*; *service* is for @every functions.

    A callback's exception is logged with its traceback and becomes an error reply where the
    message is a request; it never goes further. What it sent before is dropped.
    running: the callback that has the thread; what goes on in a task is in CURRENT there.
    unhandled: messages that no dispatcher took; failed: callbacks that raised what is no answer.
    """

    def __init__(self, chain: Chain, host: Host, service: Service) -> None:
        self.chain = chain
        self.running: Invocation | None = None
        self.unhandled = self.failed = 0
        self._rate = RateLimit(_REFUSED_EVERY_S)
        self._spare: Invocation | None = None
        self._host = host
        self._service = service
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled = False
        self._started: list[Dispatcher] = []

    def submit(self, lane: Serial, con: C, item: Item, number: int = 0) -> None:
        """Run *item* now, or after what runs in *lane*."""
        if lane.blocked:
            lane.waiting.append((con, item, number))
            return
        run = self._spare or Invocation()
        self._spare = None
        run.con, run.lane, run.item, run.number = con, lane, item, number
        self.running = run
        rest = self._message(run, item) if type(item) is Message else self._event(run, str(item))
        if rest is not None:
            self.running = None
            self._go_on(run, rest)
            return
        if run.plain:  # as most are: it is over when its replies are fetched
            self._host.completed(run)
            self.running = None
            run.item, run.mark, run.held_bytes = "", -1, 0
            self._spare = run  # nobody else has it, and making one takes its time
        else:
            self._complete(run)
            self.running = None

    def _go_on(self, run: Invocation, rest: Awaitable[None]) -> None:
        """*run* goes on in a task of its own."""
        run.lane.blocked |= RUNNING
        run.is_async, run.plain = True, False
        self._host.suspended(run)
        context = copy_context()
        context.run(CURRENT.set, run)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._finish(run, rest), context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def current(self) -> Invocation | None:
        """The callback that whoever calls this is part of."""
        return self.running or CURRENT.get()

    def holder(self) -> Invocation | None:
        """The callback that holds back what is sent now; None: it leaves at once."""
        run = self.running or CURRENT.get()
        return run if run is not None and run.holds else None

    def unblock(self, lane: Serial, reason: int) -> None:
        """*reason* is over: go on with what waits in *lane*."""
        lane.blocked &= ~reason
        while lane.waiting and not lane.blocked:
            con, item, number = lane.waiting.popleft()
            self._host.resumed(lane, number)
            self.submit(lane, con, item, number)  # type: ignore[arg-type]
        self._host.resumed(lane, 0)

    async def start(self, chain: Chain | None = None) -> None:
        """Call on_start of every dispatcher, or of those in *chain*."""
        for dispatcher in self.chain if chain is None else chain:
            await _maybe(dispatcher.on_start())
            self._started.append(dispatcher)

    async def stop(self) -> None:
        """Wait for what runs, then call on_stop where on_start was called, last one first."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        while self._started:
            dispatcher = self._started.pop()
            try:
                await _maybe(dispatcher.on_stop())
            except PLUGIN_FAILURES:
                log.exception("%s: on_stop failed", name_of(dispatcher))

    def cancel(self) -> None:
        """Give up what runs and what waits for it."""
        self._cancelled = True
        for task in self._tasks:
            # Not before its first step, or what it is to await would never be awaited.
            asyncio.get_running_loop().call_soon(task.cancel)

    # messages

    def _message(self, run: Invocation, m: Message) -> Awaitable[None] | None:
        """Offer *m* along the chain; the rest of it as an awaitable when a callback is async."""
        con = run.con
        takers, handling = self.chain.plan(m.type)
        if handling is not DEFAULT:
            run.handling, run.plain = handling, False
            self._host.begun(run)
        try:
            for dispatcher in takers:
                result = dispatcher.dispatch(con, m)
                if result is None or result is True:
                    return None
                if result is not False:
                    if isinstance(result, Verdict):
                        raise result
                    others = takers[takers.index(dispatcher) + 1 :]
                    return self._message_rest(run, m, result, others)
            self._unhandled(con, m)
        except _FAILURES as err:
            self._failed(run, m, err)
        return None

    async def _message_rest(
        self,
        run: Invocation,
        m: Message,
        pending: Awaitable[bool | None],
        takers: Sequence[Dispatcher],
    ) -> None:
        try:
            result: object = await pending
            for dispatcher in takers:
                if result is not False:
                    break
                result = await _maybe(dispatcher.dispatch(run.con, m))
            if isinstance(result, Verdict):
                raise result
            if result is False:
                self._unhandled(run.con, m)
        except _FAILURES as err:
            self._failed(run, m, err)

    def _unhandled(self, con: Connection, m: Message) -> None:
        self.unhandled += 1
        text = f"nobody handles message type {m.type:#x}"
        held = self._rate.allows("unhandled", monotonic())
        if held is not None:
            log.warning("%s from %s%s", text, con, held_back(held))
        refuse(con, m, ErrorCode.UNHANDLED, text)

    def _failed(self, run: Invocation, m: Message, err: BaseException) -> None:
        run.plain = False
        run.undo()
        self._host.undone(run)
        if isinstance(err, Retry):
            run.again_in = err.after
        elif isinstance(err, Poison):
            log.warning("type %#x, tid %d of %s: %s", m.type, m.tid, run.con, err.reason)
            self._host.poisoned(run, err.reason)
            refuse(run.con, m, ErrorCode.QUARANTINED, f"poison: {err.reason}")
        else:
            self.failed += refuse_failed(run.con, m, err, self._rate)

    # events

    def _event(self, run: Invocation, event: str) -> Awaitable[None] | None:
        con = run.con
        if event not in CALLBACKS:
            return self._task(event)
        callback, stops = CALLBACKS[event]
        dispatchers = list(self.chain)
        for i, dispatcher in enumerate(dispatchers):
            try:
                result = callback(dispatcher, con)
            except _FAILURES:
                self.failed += 1
                log.exception("%s: %s of %s failed", name_of(dispatcher), event, con)
                continue
            if inspect.isawaitable(result):
                return self._event_rest(con, event, result, dispatchers[i + 1 :])
            if stops and result is True:
                return None
        return None

    async def _event_rest(
        self,
        con: Connection,
        event: str,
        pending: Awaitable[bool | None],
        dispatchers: Sequence[Dispatcher],
    ) -> None:
        callback, stops = CALLBACKS[event]
        calls: list[Callable[[], Result]] = [lambda: pending]
        calls += [partial(callback, dispatcher, con) for dispatcher in dispatchers]
        for call in calls:
            try:
                if await _maybe(call()) is True and stops:
                    return
            except _FAILURES:
                self.failed += 1
                log.exception("%s of %s failed", event, con)
                if self._cancelled:
                    return

    # @every

    def _task(self, name: str) -> Awaitable[None] | None:
        try:
            result = self.chain.task(name)(self._service)
        except _FAILURES:
            self.failed += 1
            log.exception("%s failed", name)
            return None
        return self._task_rest(name, result) if inspect.isawaitable(result) else None

    async def _task_rest(self, name: str, rest: Awaitable[object]) -> None:
        try:
            await rest
        except _FAILURES:
            self.failed += 1
            log.exception("%s failed", name)

    # completion

    async def _finish(self, run: Invocation, rest: Awaitable[None]) -> None:
        lane = run.lane
        try:
            await rest
        finally:
            try:
                self._complete(run)
                if self._cancelled:
                    lane.waiting.clear()
                self.unblock(lane, RUNNING)
            except Exception:
                self._host.broken()
                raise

    def _complete(self, run: Invocation) -> None:
        if run.state is not None and run.again_in is None:
            try:
                run.commit_state()
            except StateError as err:
                self._failed_to_keep(run, err)
        run.done = True
        if run.again_in is None:
            self._host.completed(run)
        else:
            self._host.retry(run, run.again_in)

    def _failed_to_keep(self, run: Invocation, err: StateError) -> None:
        if isinstance(run.item, Message):
            self._failed(run, run.item, err)
        else:
            run.undo()
            self._host.undone(run)
            self.failed += 1
            log.error("%s of %s: %s", run.item, run.con, err)


async def _maybe(result: object) -> object:
    return await result if inspect.isawaitable(result) else result
