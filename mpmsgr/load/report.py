"""What a load run found: counts, violations of the promises, rates and latencies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mpmsgr.load.latency import Histogram
from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.verify import Tally

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass
class LoadReport:
    """The result of one process's run, or of all of them merged."""

    plan: LoadPlan
    tally: Tally = field(default_factory=Tally)
    latency: Histogram = field(default_factory=Histogram)
    reconnects: int = 0
    """Sessions resumed on a new TCP connection."""
    resets: int = 0
    """Times a server did not know our session any more."""
    duration_s: float = 0.0
    """Seconds from the first request to the last reply."""

    @property
    def sent(self) -> int:
        """Requests sent."""
        return self.tally.sent

    @property
    def answered(self) -> int:
        """Requests with a reply, error replies included."""
        return self.tally.answered

    @property
    def lost(self) -> int:
        """Requests without any reply."""
        return self.tally.lost

    @property
    def duplicated(self) -> int:
        """Replies to a request that had been answered."""
        return self.tally.duplicated

    @property
    def reordered(self) -> int:
        """Replies that came after the reply to a later request of the same session."""
        return self.tally.reordered

    @property
    def corrupted(self) -> int:
        """Replies with other bytes than asked for, or to no request at all."""
        return self.tally.corrupted

    @property
    def errors(self) -> dict[int, int]:
        """Error replies: code -> number."""
        return dict(sorted(self.tally.errors.items()))

    @property
    def rate(self) -> float:
        """Replies per second."""
        return self.answered / self.duration_s if self.duration_s else 0.0

    @property
    def violations(self) -> list[str]:
        """Broken promises, one text each; empty if all is well.

        An error reply breaks none, but a run in which every reply is an error shows nothing.
        """
        counts = [(name, getattr(self, name)) for name in _PROMISES]
        found = [f"{count} {name}" for name, count in counts if count]
        if self.answered == sum(self.errors.values()):
            found.append("no request succeeded")
        return found

    def merge(self, other: LoadReport) -> None:
        """Add the report of a process that ran at the same time."""
        self.tally.add(other.tally)
        self.latency.merge(other.latency)
        self.reconnects += other.reconnects
        self.resets += other.resets
        self.duration_s = max(self.duration_s, other.duration_s)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; latencies in seconds."""
        return {
            "plan": self.plan.as_dict(),
            **{name: getattr(self, name) for name in _COUNTS},
            "errors": {str(code): count for code, count in self.errors.items()},
            "duration_s": self.duration_s,
            "rate": self.rate,
            "latency_s": self.latency_s,
            "violations": self.violations,
        }

    @property
    def latency_s(self) -> dict[str, float]:
        """p50, p90, p99, p99.9 and max in seconds."""
        marks = {f"p{percent:g}": self.latency.percentile(percent) for percent in PERCENTILES}
        return {**marks, "max": self.latency.max_s}

    def text(self) -> str:
        """Three lines for people: what was done, what came of it, how fast."""
        return "\n".join([self._asked_text(), self._counts_text(), self._speed_text()])

    def _asked_text(self) -> str:
        plan = self.plan
        return (
            f"{plan.clients} clients x {plan.in_flight} in flight, {plan.size} bytes, "
            f"type 0x{plan.type:04x}, {plan.processes} process{'es' * (plan.processes > 1)}, "
            f"{self.duration_s:.1f} s"
        )

    def _counts_text(self) -> str:
        counts = {name: getattr(self, name) for name in _COUNTS}
        parts = [f"{name} {count}" for name, count in counts.items()]
        if self.errors:
            codes = ", ".join(f"code {code}: {count}" for code, count in self.errors.items())
            parts[1] += f" ({sum(self.errors.values())} with an error: {codes})"
        return ", ".join(parts)

    def _speed_text(self) -> str:
        marks = ", ".join(f"{name} {_short(value)}" for name, value in self.latency_s.items())
        return f"{self.rate:.0f} round trips/s, latency {marks}"

    def to_wire(self) -> dict[str, Any]:
        """The form a load process hands to its parent: raw counts and buckets."""
        tally = self.tally
        return {
            "tally": {name: getattr(tally, name) for name in ("sent", "answered", *_PROMISES)},
            "errors": [*tally.errors.items()],
            "latency": self.latency.as_dict(),
            "reconnects": self.reconnects,
            "resets": self.resets,
            "duration_s": self.duration_s,
        }

    @classmethod
    def from_wire(cls, plan: LoadPlan, form: dict[str, Any]) -> LoadReport:
        """The report `to_wire` was made of."""
        tally = Tally(**form["tally"])
        tally.errors.update(dict(form["errors"]))
        return cls(
            plan=plan,
            tally=tally,
            latency=Histogram.from_dict(form["latency"]),
            reconnects=form["reconnects"],
            resets=form["resets"],
            duration_s=form["duration_s"],
        )


_PROMISES = ("lost", "duplicated", "reordered", "corrupted")
_COUNTS = ("sent", "answered", *_PROMISES, "reconnects", "resets")


def _short(seconds: float) -> str:
    """A duration with its natural unit, two to three digits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e6:.0f} us"
