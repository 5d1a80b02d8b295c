"""Pushed messages of one type, as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from mpmsgr.errors import SessionReset
from mpmsgr.wire.message import Message

#: Messages kept for a consumer that is behind; then the oldest are dropped and counted.
BACKLOG = 10_000


class MessageStream:
    """Messages of *type_* that nobody asked for; iterating raises SessionReset at the end.

    Yields ``m.obj`` for types with a class, else the message. dropped: given up at the limit.
    """

    def __init__(self, type_: int) -> None:
        self.type = type_
        self.dropped = 0
        self._queue: deque[Message] = deque(maxlen=BACKLOG)
        self._changed = asyncio.Event()
        self._error: SessionReset | None = None

    def put(self, m: Message) -> None:
        """A message came."""
        self.dropped += len(self._queue) == BACKLOG
        self._queue.append(m)
        self._changed.set()

    def end(self, error: SessionReset) -> None:
        """Nothing more will come."""
        self._error = error
        self._changed.set()

    def __aiter__(self) -> MessageStream:
        return self

    async def __anext__(self) -> Any:
        while not self._queue:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        m = self._queue.popleft()
        return m if m.obj is None else m.obj
