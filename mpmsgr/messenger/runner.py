"""Runs dispatchers: callbacks of one lane one after the other, each lane on its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from mpmsgr.dispatch.chain import CALLBACKS, Chain
from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher, Result
from mpmsgr.dispatch.payload import PayloadError, error_reply, wants_error
from mpmsgr.errors import RemoteError
from mpmsgr.wire.message import Message

log = logging.getLogger("mpmsgr.dispatch")

#: Longest text of an error reply, in characters.
MAX_ERROR_TEXT = 4096
#: A message, or the name of an event.
Item = Message | str


#: Why a lane's items wait: an asynchronous callback of it runs; they are not to be handled now.
RUNNING, HELD = 1, 2


class Lane:
    """What waits behind a callback of a connection. blocked: RUNNING, HELD, both, or 0."""

    __slots__ = ("blocked", "waiting")

    def __init__(self) -> None:
        self.blocked = 0
        self.waiting: deque[Item] = deque()


C = TypeVar("C", bound=Connection)


class Runner(Generic[C]):
    """Calls the dispatchers of *chain*; *done(con)* after each item, when it is completed.

    A callback's exception is logged with its traceback and becomes an error reply where the
    message is a request; it never goes further.
    """

    def __init__(self, chain: Chain, done: Callable[[C], None]) -> None:
        self.chain = chain
        self._done = done
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled = False
        self._started: list[Dispatcher] = []

    def submit(self, lane: Lane, con: C, item: Item) -> None:
        """Run *item* now, or after what runs in *lane*."""
        if lane.blocked:
            lane.waiting.append(item)
            return
        rest = self._message(con, item) if type(item) is Message else self._event(con, item)  # type: ignore[arg-type]
        if rest is not None:
            lane.blocked |= RUNNING
            task = asyncio.get_running_loop().create_task(self._finish(lane, con, rest))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._done(con)

    def release(self, lane: Lane, con: C) -> None:
        """*lane* is not held any more: go on with what waits in it."""
        lane.blocked &= ~HELD
        self._go_on(lane, con)

    def _go_on(self, lane: Lane, con: C) -> None:
        while lane.waiting and not lane.blocked:
            self.submit(lane, con, lane.waiting.popleft())

    async def start(self) -> None:
        """Call every dispatcher's on_start."""
        for dispatcher in self.chain:
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
            except Exception:
                log.exception("%s: on_stop failed", _name(dispatcher))

    def cancel(self) -> None:
        """Give up what runs and what waits for it."""
        self._cancelled = True
        for task in self._tasks:
            # Not before its first step, or what it is to await would never be awaited.
            asyncio.get_running_loop().call_soon(task.cancel)

    # messages

    def _message(self, con: C, m: Message) -> Awaitable[None] | None:
        """Offer *m* along the chain; the rest of it as an awaitable when a callback is async."""
        takers = self.chain.takers(m.type)
        try:
            for dispatcher in takers:
                result = dispatcher.dispatch(con, m)
                if result is None or result is True:
                    return None
                if result is not False:
                    others = takers[takers.index(dispatcher) + 1 :]
                    return self._message_rest(con, m, result, others)
            self._unhandled(con, m)
        except Exception as err:
            self._failed(con, m, err)
        return None

    async def _message_rest(
        self,
        con: C,
        m: Message,
        pending: Awaitable[bool | None],
        takers: Sequence[Dispatcher],
    ) -> None:
        try:
            if await pending is not False:
                return
            for dispatcher in takers:
                if await _maybe(dispatcher.dispatch(con, m)) is not False:
                    return
            self._unhandled(con, m)
        except (Exception, asyncio.CancelledError) as err:  # something it awaited was cancelled
            self._failed(con, m, err)

    def _unhandled(self, con: C, m: Message) -> None:
        log.warning("nobody handles message type %#x from %s", m.type, con)
        text = f"nobody handles message type {m.type:#x}"
        self._refuse(con, m, ErrorCode.UNHANDLED, text)

    def _failed(self, con: C, m: Message, err: BaseException) -> None:
        if isinstance(err, RemoteError):
            self._refuse(con, m, err.code, err.text)
        elif isinstance(err, PayloadError):
            log.warning("%s from %s", err, con)
            self._refuse(con, m, ErrorCode.BAD_PAYLOAD, err.text)
        else:
            log.error("handler of type %#x failed, tid %d of %s", m.type, m.tid, con, exc_info=err)
            text = f"handler failed: {type(err).__name__}: {err}"
            self._refuse(con, m, ErrorCode.HANDLER_FAILED, text)

    def _refuse(self, con: C, m: Message, code: int, text: str) -> None:
        if wants_error(m.type, m.tid):
            con.send_message(error_reply(m.tid, m.priority, code, text[:MAX_ERROR_TEXT]))

    # events

    def _event(self, con: C, event: str) -> Awaitable[None] | None:
        callback, stops = CALLBACKS[event]
        dispatchers = list(self.chain)
        for i, dispatcher in enumerate(dispatchers):
            try:
                result = callback(dispatcher, con)
            except Exception:
                log.exception("%s: %s of %s failed", _name(dispatcher), event, con)
                continue
            if inspect.isawaitable(result):
                return self._event_rest(con, event, result, dispatchers[i + 1 :])
            if stops and result is True:
                return None
        return None

    async def _event_rest(
        self,
        con: C,
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
            except (Exception, asyncio.CancelledError):
                log.exception("%s of %s failed", event, con)
                if self._cancelled:
                    return

    # lanes

    async def _finish(self, lane: Lane, con: C, rest: Awaitable[None]) -> None:
        try:
            await rest
        finally:
            lane.blocked &= ~RUNNING
            self._done(con)
            if self._cancelled:
                lane.waiting.clear()
            self._go_on(lane, con)


async def _maybe(result: object) -> object:
    return await result if inspect.isawaitable(result) else result


def _name(dispatcher: Dispatcher) -> str:
    return str(getattr(dispatcher, "name", type(dispatcher).__qualname__))
