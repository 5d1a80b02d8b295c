"""Looks at a server and what lies between two of them: rates, shares, percentiles."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpmsgr.admin.client import AdminClient
from mpmsgr.errors import AdminError

Row = dict[str, Any]

#: Of the sessions with the most traffic since they began; the busiest now are found among these.
_CANDIDATES = 100


@dataclass(frozen=True)
class Sample:
    """What a server said at *at* (monotonic seconds).

    perf, sessions: of the I/O process, empty if it did not answer; loads, throttles: empty where
    the server keeps none.
    """

    at: float
    status: Row
    workers: list[Row]
    perf: Row
    loads: list[Row]
    throttles: list[Row]
    busy: list[Row]
    worst: list[Row]


def take(client: AdminClient, count: int) -> Sample:
    """A look at the server of *client*, with the *count* worst sessions. Raises AdminError."""
    return Sample(
        time.monotonic(),
        client.call("status"),
        client.call("workers"),
        _asked(client, "perf") or {},
        _asked(client, "load") or [],
        _asked(client, "throttles") or [],
        _asked(client, "sessions", sort="traffic", limit=_CANDIDATES) or [],
        _asked(client, "sessions", sort="outbox", limit=count) or [],
    )


def _asked(client: AdminClient, verb: str, **args: Any) -> Any:
    """The answer, None where there is none: not kept, or the I/O process is away."""
    try:
        return client.ask(verb, **args)
    except AdminError as exc:
        if exc.kind in ("failed", "unknown"):
            return None
        raise


@dataclass(frozen=True)
class Span:
    """From sample *before* to sample *now*; rates are per second.

    before: None at the first look; then there are no rates and no percentiles.
    """

    before: Sample | None
    now: Sample

    def keeps(self, section: str, name: str) -> bool:
        """Is there such a counter of `perf`?"""
        return name in self.now.perf.get(section, {})

    def rate(self, section: str, name: str) -> float | None:
        """Of a counter of `perf`; None where it is not kept, was started anew, or is just seen."""
        old = self.before.perf.get(section, {}).get(name) if self.before else None
        new = self.now.perf.get(section, {}).get(name)
        return self._per_second(old, new)

    def _per_second(self, old: Any, new: Any) -> float | None:
        known = isinstance(old, int | float) and isinstance(new, int | float)
        if self.before is None or not known or new < old:
            return None
        rate: float = (new - old) / max(self.now.at - self.before.at, 1e-9)
        return rate

    def processes(self) -> list[Row]:
        """The I/O process and the workers: their rows, with cpu (1 is a CPU) and handled_rate."""
        old = _by_pid(self.before) if self.before else {}
        old_loads = _by_worker(self.before.loads) if self.before else {}
        loads = _by_worker(self.now.loads)
        rows = []
        for pid, row in _by_pid(self.now).items():
            key = (row.get("slot"), row.get("generation"))
            was, load = old_loads.get(key, {}), loads.get(key, {})
            cpu = self._per_second(old.get(pid, {}).get("cpu_s"), row["cpu_s"])
            handled = self._per_second(was.get("handled"), load.get("handled"))
            rows.append({**row, **load, "cpu": cpu, "handled_rate": handled})
        return rows

    def busiest(self, count: int) -> list[Row]:
        """The sessions with the most messages now: their rows, with in_rate and out_rate.

        At the first look those with the most since they began, and both are None.
        """
        if self.before is None:
            return [{**row, "in_rate": None, "out_rate": None} for row in self.now.busy[:count]]
        old = {row["id"]: row for row in self.before.busy}
        rows = []
        for row in self.now.busy:
            was = old.get(row["id"], {})
            rates = {
                rate: self._per_second(was.get(seq), row[seq]) or 0.0
                for rate, seq in (("in_rate", "in_seq"), ("out_rate", "out_seq"))
            }
            rows.append({**row, **rates})
        rows.sort(key=lambda row: row["in_rate"] + row["out_rate"], reverse=True)
        return rows[:count]

    def stages(self) -> list[Row]:
        """Latency by stage of what was done meanwhile: rate, and percentiles in seconds."""
        rows = []
        old = self.before.perf.get("pool", {}).get("stage_s", {}) if self.before else {}
        for stage, histogram in self.now.perf.get("pool", {}).get("stage_s", {}).items():
            counts = between(old.get(stage), histogram) if self.before else []
            row = {"stage": stage, "rate": self._per_second(0, sum(counts))}
            for percent in (50, 99):
                row[f"p{percent}_s"] = quantile(histogram["le"], counts, percent / 100)
            rows.append(row)
        return rows


def _by_pid(sample: Sample) -> dict[int | None, Row]:
    io = {**sample.status["io"], "process": "I/O"}
    workers = [{**row, "process": f"worker {row['slot']}"} for row in sample.workers]
    return {
        row["pid"] if row["pid"] is not None else -i: row for i, row in enumerate([io, *workers])
    }


def _by_worker(loads: list[Row]) -> dict[tuple[int | None, int | None], Row]:
    return {(load["slot"], load["generation"]): load for load in loads}


def between(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[int]:
    """Counts per bucket from *old* to *new*; all of *new* where it was started anew."""
    counts: list[int] = new["counts"]
    if old is None or old["le"] != new["le"]:
        return counts
    differences = [b - a for a, b in zip(old["counts"], counts, strict=True)]
    return differences if min(differences, default=0) >= 0 else counts


def quantile(bounds: list[float], counts: list[int], share: float) -> float | None:
    """The upper bound of the bucket *share* of all lie below; None: nothing there, or above all."""
    wanted, seen = share * sum(counts), 0.0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if seen >= wanted and seen:
            return bound
    return None
