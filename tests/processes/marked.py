"""Processes that a test started, whoever their parent is by now."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def marked(name: str, value: str, *, but: int) -> list[psutil.Process]:
    """Those with the environment variable *name* = *value*, but pid *but*; zombies are none."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != but and process.environ().get(name) == value:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def with_argument(word: str, processes: Iterable[psutil.Process]) -> list[int]:
    """Pids of those of *processes* that have *word* among their arguments, in order."""
    found = []
    for process in processes:
        try:
            if word in process.cmdline():
                found.append(process.pid)
        except psutil.Error:  # it ended meanwhile
            continue
    return sorted(found)
