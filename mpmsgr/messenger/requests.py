"""Requests that wait for their replies, matched by tid."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from mpmsgr.dispatch.payload import decode, remote_error
from mpmsgr.errors import SessionReset
from mpmsgr.wire.message import ERROR_REPLY, Message

#: So many requests that were given up are remembered per connection.
_LATE = 1024


class Requests:
    """The pending requests of one connection, and those given up, whose replies may still come."""

    __slots__ = ("_given_up", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._given_up: dict[int, None] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._waiting)

    def __bool__(self) -> bool:
        """Can a reply come?"""
        return bool(self._waiting or self._given_up)

    def knows(self, tid: int) -> bool:
        """Is *tid* that of a request, be it one that was given up?"""
        return tid in self._waiting or tid in self._given_up

    def expect(self, tid: int) -> asyncio.Future[Message]:
        """A future for the reply to *tid*."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[tid] = future
        self._given_up.pop(tid, None)
        return future

    def forget(self, tid: int) -> None:
        """Nobody waits for *tid* any more: a reply that still comes is dropped."""
        if self._waiting.pop(tid, None) is not None:
            self._given_up[tid] = None
            if len(self._given_up) > _LATE:
                del self._given_up[next(iter(self._given_up))]

    def take_reply(self, m: Message) -> bool:
        """Is *m* the reply to a pending request? Then its future has it. A late one is dropped."""
        future = self._waiting.pop(m.tid, None)
        if future is None:
            return self._given_up.pop(m.tid, m) is None
        if not future.done():
            if m.type == ERROR_REPLY:
                future.set_exception(remote_error(m))
            else:
                future.set_result(m)
        return True

    def give_up(self, tid: int, error: SessionReset) -> None:
        """Raise *error* in the request with *tid*."""
        future = self._waiting.pop(tid, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def fail(self, error: SessionReset, kept: Collection[int] = ()) -> None:
        """The session is gone: raise *error* in all but *kept* ones, which are sent again."""
        again = set(kept)
        waiting = self._waiting
        self._waiting = {tid: future for tid, future in waiting.items() if tid in again}
        for tid, future in waiting.items():
            if tid not in again and not future.done():
                future.set_exception(error)


def value_of(reply: Message) -> Any:
    """What the requester of a @message object gets: the decoded reply, or the bare message."""
    return reply if decode(reply) is None and not reply.front else reply.obj
