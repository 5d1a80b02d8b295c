"""Processes that a test started, whoever their parent is by now."""

from __future__ import annotations

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
