"""How long messages take from stage to stage, on their way from the socket to the reply.

    came       read from the socket                   I/O process
      | queue
    left       in a frame for a worker                I/O process
      | ipc
    begun      its turn in its lane, in the worker    worker
      | handler
    completed  the handler is through                 worker
      | reply
    replied    what it sent is in the outboxes        I/O process

Of a few messages only, each of them in all stages: `Timed` carries the first two times with the
message, the worker tells the next two with its completion (TIMES, envelope.py). So what never
completes, or is begun anew, is not counted, and no number of it can be mistaken for another's.
All times are CLOCK_MONOTONIC, which is one for all processes of a machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from time import monotonic_ns
from typing import Any

from mpmsgr.pool.histogram import Histogram
from mpmsgr.pool.items import Timed, timed_of

STAGES = ("queue", "ipc", "handler", "reply")
#: A message is picked at most so often, in seconds: each costs 5 us here and 3 us in its worker.
_APART_S = 0.01
#: Up to so many reads are passed over before a message is picked: the first one after a worker was
#: heard of is the first of its next batch, too, and would wait for less than others.
_PASSED_OVER = 8


class Stages:
    """histograms: by stage; due: is a message to be picked among the next that come?"""

    def __init__(self) -> None:
        self.histograms = {stage: Histogram() for stage in STAGES}
        self.due = True
        self._due_at = 0.0
        self._picked = 0
        self._pass_over = 0
        self._done: list[tuple[int, int, int, int]] = []  # came, left, begun, completed

    def pick(self, items: list[Any]) -> list[Any]:
        """*items* of one session have come now; returns them, perhaps with one that is timed."""
        if self._pass_over or not items:
            self._pass_over = max(self._pass_over - 1, 0)
            return items
        self._picked += 1
        self._pass_over = self._picked % _PASSED_OVER
        self.due = False
        i = self._picked % len(items)
        return [*items[:i], Timed(items[i], monotonic_ns()), *items[i + 1 :]]

    def completed(self, items: Sequence[Any], times: Iterable[Sequence[int]]) -> None:
        """A worker has completed *items*: (index, begun, completed) of those that were timed."""
        for index, begun, completed in times:
            timed = timed_of(items[index])
            if timed is not None:
                self._done.append((timed.came, timed.left, begun, completed))

    def replied(self, now: float) -> None:
        """What the frame of a worker held is in the outboxes, at *now* (seconds, any clock)."""
        if self._done:
            replied = monotonic_ns()
            for times in self._done:
                spans = pairwise((*times, replied))
                for histogram, (since, until) in zip(self.histograms.values(), spans, strict=True):
                    histogram.add((until - since) / 1e9)
            self._done.clear()
        if now >= self._due_at:
            self._due_at = now + _APART_S
            self.due = True

    def as_dict(self) -> dict[str, Any]:
        """The histograms as plain values, by stage."""
        return {stage: histogram.as_dict() for stage, histogram in self.histograms.items()}
