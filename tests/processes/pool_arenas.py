"""What a `Serve` with ``--log-level debug`` says of its shared memory when it stops."""

from __future__ import annotations

from tests.processes.pool_serving import Serve

DEBUG = ("--log-level", "debug")


def slots_in_use(server: Serve) -> dict[str, int]:
    """Slots by arena that the I/O process, or a worker that it lent them to, still looked at."""
    (line,) = server.lines(" io ", "slots of arenas in use at the end: ")
    counts = line.partition("at the end: ")[2].split(", ")
    return {arena: int(n) for arena, n in (count.split(": ") for count in counts)}


def bytes_in_use(server: Serve) -> list[int]:
    """Bytes of their own arenas that workers still saw in use, of all that ended in good order."""
    lines = server.lines(" worker ", "bytes of its arena in use at the end: ")
    assert lines
    return [int(line.rpartition(" ")[2]) for line in lines]
