"""Shared memory of the pool: made and filled here once, handed down by descriptor.

A memfd has no name and goes with the last process that holds it, however that one ends; and it is
not bound by the 64 MB that containers give /dev/shm.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpmsgr.errors import ConfigError
from mpmsgr.supervisor import cgroups


def create(name: str, size: int) -> int:
    """A memfd of *size* bytes, all of them allocated and zero; its size can no longer change.

    *name* is seen in /proc only. Call `check_limit` first. Raises OSError as memfd_create(2) and
    posix_fallocate(3) do.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_only(fd: int) -> int:
    """Another descriptor of the memfd *fd*, which nobody can map writable.

    It keeps a worker's mistakes out of memory of others; a worker that wants to write there can
    open /proc/self/fd itself.
    """
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


@dataclass(frozen=True)
class Room:
    """*limit* bytes, set by *source*, of which *used* are in use."""

    source: str
    limit: int
    used: int

    @property
    def left(self) -> int:
        """In bytes."""
        return max(0, self.limit - self.used)


def check_limit(total: int, field: str = "shared memory", root: Path = Path("/")) -> None:
    """Raise ConfigError (*field*, *total* bytes) when *total* bytes do not fit into our memory.

    Neither this machine's nor that of any of our cgroups. To allocate more would not be an error
    but a SIGKILL. *root* is where /proc and the cgroup mounts are looked up.
    """
    tightest = min(_rooms(root), key=lambda room: room.left, default=None)
    if tightest and total > tightest.left:
        raise ConfigError(
            field,
            total,
            f"only {tightest.left} bytes are left of {tightest.limit}"
            f" ({tightest.used} in use; {tightest.source})",
        )


def _rooms(root: Path) -> Iterator[Room]:
    yield from _machine(root)
    for folder in cgroups.folders("memory", root):
        yield from _cgroup(folder, "memory.max", "memory.current", "inactive_file")
        yield from _cgroup(
            folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        )


def _machine(root: Path) -> Iterator[Room]:
    """Source: proc(5), meminfo: kB, MemAvailable is what can be had without swapping."""
    file = root / "proc/meminfo"
    fields = _table(file)
    if {"MemTotal:", "MemAvailable:"} <= fields.keys():
        total, available = fields["MemTotal:"] * 1024, fields["MemAvailable:"] * 1024
        yield Room(f"MemTotal and MemAvailable of {file}", total, total - available)


def _cgroup(folder: Path, limit: str, usage: str, cache: str) -> Iterator[Room]:
    """The room in one cgroup, unless *limit* says "max" (v2) or is not there.

    Usage counts file pages too. Those that were not looked at for a while give way to ours and are
    not counted here (a container that has read many files is not full).
    Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
    """
    file = folder / limit
    most, used = _number(file), _number(folder / usage)
    if most is not None and used is not None:
        cached = _table(folder / "memory.stat").get(cache, 0)
        yield Room(str(file), most, max(0, used - cached))


def _number(file: Path) -> int | None:
    words = _text(file).split()
    return int(words[0]) if words and words[0].isdigit() else None


def _table(file: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = (line.split() for line in _text(file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
