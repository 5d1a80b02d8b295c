"""A service for tests of what its plugin may count on: with workers, or (`local`) without.

Front and workers share one loop and a real link; the memory that processes would share is real,
mapped at both ends. What is private to the pool is looked at here only.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NoReturn
from unittest.mock import patch

import pytest
import uvloop

from mpmsgr import Connection, Dispatcher, Message, Messenger, Policies, RemoteError
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.handlers import FunctionDispatcher
from mpmsgr.dispatch.lanes import Lanes, Worker
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.pool.envelope import identity
from mpmsgr.pool.front import PoolFront
from mpmsgr.pool.ingress import Ingress
from mpmsgr.pool.io_memory import IoMemory
from mpmsgr.pool.items import PoolLane, SessionLane
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
from tests.unit.messenger_peers import TEST_S, client, connected, place

Test = Callable[..., Coroutine[Any, Any, None]]
#: The functions with @handles and @every, or dispatchers, of one process.
Plugin = Callable[["Site"], Iterable[Any]]

INCARNATION = 3
WAIT_S = 10.0
#: Slots that have memory in every pool.
SLOTS = 3


def on_uvloop(test: Test) -> Callable[..., None]:
    """The coroutine function as a test on the loop that servers use."""

    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(_handle)
            runner.run(asyncio.wait_for(test(*args, **kwargs), TEST_S))

    return functools.wraps(test)(run)


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), DeathError):
        loop.default_exception_handler(context)


#: The test runs with the handlers in the process of the sockets, and with two workers.
with_and_without_workers = pytest.mark.parametrize("workers", [0, 2], ids=["local", "pool"])


class DeathError(BaseException):
    """Ends what runs in a worker that is dead."""


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


class Site:
    """Where a plugin runs. name: slot.generation of the worker, or "local"; on_busy: called when
    the worker has sent something in the midst of a batch.
    """

    def __init__(self, name: str, kill: Callable[[], object] | None = None) -> None:
        self.name = name
        self.on_busy: Callable[[], None] = lambda: None
        self._kill = kill

    def die(self) -> NoReturn:
        """End the worker here and now, as SIGKILL would."""
        assert self._kill is not None
        self._kill()
        raise DeathError(self.name)

    async def hang(self) -> NoReturn:
        """Run until the worker dies."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")


def dispatcher_of(things: Iterable[Any], name: str = "plugin") -> Dispatcher:
    """The dispatcher that is in *things*, or made of the functions in them."""
    listed = list(things)
    if isinstance(listed[0], Dispatcher):
        return listed[0]
    module = ModuleType(name)
    for i, function in enumerate(listed):
        setattr(module, f"f{i}", function)
    return FunctionDispatcher(module, {})


def chain_of(things: Iterable[Any]) -> Chain:
    """A chain of the dispatchers in *things*, and of one made of the functions in them."""
    listed = list(things)
    dispatchers = [thing for thing in listed if isinstance(thing, Dispatcher)]
    functions = [thing for thing in listed if not isinstance(thing, Dispatcher)]
    chain = Chain()
    for dispatcher in dispatchers + ([dispatcher_of(functions)] if functions else []):
        chain.add_tail(dispatcher)
    return chain


@dataclass(frozen=True)
class Sizes:
    """Of the shared memory, in bytes; threshold: longer messages lie in the arenas."""

    arena: int = 4 << 20
    egress: int = 4 << 20
    ring: int = 64 << 10
    threshold: int = 64 << 10


SIZES = Sizes()


