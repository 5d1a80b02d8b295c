"""How many CPUs this process may use: affinity and the CPU limits of its cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mpmsgr.supervisor import cgroups


def auto_workers() -> int:
    """Workers for ``auto``: one per CPU we may use, at least 1.

    A fraction is rounded down: the I/O process needs its share too.
    """
    return max(1, int(min(_affinity(), cgroup_cpus())))


def _affinity() -> float:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_cpus(root: Path = Path("/")) -> float:
    """The tightest CPU limit of our cgroups and of those above them, in CPUs; inf if there is none.

    *root* is where ``/proc`` and the cgroup mounts are looked up. What cannot be read is no limit.
    Source: Linux Documentation/admin-guide/cgroup-v2.rst (cpu.max), scheduler/sched-bwc.rst (v1).
    """
    limits = [limit for folder in cgroups.folders("cpu", root) for limit in _limits(folder)]
    return min(limits, default=float("inf"))


def _limits(folder: Path) -> Iterator[float]:
    """The limit files of one cgroup: v2's ``cpu.max``, v1's quota and period."""
    yield from _ratio(_words(folder / "cpu.max"))
    quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    yield from _ratio(_words(quota) + _words(period))


def _ratio(words: list[str]) -> Iterator[float]:
    """quota / period; "max" and -1 as quota mean no limit."""
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        yield int(words[0]) / int(words[1])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
