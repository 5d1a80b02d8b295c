"""Times and numbers of the supervisor's decision."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mpmsgr.config import Settings


@dataclass(frozen=True)
class Limits:
    """Durations in seconds.

    boot_timeout_s: from start to READY. crash_limit: early deaths in a row of the I/O process that
    end the supervisor, first_crash_limit: of anybody before it was ever ready, and of the workers
    of a reload before it is given up; breaker_limit: of a worker before its breaker opens.
    backoff_s: after the second early death in a row, doubled up to backoff_max_s. stable_s: a
    process that lived this long did not die early, even idle. quick_s: what a quick stop leaves
    everybody. eof_s: from a closed control channel to SIGKILL. close_s: what the I/O process gets
    in a stop to close the listening sockets before we do. stop_reserve_s: the end of the graceful
    timeout, kept for the workers' on_stop. dump_s: the time between two processes' stack dumps,
    so that one is written before the next begins, and dump_all_s: at most for all of them.
    """

    graceful_timeout_s: float = 30.0
    boot_timeout_s: float = 30.0
    crash_limit: int = 8
    first_crash_limit: int = 3
    breaker_limit: int = 5
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0
    stable_s: float = 60.0
    quick_s: float = 1.0
    eof_s: float = 5.0
    close_s: float = 0.5
    stop_reserve_s: float = 1.0
    dump_s: float = 0.05
    dump_all_s: float = 1.0

    def of(self, settings: Settings) -> Limits:
        """These, with what *settings* say."""
        return dataclasses.replace(self, graceful_timeout_s=settings.graceful_timeout_s)
