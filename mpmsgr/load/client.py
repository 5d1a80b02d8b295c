"""One client of a load process: one session, a window of requests, every reply checked."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from mpmsgr.dispatch.payload import remote_error
from mpmsgr.errors import ConnectError
from mpmsgr.load.latency import Histogram
from mpmsgr.load.payload import Bodies, Requests
from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.verify import SessionCheck, Tally
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.messenger import Messenger
from mpmsgr.messenger.sink import Sink
from mpmsgr.session.actions import Event, EventKind
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import ERROR_REPLY
from mpmsgr.wire.v1.parcel import HEADER, decode_raw


class Board(Protocol):
    """What the clients of a process share."""

    tally: Tally
    latency: Histogram
    reconnects: int
    resets: int
    ended: int
    last_reply_at: float

    def client_finished(self) -> None:
        """A client has sent everything and waits for nothing."""


class LoadClient(Sink):
    """`in_flight` requests kept up on one session. The sink of its messenger, without dispatchers.

    It takes raw messages, as the I/O process of a server does, and sends finished ones: the load
    shares the machine with the server, and an object per message would cost more than the rest.
    """

    def __init__(self, board: Board, plan: LoadPlan, number: int, count: int | None) -> None:
        self._board = board
        self._plan = plan
        self._number = number
        self._left = count
        self._last_tid = 0
        self._connects = 0
        self._done = self._over = False
        self._check = SessionCheck(board.tally)
        self._messenger = Messenger(f"client.{number}", sink=self)
        self._opened = asyncio.Event()
        self._end = ""
        self._session: Session | None = None
        self._requests: Requests

    async def connect(self, bodies: Bodies) -> None:
        """Open the session; returns when it is open or over."""
        plan = self._plan
        self._requests = Requests(plan, self._number, bodies)
        con = self._messenger.get_connection(plan.address, peer_type=plan.peer_type)
        assert isinstance(con, MessengerConnection)  # no loopback: this messenger is not bound
        self._session = con.session
        await self._opened.wait()

    @property
    def is_open(self) -> bool:
        """Can requests travel?"""
        return self._session is not None and self._session.state is State.OPEN

    def connect_error(self) -> ConnectError:
        """Why there is no session."""
        session = self._session
        attempts, cause = (session.attempts, session.cause) if session else (0, "")
        return ConnectError(self._plan.address, attempts, self._end or cause)

    def start(self) -> None:
        """Fill the window."""
        self._fill(time.perf_counter())
        self._messenger.driver.run()

    def stop_sending(self) -> None:
        """Send no more; done when the last reply is in."""
        self._left = 0
        self._finish_if_idle()

    def give_up(self) -> None:
        """Count what is outstanding as lost; what still arrives does not count."""
        self._over = True
        self._left = 0
        self._check.close()

    async def close(self) -> None:
        """End the session."""
        await self._messenger.shutdown()

    # sink

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        """Check replies and send as many requests; messages that are no replies are ignored."""
        if self._over:
            return
        now = time.perf_counter()
        record = self._board.latency.record
        type_wanted, check, intact = self._plan.type, self._check, self._requests.intact
        for raw in raws:
            header = HEADER.unpack_from(raw)
            tid, type_ = header[1:3]
            if type_ == type_wanted:
                latency = check.replied(tid, intact(tid, header[5:8], raw), now)
                if latency is not None:
                    record(latency)
            elif type_ == ERROR_REPLY:
                check.failed(tid, remote_error(decode_raw(raw)).code, now)
        self._board.last_reply_at = now
        self._fill(now)

    def event(self, event: Event) -> None:
        """Count connects after the first, resets and ends."""
        if event.kind is EventKind.CONNECT:
            self._opened.set()
            self._connects += 1
            self._board.reconnects += self._connects > 1
        elif event.kind is EventKind.REMOTE_RESET:
            self._board.resets += 1
            self._check.close(event.kept)
            self._fill(time.perf_counter())
        elif event.kind is EventKind.RESET:
            self._opened.set()
            self._end = event.cause
            self._board.ended += not self._done
            self._check.close()
            self.stop_sending()

    def full(self, session: Session, full: bool) -> None:
        """See `Sink`; replies are not requests, and nothing waits for room."""

    async def drain(self) -> None:
        """Nothing waits here."""

    # requests

    def _fill(self, now: float) -> None:
        """Send what the window has room for."""
        room = self._plan.in_flight - self._check.outstanding
        if self._left is not None:
            room = min(room, self._left)
            self._left -= max(room, 0)
        if room > 0:
            tids = range(self._last_tid + 1, self._last_tid + room + 1)
            self._last_tid += room
            self._check.asked(tids, now)
            messenger, session = self._messenger, self._session
            assert session is not None
            messenger.endpoint.send(session, self._requests.parcels(tids), messenger.now())
        elif self._left == 0:
            self._finish_if_idle()

    def _finish_if_idle(self) -> None:
        if self._left == 0 and not self._check.outstanding and not self._done:
            self._done = True
            self._board.client_finished()
