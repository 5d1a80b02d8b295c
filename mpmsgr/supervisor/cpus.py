"""How many CPUs this process may use: affinity and the CPU limits of its cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


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
    limits = [limit for folder in _cgroup_folders(root) for limit in _limits(folder)]
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


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Our cgroup and its ancestors, in every hierarchy that may limit CPU time."""
    paths = dict(_own_cgroups(root))
    for controllers, mounted, point in _mounts(root):
        own = paths.get(controllers)
        if own is None:
            continue
        # In a container without a cgroup namespace both are host paths: the mount shows a subtree.
        inside = own.relative_to(mounted) if own.is_relative_to(mounted) else PurePosixPath()
        top = root / point.lstrip("/")
        folder = top / inside
        yield folder
        while folder != top:
            folder = folder.parent
            yield folder


def _own_cgroups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """("" for v2, "cpu" for v1; path) of /proc/self/cgroup: ``ID:controllers:path`` lines."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield "", PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            yield "cpu", PurePosixPath(path)


def _mounts(root: Path) -> Iterator[tuple[str, PurePosixPath, str]]:
    """(hierarchy, root within it, mount point) of the cgroup mounts in /proc/self/mountinfo."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        mounted, point = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2":
            yield "", PurePosixPath(mounted), point
        elif kind == "cgroup" and "cpu" in options.split(","):
            yield "cpu", PurePosixPath(mounted), point


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
