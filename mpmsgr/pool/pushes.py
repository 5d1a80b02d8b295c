"""Pushes of a worker to connections that are told about elsewhere, until their answers come."""

from __future__ import annotations

import asyncio
from typing import Any

from mpmsgr.errors import OutboxFull
from mpmsgr.wire.address import EntityAddr


class Pushes:
    """Futures by token: True for queued, False for gone."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._last = 0

    def expect(self) -> tuple[int, asyncio.Future[bool]]:
        """A token, and the future of its answer, which may raise OutboxFull."""
        self._last += 1
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = future
        return self._last, future

    def forget(self, token: int) -> None:
        """Nobody waits for it any more."""
        self._waiting.pop(token, None)

    def answered(self, token: int, ok: bool, *full: Any) -> None:
        """The I/O process's answer; full: the peer's address, bytes in its outbox, its limit."""
        future = self._waiting.pop(token, None)
        if future is None or future.done():
            return
        if full:
            addr, nbytes, limit = full
            future.set_exception(OutboxFull(EntityAddr.parse(addr), nbytes, limit))
        else:
            future.set_result(ok)

    def fail(self) -> None:
        """The I/O process is gone, and with it every session."""
        for token in list(self._waiting):
            self.answered(token, False)
