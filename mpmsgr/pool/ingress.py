"""The I/O process's arena: large payloads are received there, and looked at by workers.

A slot is in use while anybody refers to it: the message itself until it is handled, each worker
that has seen it until its last view is gone, and replies that send it back until they are
acknowledged. (arena.py has its states.)
"""

from __future__ import annotations

import asyncio
import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mpmsgr.messenger.sink import HEAP
from mpmsgr.messenger.throttles import too_slow
from mpmsgr.pool.arena import PAGE, Arena
from mpmsgr.pool.mapping import Mapping
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.v1.parcel import Parcel

#: Data begins at a multiple of this, for those who compute with it.
_ALIGN = 64
#: Part of the arena that one session's messages may take, unless it has only one; and that replies
#: which are not acknowledged may keep.
_QUOTA, _REPLIES = 4, 2
#: After so many seconds a message that waits for room goes before all younger ones.
_PATIENCE_S = 2.0


class Lease(NamedTuple):
    """A slot that a worker looks at although its message is handled: bytes, seconds since then."""

    worker: int
    nbytes: int
    age_s: float


class _Slot:
    """Where one message is.

    offset: of its first byte; session: whose it is, 0 once it is handled; users: views here, and
    workers that were given it; pipe: from which it is being received, since when it is.
    """

    __slots__ = ("length", "offset", "pipe", "session", "since", "size", "start", "users")

    def __init__(
        self, start: int, length: int, offset: int, size: int, session: int, pipe: Pipe, now: float
    ) -> None:
        self.start, self.length = start, length
        self.offset, self.size = offset, size
        self.session, self.users = session, 0
        self.pipe: Pipe | None = pipe
        self.since = now


class Placed:
    """A raw message in the arena. view: its bytes."""

    __slots__ = ("slot", "view")

    def __init__(self, slot: _Slot, view: memoryview) -> None:
        self.slot, self.view = slot, view

    def __len__(self) -> int:
        return len(self.view)

    @property
    def offset(self) -> int:
        """Where it lies."""
        return self.slot.offset


class _Loan:
    """A slot that a worker was given, *count* times; since: when its message was handled, or 0."""

    __slots__ = ("count", "since", "slot")

    def __init__(self, slot: _Slot) -> None:
        self.slot, self.count, self.since = slot, 0, 0.0


class _Claim(NamedTuple):
    """A message that waits for room, since when."""

    size: int
    lead: int
    at: float


