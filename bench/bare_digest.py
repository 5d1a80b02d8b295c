"""What workers.digest does, without a messenger: `python -m bench.bare_digest SIZE ROUNDS SECONDS`.

Says ``ready``, waits for a line on stdin, works, and prints digests per second.
"""

from __future__ import annotations

import sys
import time

from mpmsgr.load.payload import noise
from workers.digest import Digest, digest


def main() -> None:
    """Work for a while and print the rate."""
    size, rounds, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    block, level = noise(size), Digest().level
    print("ready", flush=True)
    sys.stdin.readline()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        digest(block[done % 64 : done % 64 + size], rounds, level)
        done += 1
    print(done / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
