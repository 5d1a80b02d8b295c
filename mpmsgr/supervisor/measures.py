"""Measuring workers from outside."""

from __future__ import annotations

from collections.abc import Callable

import psutil

#: Messages that the present worker of a slot has handled.
Handled = Callable[[int], int]


def own_rss(pid: int) -> int:
    """Resident bytes of process *pid* without those of files and shared memory; 0 if it is gone.

    Arenas are shared by all workers: they are nobody's growth, and nobody's end frees them.
    """
    try:
        info = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return max(0, int(info.rss) - int(getattr(info, "shared", 0)))
