"""How often a payload is copied on its way: where it lies at every step.

                                            8 kB, inline         600 kB, in the arenas
    in     receive buffer, place              (kernel)             (kernel)
           bytes of one read                  copy
           raw message in the I/O process     copy                 same
           frame                              copy                 named only
           ring to the worker                 copy
           raw message in the worker          copy                 same
           data, as the handler sees it       copy                 same
                                              6                    0
                                            echo      bytes      echo    bytes   allocated
    out    data, as the handler gives it
           parcel in the worker               copy      copy       same    copy    same
           frame                              copy      copy       named only
           ring to the I/O process            copy      copy
           parcel in the outbox               copy      copy       same    same    same
           what the socket is given           copy      copy       same    same    same
                                              5         5          0       1       0

That is what Python and the package do. A payload in a frame that finds no room in the ring is
copied by ZeroMQ and the kernel as well. Of a message that lands in the arena, what came with its
header is copied: at most one short read, or a whole one where it was not to be expected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from mpmsgr import Connection, Message
from mpmsgr.dispatch.handlers import handles
from mpmsgr.messenger.driver import Driver
from mpmsgr.pool import remote
from mpmsgr.pool.mapping import address_of
from mpmsgr.pool.ring import RingWriter
from mpmsgr.session.pipe import Pipe
from mpmsgr.wire.v1.parcel import Parcel
from tests.unit.pool_harness import ask, on_uvloop, pool, session
from tests.unit.pool_payloads import LARGE, payload
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import Pool

ECHO, BYTES, ALLOCATED = 0x9001, 0x9002, 0x9003
INLINE = 8_000
SHORT_READ, READ = 16 << 10, 256 << 10


class Trace:
    """Where the payload was seen, step by step."""

    def __init__(self, p: Pool, data: bytes) -> None:
        self._pool, self._data = p, data
        self._needle = data[len(data) // 2 :][:64]  # not in what comes with the header
        self._kept: list[Any] = []  # an address says nothing once its memory is used again
        self.steps: list[tuple[str, object]] = []
        self.read = 0

    def see(self, step: str, *buffers: Any, keep: bool = True) -> None:
        """Note where the payload lies, if it is in one of *buffers*."""
        for buffer in buffers:
            at = bytes(buffer).find(self._needle)
            if at >= 0:
                if keep:
                    self._kept.append(buffer)
                self.steps.append((step, self._place(memoryview(buffer)[at:])))

    def _place(self, view: memoryview) -> object:
        """The same for all mappings of an arena."""
        place = self._pool.place_of(view) or self._pool.workers[0].place_of(view)
        return place or address_of(view)

    def copies(self) -> list[str]:
        """Steps whose payload lies elsewhere than at the step before."""
        return [
            step
            for (_, before), (step, place) in zip(self.steps, self.steps[1:], strict=False)
            if place != before
        ]

    def end(self) -> None:
        """Keep no view."""
        self._kept.clear()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every step that is not the handler's."""
        with ExitStack() as stack:
            for owner, name, spy in self._spies():
                stack.enter_context(patch.object(owner, name, spy(getattr(owner, name))))
            yield

    def _spies(self) -> Iterable[tuple[Any, str, Callable[[Any], Any]]]:
        return (
            (Driver, "received", self._received),
            (Driver, "landed", self._landed),
            (self._pool.front, "deliver", self._deliver),
            (RingWriter, "put", self._put),
            (remote, "encode_parts", self._encode),
            (Parcel, "revive", self._revive),
        )

    def _received(self, original: Any) -> Any:
        def received(driver: Driver, pipe: Pipe, data: bytes) -> None:
            if driver is self._pool.messenger.driver:
                self.read += len(data)
                self.see("receive buffer", driver.buffer[: len(data)])
                self.see("read", data)
            original(driver, pipe, data)

        return received

    def _landed(self, original: Any) -> Any:
        def landed(driver: Driver, pipe: Pipe, size: int) -> None:
            stage = pipe.established
            if driver is self._pool.messenger.driver and stage is not None:
                place = stage.parser.landing()
                if place is not None and not self.steps:
                    self.see("place", place)
                del place
            original(driver, pipe, size)

        return landed

    def _deliver(self, original: Any) -> Any:
        def deliver(to: Any, raws: list[Any]) -> None:
            self.see("raw", *raws)
            original(to, raws)

        return deliver

    def _put(self, original: Any) -> Any:
        def put(ring: RingWriter, data: bytes) -> int | None:
            self.see("frame", data)
            position: int | None = original(ring, data)
            if position is not None:
                at = position % ring._capacity
                self.see("ring", ring._bytes[at : at + len(data)])
            return position

        return put

    def _encode(self, original: Any) -> Any:
        def encode(*args: Any, **kwargs: Any) -> Any:
            head, body = original(*args, **kwargs)
            self.see("parcel", *body)
            return head, body

        return encode

    def _revive(self, original: Any) -> Any:
        def revive(head: bytes, body: Any) -> Parcel:
            parcel: Parcel = original(head, body)
            self.see("outbox", *parcel.body)
            return parcel

        return revive


