"""The clients of one load process and what they found together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mpmsgr.load.client import LoadClient
from mpmsgr.load.latency import Histogram
from mpmsgr.load.payload import Bodies
from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.report import LoadReport
from mpmsgr.load.verify import Tally

_TICK_S = 0.25
_CONNECTING_AT_ONCE = 64

Counts = dict[str, int]
"""sent, answered, errors so far."""


class Generator:
    """All clients of one process: `connect`, then `run`, then `close`.

    *progress* is called about four times a second.
    """

    def __init__(self, plan: LoadPlan, progress: Callable[[Counts], None]) -> None:
        self.plan = plan
        self.tally = Tally()
        self.latency = Histogram()
        self.reconnects = self.resets = self.ended = 0
        self.last_reply_at = 0.0
        self._progress = progress
        self._finished = asyncio.Event()
        self._clients = [
            LoadClient(self, plan, plan.first_client + i, count)
            for i, count in enumerate(plan.client_counts())
        ]
        self._busy = len(self._clients)

    async def connect(self) -> None:
        """Give every client its session. Raises ConnectError."""
        bodies, gate = Bodies(self.plan), asyncio.Semaphore(_CONNECTING_AT_ONCE)

        async def connect(client: LoadClient) -> None:
            async with gate:
                await client.connect(bodies)

        try:
            async with asyncio.timeout(self.plan.connect_timeout_s):
                await asyncio.gather(*map(connect, self._clients))
        except TimeoutError:
            pass
        for client in self._clients:
            if not client.is_open:
                raise client.connect_error()

    async def run(self) -> LoadReport:
        """Send what the plan says and wait for the replies."""
        started_at = self.last_reply_at = time.perf_counter()
        cpu_started_s = time.process_time()
        for client in self._clients:
            client.start()
        if self.plan.duration_s is not None:
            asyncio.get_running_loop().call_later(self.plan.duration_s, self.stop_sending)
        await self._wait_finished()
        for client in self._clients:
            client.give_up()
        return LoadReport(
            plan=self.plan,
            tally=self.tally,
            latency=self.latency,
            reconnects=self.reconnects,
            resets=self.resets,
            ended=self.ended,
            cause=self._cause(),
            duration_s=self.last_reply_at - started_at,
            cpu_s=time.process_time() - cpu_started_s,
        )

    def stop_sending(self) -> None:
        """Send no more requests; `run` returns when the replies are in."""
        for client in self._clients:
            client.stop_sending()

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

    def _counts(self) -> Counts:
        errors = sum(self.tally.errors.values())
        return {"sent": self.tally.sent, "answered": self.tally.answered, "errors": errors}

    def _cause(self) -> str:
        """Why a client has no session any more, "" if all have theirs."""
        errors = [client.connect_error() for client in self._clients if not client.is_open]
        return str(errors[0].cause or "") if errors else ""
