"""Every reply once, in order, intact: the book one session's requests and replies are kept in.

Pure: time comes as an argument, tids are those of the requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of one session, or of many added together."""

    sent: int = 0
    answered: int = 0
    """Requests with a reply, error replies included."""
    lost: int = 0
    """Requests that got no reply at all."""
    duplicated: int = 0
    """Replies to a request that had been answered."""
    reordered: int = 0
    """Replies that came after the reply to a later request."""
    corrupted: int = 0
    """Replies with other bytes than asked for, or to no request of ours."""
    errors: Counter[int] = field(default_factory=Counter)
    """Error replies by code."""

    def add(self, other: Tally) -> None:
        """Add the counts of *other*."""
        self.sent += other.sent
        self.answered += other.answered
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.reordered += other.reordered
        self.corrupted += other.corrupted
        self.errors.update(other.errors)


class SessionCheck:
    """What one session asked for and what came back.

    Tids rise with every request. `tally` is current at any time; `lost` is known after `close`.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._pending: dict[int, float] = {}  # tid -> asked at
        self._last_asked = 0
        self._last_answered = 0

    @property
    def outstanding(self) -> int:
        """Requests without a reply."""
        return len(self._pending)

    def asked(self, tids: range, now: float) -> None:
        """Requests *tids* (at least one) leave at *now* (seconds)."""
        self._pending.update(dict.fromkeys(tids, now))
        self._last_asked = tids[-1]
        self.tally.sent += len(tids)

    def replied(self, tid: int, intact: bool, now: float) -> float | None:
        """Take a reply; returns its latency in seconds, None if nothing waited for it."""
        asked_at = self._pending.pop(tid, None)
        if asked_at is None:
            self._count_stray(tid)
            return None
        self.tally.answered += 1
        if tid < self._last_answered:
            self.tally.reordered += 1
        else:
            self._last_answered = tid
        if not intact:
            self.tally.corrupted += 1
        return now - asked_at

    def failed(self, tid: int, code: int, now: float) -> float | None:
        """Take an error reply; returns its latency in seconds, None if nothing waited for it."""
        latency = self.replied(tid, True, now)
        if latency is not None:
            self.tally.errors[code] += 1
        return latency

    def close(self, kept: Iterable[int] = ()) -> int:
        """What is outstanding, but for *kept* tids, is lost. Returns how many."""
        pending, self._pending = self._pending, {}
        for tid in kept:
            if tid in pending:
                self._pending[tid] = pending.pop(tid)
        self.tally.lost += len(pending)
        return len(pending)

    def _count_stray(self, tid: int) -> None:
        if 0 < tid <= self._last_asked:
            self.tally.duplicated += 1
        else:
            self.tally.corrupted += 1