class PoolWorker:
    """A worker that is linked to the front."""

    def __init__(
        self, slot: int, generation: int, site: Site, runtime: Runtime, memory: WorkerMemory | None
    ) -> None:
        self.slot, self.generation, self.site = slot, generation, site
        self.runtime = runtime
        self.memory = memory

    @property
    def cons(self) -> dict[int, Connection]:
        """The connections it was told of, by id."""
        return dict(self.runtime._cons)

    @property
    def page(self) -> Any:
        """Its counters page."""
        assert self.memory is not None
        return self.memory.page

    def place_of(self, view: Any) -> tuple[str, int] | None:
        """Arena and offset where *view* lies in this worker; None: in no arena."""
        assert self.memory is not None
        assert self.memory._ingress is not None
        mappings = {"ingress": self.memory._ingress, "egress": self.memory._egress._mapping}
        return _place_in(mappings, view)

    @property
    def egress_used(self) -> int:
        """Bytes of its arena in use."""
        return self.memory._egress.used if self.memory is not None else 0


def _place_in(mappings: dict[str, Mapping], view: Any) -> tuple[str, int] | None:
    for name, mapping in mappings.items():
        offset = mapping.offset_of(view)
        if offset is not None:
            return name, offset
    return None


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
        self.front = PoolFront(
            self.endpoint,
            incarnation,
            memory=self.memory,
            **{"credit": 100, "dispatch_bytes": 64 << 20, **front},
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
            **{"on_first": lambda: None, "memory": memory, **self._worker_options},
            on_busy=lambda: site.on_busy(),
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

    def place_of(self, view: Any, slot: int = 0) -> tuple[str, int] | None:
        """Arena and offset where *view* lies in the front; egress: that of the worker *slot*."""
        assert self.memory is not None
        mappings = {"ingress": self.memory.ingress, "egress": self.memory.slots[slot]._egress}
        return _place_in(mappings, view)

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


@asynccontextmanager
async def pool(
    plugin: Plugin, workers: int = 1, **options: Any
) -> AsyncIterator[tuple[Pool, Messenger]]:
    """A pool with *workers*, and a client's messenger; in the end all is accounted for."""
    with TemporaryDirectory(dir="/tmp") as directory:
        made = Pool(directory, plugin, **options)
        try:
            await made.start(workers)
            async with client(drain_s=0.1) as messenger:
                yield made, messenger
            await made.settled()
        finally:
            await made.stop()


@asynccontextmanager
async def service(
    plugin: Plugin, workers: int, **options: Any
) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """A server with *workers*, or without any, and a client's messenger."""
    if workers:
        async with pool(plugin, workers, **options) as (made, messenger):
            yield made.messenger, messenger
        return
    async with Messenger("svc.0", drain_s=0.1, **options) as server:
        await server.use_chain(chain_of(plugin(Site("local"))))
        await server.bind(ANY_PORT)
        async with client(drain_s=0.1) as messenger:
            yield server, messenger


@asynccontextmanager
async def sessions(
    server: Pool | Messenger, count: int
) -> AsyncIterator[tuple[MessengerConnection, ...]]:
    """Open connections of so many clients."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(drain_s=0.1)) for _ in range(count)]
        yield tuple([await session(server, messenger) for messenger in clients])


async def session(server: Pool | Messenger, messenger: Messenger) -> MessengerConnection:
    """An open connection of the client's."""
    served = server.messenger if isinstance(server, Pool) else server
    return await connected(messenger, place(served))


def ask(
    con: MessengerConnection, type_: int, front: object = b"", **parts: Any
) -> asyncio.Task[Message]:
    """A request on its way; *front* as text."""
    raw = front if isinstance(front, bytes) else str(front).encode()
    return asyncio.ensure_future(con.request(Message(type_, raw, **parts), timeout=WAIT_S))


async def answer(con: MessengerConnection, type_: int, front: object = b"", **parts: Any) -> Any:
    """What a handler returns for it."""
    return unpack(await ask(con, type_, front, **parts))


async def refused(request: asyncio.Task[Message]) -> tuple[int, str]:
    """Code and text of the error reply to *request*."""
    with pytest.raises(RemoteError) as raised:
        await request
    return raised.value.code, raised.value.text


def text(m: Message) -> str:
    """The front of *m*."""
    return bytes(m.front).decode()