class Ingress:
    """The arena in *mapping*. grant(pipe, place): there is room now; now(): seconds."""

    def __init__(
        self,
        mapping: Mapping,
        grant: Callable[[Pipe, memoryview], bool],
        now: Callable[[], float],
    ) -> None:
        self._mapping = mapping
        self._arena = Arena(mapping.size)
        self._grant = grant
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, _Slot] = {}  # by start
        self._starts: list[int] = []  # sorted
        self._of_session: dict[int, int] = {}  # bytes
        self._claims: dict[Pipe, _Claim] = {}  # the oldest first
        self._loans: dict[int, dict[int, _Loan]] = {}  # by worker, by offset of the message
        self._ended: deque[_Slot] = deque()
        self._wakes = False
        self._replies: dict[int, weakref.ref[Parcel]] = {}  # the oldest first
        self._reply_bytes = 0

    # messages in

    def place(
        self, pipe: Pipe, size: int, lead: int, *, at_once: bool = False
    ) -> memoryview | None:
        """See `Sink.place`. at_once: HEAP where there is no room."""
        if size + _ALIGN + PAGE > self._mapping.size:
            return HEAP
        self.collect()
        now = self._now()
        view = None
        if not self._claims or not self._is_someone_first(now):
            view = self._allocate(pipe, size, lead, now)
        if view is None:
            if at_once:
                return HEAP
            self._claims[pipe] = _Claim(size, lead, now)
            self._wakes = True
        return view

    def unplace(self, pipe: Pipe) -> None:
        """See `Sink.unplace`."""
        self._claims.pop(pipe, None)

    def let_through(self, session: Session) -> None:
        """*session* is to be read on: what is awaited of its peer may be behind a message that
        waits for room.
        """
        for pipe in [pipe for pipe in self._claims if pipe.session is session]:
            del self._claims[pipe]
            self._grant(pipe, HEAP)

    def _is_someone_first(self, now: float) -> bool:
        """Has somebody waited for so long that nobody may come before?"""
        oldest = next(iter(self._claims.values()), None)
        return oldest is not None and now - oldest.at > _PATIENCE_S

    def _allocate(self, pipe: Pipe, size: int, lead: int, now: float) -> memoryview | None:
        session = pipe.session.id if pipe.session is not None else 0
        has = self._of_session.get(session, 0)
        if has and has + size > self._mapping.size // _QUOTA:
            return None
        nbytes = size + _ALIGN
        start = self._arena.allocate(nbytes)
        if start is None and self._evacuate(nbytes):
            start = self._arena.allocate(nbytes)
        if start is None:
            return None
        length, offset = self._arena.length_of(start), start + -lead % _ALIGN
        slot = self._slots[start] = _Slot(start, length, offset, size, session, pipe, now)
        insort(self._starts, start)
        self._of_session[session] = has + length
        return self._view(slot, offset, size, writable=True)

    def taken(self, raw: memoryview) -> Placed | None:
        """The message that landed in *raw*; None: that is no place of ours."""
        slot: _Slot | None = self._mapping.about(raw)
        if slot is None:
            return None
        slot.pipe = None
        return Placed(slot, raw)

    # workers

    def lend(self, worker: int, item: Placed) -> None:
        """*worker* is given *item*."""
        slot = item.slot
        slot.users += 1
        loans = self._loans.setdefault(worker, {})
        loan = loans.get(slot.offset)
        if loan is None:
            loan = loans[slot.offset] = _Loan(slot)
        loan.count += 1
        loan.since = 0.0

    def handled(self, worker: int, item: Placed) -> None:
        """Its message is handled: from now on it is a lease that the worker keeps."""
        slot = item.slot
        self._discharge(slot)
        loan = self._loans.get(worker, {}).get(slot.offset)
        if loan is not None:
            loan.since = self._now()

    def ended(self, worker: int, offsets: list[int]) -> None:
        """Views of *worker* are gone."""
        loans = self._loans.get(worker, {})
        for offset in offsets:
            loan = loans[offset]
            loan.count -= 1
            if not loan.count:
                del loans[offset]
            self._unused(loan.slot, 1)
        self._grant_waiting()

    def worker_lost(self, worker: int) -> None:
        """*worker* is dead."""
        for loan in self._loans.pop(worker, {}).values():
            self._unused(loan.slot, loan.count)
        self._grant_waiting()

    def leases(self) -> Iterator[Lease]:
        """What workers keep although it is handled."""
        now = self._now()
        for worker, loans in self._loans.items():
            for loan in loans.values():
                if loan.since:
                    yield Lease(worker, loan.slot.length, now - loan.since)

    # replies

    def view(self, worker: int, offset: int, length: int) -> memoryview:
        """What *worker* sends back. Raises ValueError where it has no lease of it."""
        slot = self._slot_of(offset)
        if slot.offset not in self._loans.get(worker, {}):
            raise ValueError(f"worker {worker} refers to {length} bytes at {offset}: not its lease")
        return self._view(slot, offset, length)

    def keeps(self, parcel: Parcel) -> None:
        """*parcel* refers to the arena."""
        self._replies[id(parcel)] = weakref.ref(parcel)
        self._reply_bytes += parcel.size
        if self._reply_bytes > self._mapping.size // _REPLIES:
            self._evacuate(0)

    def _evacuate(self, wanted: int) -> bool:
        """Copy replies out, the oldest first: *wanted* bytes of them, and what is above the budget.

        Reading must not wait for acks, which may be behind what is to be read.
        """
        alive = {key: parcel for key, ref in self._replies.items() if (parcel := ref())}
        before = left = sum(parcel.size for parcel in alive.values())
        keep = min(self._mapping.size // _REPLIES, before - wanted)
        for key in list(alive):
            if left <= keep:
                break
            parcel = alive.pop(key)
            parcel.body = tuple(bytes(p) if type(p) is memoryview else p for p in parcel.body)
            left -= parcel.size
        self._replies = {key: self._replies[key] for key in alive}
        self._reply_bytes = left
        self._collect_ended()
        return left < before

    # slots

    def _view(self, slot: _Slot, offset: int, length: int, *, writable: bool = False) -> memoryview:
        slot.users += 1
        return self._mapping.lease(offset, length, self._view_ended, slot, writable=writable)

    def _view_ended(self, slot: _Slot) -> None:
        self._ended.append(slot)
        if self._wakes:
            self._wakes = False
            self._loop.call_soon_threadsafe(self.collect)

    def collect(self) -> None:
        """Free what nobody refers to any more, and grant it to who waits."""
        self._collect_ended()
        self._grant_waiting()

    def _collect_ended(self) -> None:
        while self._ended:
            self._unused(self._ended.popleft(), 1)

    def _slot_of(self, offset: int) -> _Slot:
        at = bisect_right(self._starts, offset) - 1
        slot = self._slots[self._starts[at]] if at >= 0 else None
        if slot is None or offset >= slot.start + slot.length:
            raise ValueError(f"no slot at {offset} of the ingress arena")
        return slot

    def _unused(self, slot: _Slot, count: int) -> None:
        slot.users -= count
        if slot.users:
            return
        self._arena.free(slot.start)
        del self._slots[slot.start]
        self._starts.remove(slot.start)
        self._discharge(slot)

    def _discharge(self, slot: _Slot) -> None:
        """*slot* does not count for its session's quota any more."""
        left = self._of_session.pop(slot.session, 0) - slot.length
        if left > 0:
            self._of_session[slot.session] = left
        slot.session = 0

    def _grant_waiting(self) -> None:
        if not self._claims:
            return
        now = self._now()
        for pipe, claim in list(self._claims.items()):
            view = self._allocate(pipe, claim.size, claim.lead, now)
            if view is not None:
                del self._claims[pipe]
                self._grant(pipe, view)
            elif now - claim.at > _PATIENCE_S:
                break
        self._wakes = bool(self._claims)

    # upkeep

    def slow(self) -> Iterator[tuple[Pipe, str]]:
        """Whose payloads come too slowly while others wait for room, and why that is too slow."""
        if not self._claims:
            return
        now = self._now()
        for slot in list(self._slots.values()):
            if slot.pipe is None or slot.pipe.established is None:
                continue
            got = slot.pipe.established.parser.buffered
            cause = too_slow(got, slot.size, now - slot.since)
            if cause:
                yield slot.pipe, cause

    @property
    def size(self) -> int:
        """Bytes there are."""
        return self._mapping.size

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._arena.used

    @property
    def slots(self) -> int:
        """Slots in use."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """Messages that wait for room."""
        return len(self._claims)
