"""The virtual clock: time passes only when told to, and everything due happens at its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

import pytest

from mpmsgr.loop import LoopThread
from mpmsgr.testing.clock import VirtualLoop

DAY_S = 86400.0


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


def test_nothing_passes_by_itself(loop: VirtualLoop) -> None:
    begun = loop.time()
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.time() == begun


def test_what_is_due_happens_at_its_time_and_in_order(loop: VirtualLoop) -> None:
    begun, seen = loop.time(), []

    async def main() -> None:
        for after in (3.0, 1.0, 2.0, 2.5):
            loop.call_later(after, lambda: seen.append(loop.time() - begun))
        await loop.clock.advance(2.0)
        assert seen == [1.0, 2.0]
        assert loop.time() == begun + 2.0
        await loop.clock.advance(10 * DAY_S)

    loop.run_until_complete(main())
    assert seen == [1.0, 2.0, 2.5, 3.0]
    assert loop.time() == begun + 2.0 + 10 * DAY_S


def test_what_follows_from_what_is_due_is_done_too(loop: VirtualLoop) -> None:
    steps: list[str] = []

    async def works() -> None:
        await asyncio.sleep(1.0)
        for step in ("one", "two", "three"):
            await asyncio.sleep(0)
            steps.append(step)
        await asyncio.sleep(0.5)
        steps.append("four")

    async def main() -> None:
        task = loop.create_task(works())
        await loop.clock.advance(1.0)
        assert steps == ["one", "two", "three"]
        await loop.clock.advance(0.5)
        assert steps.pop() == "four"
        await task

    loop.run_until_complete(main())


def test_a_hundred_days_in_steps(loop: VirtualLoop) -> None:
    async def main() -> int:
        days = 0
        task = loop.create_task(asyncio.sleep(100 * DAY_S))
        while not task.done():
            await loop.clock.advance(DAY_S)
            days += 1
        return days

    assert loop.run_until_complete(main()) == 100


@pytest.mark.parametrize("seconds", [-1.0, -0.001])
def test_time_does_not_go_back(loop: VirtualLoop, seconds: float) -> None:
    with pytest.raises(ValueError, match="does not go back"):
        loop.run_until_complete(loop.clock.advance(seconds))


def test_two_cannot_advance_it(loop: VirtualLoop) -> None:
    async def main() -> None:
        first = loop.create_task(loop.clock.advance(1.0))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already"):
            await loop.clock.advance(1.0)
        await first

    loop.run_until_complete(main())


def test_flying_it_needs_nobody(loop: VirtualLoop) -> None:
    begun = loop.time()
    loop.clock.fly()
    loop.run_until_complete(asyncio.sleep(5.0))
    assert loop.time() == begun + 5.0


def test_other_threads_wake_it_while_time_stands_still() -> None:
    async def double(n: int) -> int:
        return 2 * n

    with LoopThread("virtual", VirtualLoop()) as thread:
        assert [thread.call(double(n)) for n in range(3)] == [0, 2, 4]


def refused(loop: VirtualLoop) -> Coroutine[object, object, object]:
    factory: Callable[[], asyncio.Protocol] = asyncio.Protocol
    return loop.create_connection(factory, "192.0.2.9", 1)


def test_where_nobody_listens_a_connection_is_refused(loop: VirtualLoop) -> None:
    with pytest.raises(ConnectionRefusedError, match="nobody listens"):
        loop.run_until_complete(refused(loop))
