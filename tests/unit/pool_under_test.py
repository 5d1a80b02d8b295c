"""A pool in the process of the test: a front, and workers as they come and go, on one loop.

The link between them is real, and so is the memory that processes would share, mapped at both ends.
What is private to the front is looked at here only.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from mpmsgr import Messenger, Policies
from mpmsgr.dispatch.lanes import Lanes, Worker
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.pool.envelope import identity
from mpmsgr.pool.front import PoolFront
from mpmsgr.pool.ingress import Ingress
from mpmsgr.pool.io_memory import IoMemory
from mpmsgr.pool.items import PARKED, PoolLane, SessionLane
from mpmsgr.pool.layout import SlotLayout
from mpmsgr.pool.link import Link
from mpmsgr.pool.mapping import Mapping
from mpmsgr.pool.page import SIZE as PAGE
from mpmsgr.pool.page import Page
from mpmsgr.pool.runtime import Runtime
from mpmsgr.pool.worker_memory import WorkerMemory
from mpmsgr.session.session import Session
from mpmsgr.supervisor.memory import create, read_only
from tests.loopback import ANY_PORT
from tests.support import eventually_async
from tests.unit.pool_site import Plugin, Site, chain_of
from tests.unit.pool_worker import PoolWorker, place_in

INCARNATION = 3
WAIT_S = 10.0
#: Slots that have memory in every pool.
SLOTS = 3


@dataclass(frozen=True)
class Sizes:
    """Of the shared memory, in bytes; threshold: longer messages lie in the arenas."""

    arena: int = 4 << 20
    egress: int = 4 << 20
    ring: int = 64 << 10
    threshold: int = 64 << 10


SIZES = Sizes()


class Pool:
    """A messenger whose sink is a front, and workers as they come and go.

    plugin: what runs in each; sizes: of the memory, None: everything travels in frames; respawn: a
    worker that dies is replaced; worker: options of their runtimes; front: options of the front.
    """

    def __init__(
        self,
        directory: str,
        plugin: Plugin,
        *,
        sizes: Sizes | None = SIZES,
        policies: Policies | None = None,
        respawn: bool = False,
        incarnation: int = INCARNATION,
        worker: dict[str, Any] | None = None,
        **front: Any,
    ) -> None:
        self.endpoint = f"ipc://{Path(directory) / 'io.ipc'}"
        self.plugin = plugin
        self.sizes = sizes
        self.workers: dict[int, PoolWorker] = {}
        self.incarnation = incarnation
        self.deaths = 0
        self._respawn = respawn
        self._respawning: list[asyncio.Task[PoolWorker]] = []
        self._worker_options = worker or {}
        self._generations = dict.fromkeys(range(100), 0)
        self._remains: list[PoolWorker] = []
        self._links: list[Link] = []
        self.memory = self._share(sizes) if sizes is not None else None
        self._credit = front.pop("credit", 100)
        self.front = PoolFront(
            self.endpoint,
            incarnation,
            memory=self.memory,
            credit=self._credit,
            **{"dispatch_bytes": 64 << 20, **front},
        )
        self.messenger = Messenger(
            "svc.0",
            sink=self.front,
            policies=policies,
            first_id=(incarnation << 32) + 1,
            drain_s=0.1,
        )

    def _share(self, sizes: Sizes) -> IoMemory:
        """What the supervisor makes."""
        self.layout = SlotLayout(sizes.ring, sizes.egress)
        self._slot_fds = [create(f"test-worker-{slot}", self.layout.size) for slot in range(SLOTS)]
        self._pages = [Page(Mapping(fd, PAGE, writable=True).raw(0, PAGE)) for fd in self._slot_fds]
        arena = create("test-io", sizes.arena)
        self._arena_fd = read_only(arena)
        memory = IoMemory(arena, sizes.arena, self.layout, sizes.threshold)
        for slot, fd in enumerate(self._slot_fds):
            memory.add_slot(slot, os.dup(fd))
        return memory

    def _take_started(self, slot: int) -> list[int]:
        """What the dead worker's page names; blanks it for the next one."""
        started = self._pages[slot].started()
        self._pages[slot].reset()
        return started

    # life

    async def start(self, workers: int) -> None:
        """Serve, with *workers*."""
        _log.addFilter(_texts)
        self.messenger.start()
        self.front.attach(self.messenger.driver)
        await self.messenger.bind(ANY_PORT)
        for slot in range(workers):
            await self.worker(slot)

    async def worker(self, slot: int, generation: int = 0) -> PoolWorker:
        """One more worker, when it is known to the front; by default the next generation."""
        await self._bury(slot)
        generation = generation or self._generations[slot] + 1
        self._generations[slot] = generation
        site = Site(f"{slot}.{generation}", lambda: self.kill(slot))
        memory = self._memory_of(slot)
        runtime = Runtime(
            chain_of(self.plugin(site)),
            self.messenger.name,
            slot,
            generation,
            credit=self._credit,
            **{"on_first": lambda: None, "memory": memory, **self._worker_options},
            on_busy=lambda: site.on_busy(),
            on_broken=site.broken,
        )
        worker = PoolWorker(slot, generation, site, runtime, memory)
        linked = asyncio.Event()

        def on_linked() -> None:
            self.workers[slot] = worker  # it may die of what came in the same frame
            linked.set()

        arena = None
        if self.sizes is not None and memory is not None:
            arena = self._arena_fd, self.sizes.arena
        runtime.connect(self.endpoint, self.incarnation, on_linked, arena)
        await asyncio.wait_for(linked.wait(), WAIT_S)
        return worker

    def _memory_of(self, slot: int) -> WorkerMemory | None:
        if self.sizes is None:
            return None
        return WorkerMemory(self._slot_fds[slot], self.layout, self.sizes.threshold)

    async def _bury(self, slot: int) -> None:
        """What the dead workers of *slot* still run in this process ends: in theirs it has."""
        for worker in [w for w in self._remains if w.slot == slot]:
            await worker.runtime.runner.stop()
        if self.sizes is not None and any(w.slot == slot for w in self._remains):
            self._take_started(slot)

    def kill(self, slot: int, running: Iterable[int] = ()) -> list[int]:
        """End the worker in *slot*, as SIGKILL would, and tell the front what its supervisor would.

        running: what its page would name, for a pool without memory. Returns what that named.
        """
        worker = self.workers.pop(slot)
        started = list(running) if self.sizes is None else self._take_started(slot)
        self.cut(worker)
        self.deaths += 1
        self.front.worker_lost(slot, worker.generation, "signal 9", started, 9)
        if self._respawn:
            self._respawning.append(asyncio.ensure_future(self.worker(slot)))
        return started

    def cut(self, worker: PoolWorker) -> None:
        """Nothing more comes from *worker*, but what it has sent."""
        self._remains.append(worker)
        worker.runtime.runner.cancel()
        worker.runtime.disconnect()

    @contextmanager
    def frozen(self, slot: int) -> Iterator[None]:
        """The worker in *slot* reads nothing that is sent to it, as one in a long C call."""
        loop, runtime = asyncio.get_running_loop(), self.workers[slot].runtime
        link = runtime._link
        assert link is not None
        loop.remove_reader(link._fd)
        yield
        if runtime._link is link:
            loop.add_reader(link._fd, link.drain)
            link.drain()

    def trust(self) -> None:
        """From now on workers may hold much, however long their handlers seem to take here."""
        self.front._lanes.measured = lambda *_: None  # type: ignore[method-assign]
        for worker in self.front._lanes.workers.values():
            worker.credit.messages, worker.credit.nbytes = 100, 64 << 20

    def all_is_work(self) -> None:
        """From now on handlers that wait take turns from others, as those do that compute."""
        self.front._lanes.going_on = lambda *_: None  # type: ignore[method-assign]

    def time_next(self) -> None:
        """The message that comes next is timed, and none after it."""
        stages = self.front.tally.stages
        stages.due, stages._pass_over, stages._due_at = True, 0, float("inf")

    @property
    def stages(self) -> dict[str, tuple[int, float]]:
        """How many messages were timed by stage, and how long they took together, in seconds."""
        told = self.front.tally.stages.as_dict()
        return {stage: (sum(one["counts"]), one["sum"]) for stage, one in told.items()}

    @property
    def failed(self) -> int:
        """Handlers that failed."""
        return self.front.tally.failed

    def stray(self, slot: int, generation: int) -> Link:
        """A connection of that name which says only what the test says."""
        link = Link.dealer(self.endpoint, identity(slot, generation), lambda parts: None)
        self._links.append(link)
        return link

    async def settled(self) -> None:
        """Everything is handled and accounted for, and no memory in use."""
        await asyncio.wait_for(self.front.drain(), WAIT_S)
        try:
            await eventually_async(lambda: not self._left(), WAIT_S)
        except AssertionError:
            pytest.fail(f"left in the end: {self._left()}")

    def _left(self) -> dict[str, Any]:
        """What should not be left when all is handled, by name."""
        left: dict[str, Any] = {"items": self.items, "bytes": self.nbytes}
        left["held"] = sum(lane.held_bytes for lane in self.session_lanes())
        left["parked"] = [lane.id for lane in self.lanes.values() if lane.holds & PARKED]
        left["go on"] = sum(worker.waiting for worker in self.front._lanes.workers.values())
        if self.memory is not None:
            ingress = self.ingress
            ingress.collect()
            left |= {"slots": ingress.slots, "used": ingress.used, "waiting": ingress.waiting}
            left["leases"] = list(ingress.leases())
            for slot, memory in self.memory.slots.items():
                memory.collect()
                left[f"occupied {slot}"] = memory.occupied
            for worker in self.workers.values():
                left[f"egress {worker.slot}"] = worker.egress_used
        left = {name: value for name, value in left.items() if value}
        if left:
            gc.collect()
            for seat in self.front._work.seats.values():
                seat.add((0, None, None))  # what is free again is told with the next frame
        return left

    async def stop(self) -> None:
        """End everything."""
        await asyncio.gather(*self._respawning)
        await self.messenger.shutdown(0.1)
        for worker in [*self.workers.values(), *self._remains]:
            worker.runtime.runner.cancel()
            await worker.runtime.runner.stop()
            worker.runtime.disconnect()
            worker.runtime.runner.running = None  # what a death interrupted
        for link in self._links:
            link.close()
        self.front.close()
        if self.sizes is not None:
            for fd in [self._arena_fd, *self._slot_fds]:
                os.close(fd)
        _log.removeFilter(_texts)

    # what is seen of it

    @property
    def ready(self) -> dict[int, int]:
        """Generation by slot of the workers that get work."""
        return {slot: w.generation for slot, w in self.front._lanes.workers.items()}

    def seat(self, slot: int) -> Any:
        """The worker in *slot*, as lanes see it."""
        return self.front._lanes.workers[slot]

    @property
    def lanes(self) -> dict[int, PoolLane]:
        """All lanes there are, by id."""
        return self.front._by_id

    def session_lanes(self) -> Iterator[SessionLane]:
        """Those of sessions."""
        return (lane for lane in self.lanes.values() if isinstance(lane, SessionLane))

    def lane(self, con: MessengerConnection | None = None) -> SessionLane:
        """The lane of the client's *con*, or of the only session."""
        nonce = con.messenger.addr.nonce if con is not None else None
        (lane,) = (
            lane for lane in self.session_lanes() if nonce in (None, lane.session.peer_addr.nonce)
        )
        return lane

    @property
    def session(self) -> Session:
        """The only session."""
        return self.lane().session

    @property
    def items(self) -> int:
        """Messages and events in work."""
        return self.front._work.count

    @property
    def nbytes(self) -> int:
        """Their bytes."""
        return self.front.throttles.dispatch.current

    @property
    def recalls(self) -> int:
        """How often a worker was asked to give back what it has not begun."""
        return self.front._recalls.count

    def recall(self, worker: Worker) -> None:
        """Ask *worker* back and take back what it has not begun, all at once."""
        recalls = self.front._recalls
        recalls._timers[worker] = asyncio.get_running_loop().call_later(0, lambda: None)
        with patch.object(Lanes, "stalled", lambda lanes: [worker]):
            recalls._stalled(worker, worker.progress)
        recalls._timers[worker].cancel()
        recalls._settled(worker)

    @property
    def quarantined(self) -> int:
        """Messages in quarantine."""
        return self.front._quarantine.count

    @property
    def groups(self) -> dict[str, int]:
        """How many members each group has."""
        return {name: len(members) for name, members in self.front.groups.members.items()}

    @property
    def asked(self) -> set[int]:
        """Ids of the lanes that are kept for the requests of handlers."""
        return {lane.id for lanes in self.front._replies._asking.values() for lane in lanes}

    def place_of(self, view: Any, slot: int = 0) -> tuple[str, int] | None:
        """Arena and offset where *view* lies in the front; egress: that of the worker *slot*."""
        assert self.memory is not None
        mappings = {"ingress": self.memory.ingress, "egress": self.memory.slots[slot]._egress}
        return place_in(mappings, view)

    @property
    def slots(self) -> int:
        """Slots of the ingress arena in use."""
        self.ingress.collect()
        return self.ingress.slots

    def occupied(self, slot: int) -> list[tuple[int, int]]:
        """Of the worker's arena: what the front refers to, (offset, length)."""
        assert self.memory is not None
        self.memory.slots[slot].collect()
        return self.memory.slots[slot].occupied

    @property
    def ingress(self) -> Ingress:
        """The arena."""
        ingress = self.front._work.ingress
        assert ingress is not None
        return ingress


class _Texts(logging.Filter):
    """Makes records text: caplog keeps them, and with them what their objects refer to.

    What ended with its worker says nothing.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            if isinstance(record.exc_info[1], asyncio.CancelledError):
                return False
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        record.msg, record.args = record.getMessage(), None
        return True


_texts = _Texts()
_log = logging.getLogger("mpmsgr.dispatch")
