"""When a worker has done, lived or grown enough to be replaced."""

from __future__ import annotations

from mpmsgr.supervisor.child import Worker
from mpmsgr.supervisor.clock import Clock
from mpmsgr.supervisor.limits import Limits

_MIB = 1 << 20


def worn(worker: Worker, limits: Limits, clock: Clock) -> str:
    """Why *worker* is to be replaced by now; "" if it is not."""
    if worker.recycle:
        return worker.recycle
    share = 1.0 - limits.jitter * worker.luck
    if limits.max_messages and worker.handled >= limits.max_messages * share:
        return f"it handled {worker.handled} messages"
    lifetime_s = limits.max_lifetime_s * share
    if limits.max_lifetime_s and clock.reached(worker.since + lifetime_s):
        return f"it lived {clock.now - worker.since:.0f} s"
    if limits.max_rss_bytes and worker.swollen >= limits.rss_samples:
        return f"it has {worker.rss // _MIB} MiB of resident memory"
    return ""


def rss_limit(worker: Worker, limits: Limits) -> float:
    """Bytes above which *worker* is swollen; inf for no limit.

    A limit that a fresh worker is near to already would have it replaced again and again.
    """
    if not limits.max_rss_bytes:
        return float("inf")
    said = limits.max_rss_bytes * (1.0 - limits.jitter * worker.luck)
    return max(said, worker.rss_at_ready + limits.rss_margin_bytes)


def is_measured(limits: Limits) -> bool:
    """Whether there is a limit on something that has to be measured."""
    return bool(limits.max_messages or limits.max_rss_bytes)
