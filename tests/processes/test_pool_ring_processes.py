"""The ring between two processes that run at their own pace: every batch arrives as it was."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import partial

from mpmsgr.pool.mapping import Mapping
from mpmsgr.pool.ring import RingWriter, reset
from mpmsgr.supervisor import memory
from tests.support import eventually

SIZE = 64 * 1024
BATCHES = 1000

READER = """
import sys
from mpmsgr.pool.mapping import Mapping
from mpmsgr.pool.ring import RingReader

fd, size = int(sys.argv[1]), int(sys.argv[2])
reader = RingReader(Mapping(fd, size, writable=True).raw(0, size))
for number, line in enumerate(sys.stdin):
    position, length = map(int, line.split())
    batch = bytes(reader.take(position, length))
    if batch != bytes([number % 251]) * length:
        sys.exit(f"batch {number} at {position} is {set(batch)}")
    reader.done(position, length)
print(number + 1)
"""


def test_every_batch_arrives_as_it_was() -> None:
    fd = memory.create("mpmsgr-test-ring", SIZE)
    mapping = Mapping(fd, SIZE, writable=True)
    shared = mapping.raw(0, SIZE)
    reset(shared)
    writer = RingWriter(shared)
    command = [sys.executable, "-c", READER, str(fd), str(SIZE)]
    with subprocess.Popen(
        command, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        sizes = random.Random(4)
        for number in range(BATCHES):
            data = bytes([number % 251]) * sizes.choice((10, 500, 3000, 20_000))
            # Position 0 is a place too.
            [position] = eventually(partial(_place, writer, data), timeout=30)
            reader.stdin.write(f"{position} {len(data)}\n")
            reader.stdin.flush()
        reader.stdin.close()
        assert reader.stdout.read() == f"{BATCHES}\n"
    assert (reader.returncode, writer.used) == (0, 0)
    os.close(fd)


def _place(writer: RingWriter, data: bytes) -> list[int]:
    position = writer.put(data)
    return [] if position is None else [position]
