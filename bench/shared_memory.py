"""CPU time of what the pool does in shared memory, per operation: leases, arena, ring, page."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import click

from bench import measure
from mpmsgr.pool import page, ring
from mpmsgr.pool.arena import Arena
from mpmsgr.pool.mapping import Mapping

KIB, MIB = 1 << 10, 1 << 20
ARENA = 256 * MIB
OPERATIONS = 20_000


@click.command(help=__doc__)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Measure and print."""
    print(measure.machine())
    print(measure.command("bench.shared_memory"))
    print(f"microseconds of CPU, min / median / max of {rounds} rounds\n")
    fd = os.memfd_create("bench")
    os.ftruncate(fd, 4 * MIB)
    mapping = Mapping(fd, 4 * MIB, writable=True)
    os.close(fd)
    for name, run in _operations(mapping):
        print(f"{name:52}{measure.Spread.of(_us(run) for _ in range(rounds)).text()}")


def _us(run: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(OPERATIONS):
        run()
    return (time.process_time() - began) / OPERATIONS * 1e6


def _operations(mapping: Mapping) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "lease, begin to end", lambda: mapping.lease(0, 64 * KIB, _ended)
    for low, high in ((64, 64), (64, 256), (64, 4 * KIB), (64, 64 * KIB)):
        for filled in (0.25, 0.6):
            name = f"arena, {low} to {high} KiB, {filled:.0%} full: free + allocate"
            yield name, _in_arena(low * KIB, high * KIB, filled)
    for size in (4, 16, 64):
        yield f"ring, {size} KiB: put + take + done", _through_ring(mapping.raw(0, MIB), size * KIB)
    counters = page.Page(mapping.raw(MIB, page.SIZE))
    yield (
        "page, asynchronous item: begin + end",
        lambda: counters.end_async(counters.begin_async(1)),
    )
    yield "page, items begun", counters.started


def _ended(offset: int) -> None:
    pass


def _in_arena(low: int, high: int, filled: float) -> Callable[[], None]:
    """One of its slots, any, is freed and another allocated; slots of one page where none fits."""
    arena, chance = Arena(ARENA), random.Random(1)
    sizes = [int(low * (high / low) ** chance.random()) for _ in range(4096)]
    turn = iter(range(1 << 62))
    live: list[int] = []
    while arena.used < filled * ARENA:
        offset = arena.allocate(sizes[next(turn) % len(sizes)])
        if offset is None:
            break
        live.append(offset)
    picks = [chance.randrange(len(live)) for _ in range(4096)]

    def replace_one() -> None:
        number = next(turn) % 4096
        pick = picks[number]
        arena.free(live[pick])
        offset = arena.allocate(sizes[number])
        if offset is None:
            offset = arena.allocate(1)
        assert offset is not None
        live[pick] = offset

    return replace_one


def _through_ring(memory: memoryview, length: int) -> Callable[[], None]:
    ring.reset(memory)
    writer, reader = ring.RingWriter(memory), ring.RingReader(memory)
    data = bytes(length)

    def pass_one() -> None:
        position = writer.put(data)
        assert position is not None
        reader.take(position, length)
        reader.done(position, length)

    return pass_one


if __name__ == "__main__":
    main()