class Written:
    """What a socket is written to; says what it is given."""

    def __init__(self, transport: asyncio.Transport, trace: Trace) -> None:
        self._transport, self._trace = transport, trace

    def write(self, data: bytes) -> None:
        self._trace.see("socket", data)
        self._transport.write(data)

    def writelines(self, parts: list[Any]) -> None:
        self._trace.see("socket", *parts)
        self._transport.writelines(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Plugin:
    """ECHO sends back what came, BYTES and ALLOCATED *data*."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.trace: Trace | None = None

    def _see(self, step: str, buffer: Any, *, keep: bool = True) -> None:
        if self.trace is not None:
            self.trace.see(step, buffer, keep=keep)

    def __call__(self, site: Site) -> Iterable[Any]:
        @handles(ECHO)
        def echo(con: Connection, m: Message) -> Message:
            self._see("raw in the worker", m.raw)
            self._see("data", m.data)
            return m.reply(m.front, data=m.data)

        @handles(BYTES)
        def give(con: Connection, m: Message) -> Message:
            self._see("given", self.data)
            return m.reply(data=self.data)

        @handles(ALLOCATED)
        def allocated(con: Connection, m: Message) -> Message:
            view = con.allocate(len(self.data))
            view[:] = self.data
            self._see("given", view, keep=False)  # nobody else may look at it
            return m.reply(data=view)

        return [echo, give, allocated]


async def traced(type_: int, size: int, warm: int) -> tuple[Trace, list[str]]:
    """The way of a payload of *size* bytes, after one of *warm*; steps at which it was copied."""
    data = payload(size)
    plugin = Plugin(data)
    async with pool(plugin) as (p, messenger):
        trace = Trace(p, data)

        def wrap(driver: Driver, transport: asyncio.Transport, pipe: Pipe) -> Any:
            return Written(transport, trace) if driver is p.messenger.driver else transport

        with patch.object(Driver, "wrap", wrap):
            con = await session(p, messenger)
            await ask(con, ECHO, data=payload(warm, 1))
            plugin.trace = trace
            trace.read = 0
            with trace.watching():
                reply = await ask(con, type_, data=data if type_ == ECHO else b"")
            assert bytes(reply.data) == data
            plugin.trace = None
        copies = trace.copies()
        trace.end()
        return trace, copies


@on_uvloop
async def test_an_inline_payload() -> None:
    trace, copies = await traced(ECHO, INLINE, warm=10)
    into = ["read", "raw", "frame", "ring", "raw in the worker", "data"]
    assert copies == [*into, "parcel", "frame", "ring", "outbox", "socket"]
    assert [step for step, _ in trace.steps] == ["receive buffer", *copies]


@on_uvloop
async def test_inline_bytes() -> None:
    _, copies = await traced(BYTES, INLINE, warm=10)
    assert copies == ["parcel", "frame", "ring", "outbox", "socket"]


@pytest.mark.parametrize(("warm", "copied"), [(LARGE, SHORT_READ), (10, READ)])
@on_uvloop
async def test_a_large_payload_and_its_echo(warm: int, copied: int) -> None:
    trace, copies = await traced(ECHO, LARGE, warm)
    assert copies == []
    into = ["raw", "raw in the worker", "data"]
    assert [step for step, _ in trace.steps][-6:] == [*into, "parcel", "outbox", "socket"]
    assert {place[0] for _, place in trace.steps if isinstance(place, tuple)} == {"ingress"}
    assert trace.read <= copied, "what came with the header"


@on_uvloop
async def test_large_bytes() -> None:
    trace, copies = await traced(BYTES, LARGE, warm=10)
    assert copies == ["parcel"]
    assert [step for step, _ in trace.steps] == ["given", "parcel", "outbox", "socket"]


@on_uvloop
async def test_a_large_payload_written_in_place() -> None:
    trace, copies = await traced(ALLOCATED, LARGE, warm=10)
    assert copies == []
    assert [step for step, _ in trace.steps] == ["given", "parcel", "outbox", "socket"]
