"""What of newly read settings a running server can take over."""

from __future__ import annotations

import dataclasses

from mpmsgr.config.settings import OPTIONS, Settings


def take_over(running: Settings, read: Settings) -> tuple[Settings, list[str]]:
    """*running* with what a reload brings of *read*, and the names of what only a restart changes.

    Workers are renewed, the I/O process is not: it holds the sessions. So it is with 0 workers that
    nothing about modules can change.
    """
    changed = [o for o in OPTIONS if getattr(running, o.name) != getattr(read, o.name)]
    workers = bool(running.workers and read.workers)
    taken = {o.name for o in changed if o.live or (o.of_workers and workers)}
    merged = dataclasses.replace(running, **{name: getattr(read, name) for name in taken})
    return merged, [o.name for o in changed if o.name not in taken]
