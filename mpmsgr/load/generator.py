"""The clients of one load process: each keeps a window of requests, every reply is checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgpack

from mpmsgr import Connection, Dispatcher, Message, Messenger
from mpmsgr.load.latency import Histogram
from mpmsgr.load.payload import Payloads, noise
from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.report import LoadReport
from mpmsgr.load.verify import SessionCheck, Tally
from mpmsgr.wire.message import ERROR_REPLY

_TICK_S = 0.25
_CONNECTING_AT_ONCE = 64

Counts = dict[str, int]
"""sent, answered, errors so far."""


class Generator:
    """All clients of one process and what they found together.

    `connect`, then `run`, then `close`. *progress* is called about four times a second.
    """

    def __init__(self, plan: LoadPlan, progress: Callable[[Counts], None]) -> None:
        self.plan = plan
        self.tally = Tally()
        self.latency = Histogram()
        self.reconnects = 0
        self.resets = 0
        self.last_reply_at = 0.0
        self._progress = progress
        self._finished = asyncio.Event()
        block = noise(plan.size)
        self._clients = [
            LoadClient(self, plan.first_client + i, count, block)
            for i, count in enumerate(plan.client_counts())
        ]
        self._busy = len(self._clients)

    async def connect(self) -> None:
        """Give every client its session; raises ConnectError."""
        gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        await asyncio.gather(*(client.connect(gate) for client in self._clients))

    async def run(self) -> LoadReport:
        """Send what the plan says and wait for the replies."""
        started_at = self.last_reply_at = time.perf_counter()
        for client in self._clients:
            client.start()
        if self.plan.duration_s is not None:
            asyncio.get_running_loop().call_later(self.plan.duration_s, self._stop_sending)
        await self._wait_finished()
        for client in self._clients:
            client.give_up()
        return self._report(self.last_reply_at - started_at)

    async def close(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(client.close() for client in self._clients))

    def client_finished(self) -> None:
        """One client has sent everything and waits for nothing."""
        self._busy -= 1
        if not self._busy:
            self._finished.set()

    async def _wait_finished(self) -> None:
        """Until every client is done, or the replies have stayed away for too long."""
        while not self._finished.is_set():
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._finished.wait()
            except TimeoutError:
                if time.perf_counter() - self.last_reply_at > self.plan.reply_timeout_s:
                    return
            self._progress(self._counts())

    def _stop_sending(self) -> None:
        for client in self._clients:
            client.stop_sending()

    def _counts(self) -> Counts:
        errors = sum(self.tally.errors.values())
        return {"sent": self.tally.sent, "answered": self.tally.answered, "errors": errors}

    def _report(self, duration_s: float) -> LoadReport:
        return LoadReport(
            plan=self.plan,
            tally=self.tally,
            latency=self.latency,
            reconnects=self.reconnects,
            resets=self.resets,
            duration_s=duration_s,
        )


class LoadClient(Dispatcher):
    """One client: one Messenger with one session, `in_flight` requests kept up."""

    def __init__(self, board: Generator, number: int, count: int | None, block: bytes) -> None:
        plan = board.plan
        self.message_types = {plan.type, ERROR_REPLY}
        self._board = board
        self._plan = plan
        self._left = count
        self._serial = 0
        self._connects = 0
        self._done = False
        self._payloads = Payloads(plan.size, number, echo=plan.echo, block=block)
        self._check = SessionCheck(board.tally, echo=plan.echo)
        self._messenger = Messenger(f"client.{number}")
        self._con: Connection | None = None

    async def connect(self, gate: asyncio.Semaphore) -> None:
        """Open the session; raises ConnectError."""
        self._messenger.add_dispatcher_tail(self)
        async with gate:
            con = self._messenger.get_connection(self._plan.address, peer_type=self._plan.peer_type)
            await con.wait_connected(timeout=self._plan.connect_timeout_s)
        self._con = con

    def start(self) -> None:
        """Fill the window."""
        while self._check.outstanding < self._plan.in_flight and self._left != 0:
            self._send()
        self._finish_if_idle()

    def stop_sending(self) -> None:
        """Send no more; done when the last reply is in."""
        self._left = 0
        self._finish_if_idle()

    def give_up(self) -> None:
        """Count what is outstanding as lost."""
        self._check.close()

    async def close(self) -> None:
        """End the session."""
        await self._messenger.shutdown()

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        """Check one reply and send the next request."""
        now = time.perf_counter()
        if m.type == ERROR_REPLY:
            latency = self._check.failed(m.tid, msgpack.unpackb(m.front)["code"], now)
        else:
            latency = self._check.replied(m.tid, (m.front, m.middle, m.data), now)
        if latency is None:
            return True
        self._board.latency.record(latency)
        self._board.last_reply_at = now
        self.start()
        return True

    def handle_connect(self, con: Connection) -> None:
        """Count the connects after the first."""
        self._connects += 1
        if self._connects > 1:
            self._board.reconnects += 1

    def handle_remote_reset(self, con: Connection) -> None:
        """The server forgot the session: what was outstanding is lost, a new window begins."""
        self._board.resets += 1
        self._check.close()
        self.start()

    def handle_reset(self, con: Connection) -> None:
        """The session is gone for good."""
        self._board.resets += 1
        self._check.close()
        self.stop_sending()

    def _send(self) -> None:
        assert self._con is not None
        self._serial += 1
        if self._left is not None:
            self._left -= 1
        parts = self._payloads.parts(self._serial)
        self._check.asked(self._serial, parts, time.perf_counter())
        self._con.send_message(Message(self._plan.type, *parts, tid=self._serial))

    def _finish_if_idle(self) -> None:
        if self._left == 0 and not self._check.outstanding and not self._done:
            self._done = True
            self._board.client_finished()
