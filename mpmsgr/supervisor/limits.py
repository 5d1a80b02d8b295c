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
    timeout, kept for the workers' on_stop. look_s: the longest and look_min_s the shortest time
    between two looks at what workers with deadlines run.

    max_messages, max_lifetime_s, max_rss_bytes: of a worker until it is replaced, 0 for no limit;
    jitter: by which share of it a worker's own limit may be lower. sample_s: how often workers are
    measured, where there is something to measure; rss_samples: so many in a row must be above the
    limit, which is at least what was measured at READY and rss_margin_bytes.
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
    look_s: float = 1.0
    look_min_s: float = 0.05
    max_messages: int = 0
    max_lifetime_s: float = 0.0
    max_rss_bytes: int = 0
    jitter: float = 0.1
    sample_s: float = 2.0
    rss_samples: int = 3
    rss_margin_bytes: int = 32 << 20

    def of(self, settings: Settings) -> Limits:
        """These, with what *settings* say."""
        return dataclasses.replace(
            self,
            graceful_timeout_s=settings.graceful_timeout_s,
            max_messages=settings.max_messages,
            max_lifetime_s=settings.max_lifetime_s,
            max_rss_bytes=settings.max_rss_bytes,
        )
