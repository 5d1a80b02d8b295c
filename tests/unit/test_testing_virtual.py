"""serve_virtual: sessions, handlers and time-outs by a clock that the test advances."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from mpmsgr import Message, RequestTimeout, Retry, every, handles
from mpmsgr.dispatch.handlers import FunctionDispatcher
from mpmsgr.sync import SyncConnection
from mpmsgr.testing import VirtualService, clock, serve_virtual
from mpmsgr.testing.cut import Towards

LATER, COUNT, JOIN, TOLD, THREAD = 0x8001, 0x8002, 0x8003, 0x8004, 0x8005
PERIOD_S = 60.0


def plugin() -> FunctionDispatcher:
    """A fresh one."""
    module = ModuleType("plugin")

    @handles(LATER)
    def later(con: Any, m: Message) -> int | Retry:
        return Retry(float(bytes(m.front))) if m.attempt == 1 else m.attempt

    @handles(COUNT)
    def count(con: Any, m: Message, state: dict[str, int]) -> int:
        state["sum"] = state.get("sum", 0) + 1
        return state["sum"]

    @handles(JOIN)
    def join(con: Any, m: Message) -> bool:
        con.group("all").join()
        return True

    @handles(THREAD)
    async def thread(con: Any, m: Message) -> int:
        return await asyncio.to_thread(lambda: 5)

    @every(PERIOD_S)
    def tell(service: Any) -> None:
        service.group("all").send(Message(TOLD))

    for function in (later, count, join, thread, tell):
        setattr(module, function.__name__, function)
    return FunctionDispatcher(module, {})


@pytest.fixture(autouse=True)
def _soon_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_STUCK_S", 0.2)


@pytest.fixture
def service() -> Iterator[VirtualService]:
    with serve_virtual(plugin()) as service:
        yield service


def count(con: SyncConnection) -> int:
    reply = con.request(Message(COUNT))
    return int.from_bytes(reply.front)  # a positive fixint


def test_requests_need_no_time(service: VirtualService) -> None:
    begun = service.now
    one, other = service.connect(), service.connect()
    assert [count(one), count(one), count(other)] == [1, 2, 1]
    assert service.now == begun


def test_a_retry_waits_for_its_time(service: VirtualService) -> None:
    reply = service.connect().submit(Message(LATER, b"3600"))
    service.advance(3599.0)
    assert not reply.done()
    service.advance(1.0)
    assert bytes(reply.result().front) == b"\x02"


def test_a_request_times_out(service: VirtualService) -> None:
    reply = service.connect().submit(Message(LATER, b"3600"), timeout=30)
    service.advance(29.0)
    assert not reply.done()
    service.advance(1.0)
    with pytest.raises(RequestTimeout, match="30 s"):
        reply.result()


def test_every_is_called_at_its_times(service: VirtualService) -> None:
    con = service.connect()
    con.request(Message(JOIN))
    told = con.messages(TOLD)
    service.advance(3 * PERIOD_S)
    assert [next(told).type for _ in range(3)] == [TOLD] * 3
    with pytest.raises(AssertionError, match="time stands still"):
        next(told)


def test_a_call_that_only_time_ends_says_so(service: VirtualService) -> None:
    with pytest.raises(AssertionError, match=r"time stands still: submit\(\) the request"):
        service.connect().request(Message(LATER, b"5"))


def test_a_handler_may_use_a_thread(service: VirtualService) -> None:
    assert bytes(service.connect().request(Message(THREAD)).front) == b"\x05"


def test_keepalives_keep_an_idle_connection(service: VirtualService) -> None:
    con = service.connect()
    service.advance(7200.0)
    assert count(con) == 1
    assert service.messenger.statistics()["accepted"] == 1


@pytest.mark.parametrize("towards", ["service", "client"])
@pytest.mark.parametrize("byte", [0, 1, 9, 53, 80, 200])
def test_a_cut_session_goes_on(service: VirtualService, byte: int, towards: Towards) -> None:
    con = service.connect()
    total = count(con)
    with service.cut(con, byte=byte, towards=towards) as cut:
        while not cut.happened:
            reply = con.submit(Message(COUNT))
            service.advance(1.0)  # the client waits before it connects again
            total += 1
            assert reply.result().front == total.to_bytes()
        service.advance(1.0)
    assert count(con) == total + 1
    assert service.messenger.statistics()["accepted"] == 2


def test_a_cut_that_does_not_happen_fails(service: VirtualService) -> None:
    con = service.connect()
    cut = service.cut(con, byte=10**6, timeout=0.05)
    count(con)
    with pytest.raises(
        AssertionError, match=r"^cut\(byte=1000000, .*: not within 0.05 s, \d+ byte"
    ):
        cut.wait()
