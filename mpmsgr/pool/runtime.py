"""What a worker does with batches: run the dispatchers, send back what they did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from mpmsgr.dispatch.chain import Chain
from mpmsgr.errors import SessionReset
from mpmsgr.messenger.runner import Runner
from mpmsgr.messenger.tids import TidSource
from mpmsgr.pool.envelope import BATCH, BYE, DOWN, READY, Intro, identity, pack, unpack
from mpmsgr.pool.link import Link
from mpmsgr.pool.remote import RemoteConnection
from mpmsgr.session.actions import EventKind
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import decode_raw

#: Replies leave at the latest this long after the first of them was made, in seconds, also while
#: a batch of slow messages is being worked on.
_FLUSH_EVERY_S = 0.002

_RESETS = {EventKind.RESET.value, EventKind.REMOTE_RESET.value}


class _SupersededError(Exception):
    """The I/O process whose batch is being worked on is gone, and another one is served now."""


class Runtime:
    """The dispatchers of one worker and its link to the I/O process.

    name: whose messages ours are; limits: of what is sent; on_first: called when the first item
    is completed; on_busy: called now and then while a batch is being worked on, when no event
    reaches the loop.
    """

    def __init__(
        self,
        chain: Chain,
        name: EntityName,
        slot: int,
        generation: int,
        on_first: Callable[[], None],
        on_busy: Callable[[], None],
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.tids = TidSource()
        self.runner = Runner[RemoteConnection](chain, self._item_done)
        self._slot, self._generation = slot, generation
        self._on_first: Callable[[], None] | None = on_first
        self._on_busy = on_busy
        self._on_linked: Callable[[], None] | None = None
        self._incarnation = 0
        self._link: Link | None = None
        self._cons: dict[int, RemoteConnection] = {}
        self._dirty: list[RemoteConnection] = []
        self._working = False
        self._flush_at = 0.0
        self._loop = asyncio.get_running_loop()

    # the link

    def connect(self, endpoint: str, incarnation: int, on_linked: Callable[[], None]) -> None:
        """Serve the I/O process at *endpoint*; whatever came from an earlier one is void.

        on_linked: called when it has told that it knows us.
        """
        self.disconnect()
        self._incarnation, self._on_linked = incarnation, on_linked
        me = identity(self._slot, self._generation)
        self._link = Link.dealer(endpoint, me, self._received)
        self._send(READY, None)

    def disconnect(self) -> None:
        """Leave the I/O process that we serve."""
        for con in self._cons.values():
            con.leave()
        self._cons.clear()
        self._dirty.clear()
        if self._link is not None:
            self._link.close()
            self._link = None

    def goodbye(self) -> None:
        """Nothing more will come from here."""
        self._flush()
        self._send(BYE, None)
        self.disconnect()

    def _send(self, kind: int, payload: object) -> None:
        if self._link is not None:
            self._link.send(pack((self._incarnation, self._generation, kind, payload)))

    # batches in

    def _received(self, parts: list[bytes]) -> None:
        incarnation, records = unpack(parts[0])
        if incarnation != self._incarnation:
            return
        if self._on_linked is not None:
            self._on_linked()
            self._on_linked = None
        self._working = True
        self._flush_at = monotonic() + _FLUSH_EVERY_S
        try:
            for con_id, intro, items in records:
                self._record(con_id, intro, items)
        except _SupersededError:
            pass
        finally:
            self._working = False
            self._flush()

    def _record(self, con_id: int, intro: list[object] | None, items: list[object] | None) -> None:
        con = self._cons.get(con_id)
        if items is None:
            self._forget(con_id)
            return
        if con is None:
            con = self._cons[con_id] = RemoteConnection(self, con_id)
        if intro is not None:
            con.introduce(Intro(*intro))  # type: ignore[arg-type]
        nonce = con.peer_addr.nonce
        submit, lane = self.runner.submit, con.lane
        for item in items:
            if type(item) is bytes:
                submit(lane, con, decode_raw(item, nonce))
            else:
                self._event(con, *item)  # type: ignore[misc]

    def _event(self, con: RemoteConnection, kind: str, lost: list[int]) -> None:
        if kind in _RESETS:
            con.last_reset = SessionReset(con.peer_addr, len(lost), lost)
        if kind == EventKind.RESET.value:
            self._cons.pop(con.id, None)
            con.leave()
        self.runner.submit(con.lane, con, kind)

    def _forget(self, con_id: int) -> None:
        """Another worker has the connection now, or nobody. What is still sent goes by its id."""
        con = self._cons.pop(con_id, None)
        if con is not None:
            con.detach()

    def connection(self, id_: int) -> RemoteConnection:
        """The connection with *id_*, known here or not."""
        return self._cons.get(id_) or RemoteConnection(self, id_)

    # batches out

    def has_output(self, con: RemoteConnection) -> None:
        """*con* has something for the next batch."""
        if not self._dirty and not self._working:
            self._loop.call_soon(self._flush)
        con.dirty = True
        self._dirty.append(con)

    def mark_down(self, con: RemoteConnection) -> None:
        """End *con*. It is known here until the last of its messages is handled."""
        self._flush()
        con.leave()
        self._send(DOWN, [con.id])

    def _item_done(self, con: RemoteConnection) -> None:
        con.completed += 1
        if not con.dirty:
            self.has_output(con)
        if self._working and monotonic() > self._flush_at:
            self._look_up()
        if self._on_first is not None:
            self._on_first()
            self._on_first = None

    def _look_up(self) -> None:
        """In a long batch: send what is ready, see what else there is."""
        self._flush()
        incarnation = self._incarnation
        self._on_busy()
        if self._incarnation != incarnation:
            raise _SupersededError
        self._flush_at = monotonic() + _FLUSH_EVERY_S

    def _flush(self) -> None:
        if self._dirty:
            records = [con.take_record() for con in self._dirty]
            self._dirty.clear()
            self._send(BATCH, records)
