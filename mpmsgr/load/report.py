"""What a load run found: counts, violations of the promises, rates and latencies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mpmsgr.dispatch.codes import ErrorCode
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
    """Of ordinary replies; error replies may come from anywhere."""
    reconnects: int = 0
    """Sessions resumed on a new TCP connection."""
    resets: int = 0
    """Times a server did not know our session any more."""
    ended: int = 0
    """Sessions that were closed for good before they had done their part."""
    cause: str = ""
    """Why a session was not connected at the end, if one was not."""
    duration_s: float = 0.0
    """Seconds from the first request to the last reply."""
    cpu_s: float = 0.0
    """Seconds of CPU the load processes took, all together."""

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
        if self.ended:
            found.append(f"{_plural(self.ended, 'session')} ended too soon")
        if self.answered == sum(self.errors.values()):
            found.append(f"no request succeeded: does a handler echo type {self.plan.type:#x}?")
        if found and self.cause:
            found[-1] += f" ({self.cause})"
        return found

    def merge(self, other: LoadReport) -> None:
        """Add the report of a process that ran at the same time."""
        self.tally.add(other.tally)
        self.latency.merge(other.latency)
        self.reconnects += other.reconnects
        self.resets += other.resets
        self.ended += other.ended
        self.cause = self.cause or other.cause
        self.duration_s = max(self.duration_s, other.duration_s)
        self.cpu_s += other.cpu_s

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; latencies in seconds."""
        return {
            "plan": self.plan.as_dict(),
            **{name: getattr(self, name) for name in (*_ALWAYS, *_RARELY)},
            "errors": {str(code): count for code, count in self.errors.items()},
            "duration_s": self.duration_s,
            "rate": self.rate,
            "latency_s": self.latency_s,
            "cpu_s": self.cpu_s,
            "cause": self.cause,
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
        processes = f"{plan.processes} processes, " if plan.processes > 1 else ""
        return (
            f"{_plural(plan.clients, 'client')} x {plan.in_flight} in flight, "
            f"{_plural(plan.size, 'byte')}, type {plan.type:#06x}, {processes}"
            f"{self.duration_s:.1f} s"
        )

    def _counts_text(self) -> str:
        sent, answered, *kept = (f"{name} {getattr(self, name)}" for name in _ALWAYS)
        found = [f"{name} {getattr(self, name)}" for name in _RARELY if getattr(self, name)]
        return ", ".join([sent, answered + self._errors_text(), *kept, *found])

    def _errors_text(self) -> str:
        if not self.errors:
            return ""
        codes = ", ".join(f"{_code_name(code)}: {count}" for code, count in self.errors.items())
        return f" ({sum(self.errors.values())} with an error: {codes})"

    def _speed_text(self) -> str:
        parts = [f"{self.rate:.0f} round trips/s"]
        if self.latency.count:
            marks = ", ".join(f"{name} {_short(value)}" for name, value in self.latency_s.items())
            parts.append(f"latency {marks}")
        if self.answered and self.cpu_s:
            parts.append(f"own CPU {self.cpu_s / self.answered * 1e6:.1f} us each")
        return ", ".join(parts)

    def to_wire(self) -> dict[str, Any]:
        """The form a load process hands to its parent: raw counts and buckets."""
        tally = self.tally
        return {
            "tally": {name: getattr(tally, name) for name in ("sent", "answered", *_PROMISES)},
            "errors": [*tally.errors.items()],
            "latency": self.latency.as_dict(),
            **{name: getattr(self, name) for name in _TRAVELS},
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
            **{name: form[name] for name in _TRAVELS},
        )


_PROMISES = ("lost", "duplicated", "reordered", "corrupted")
_ALWAYS = ("sent", "answered", *_PROMISES)
_RARELY = ("reconnects", "resets", "ended")
_TRAVELS = (*_RARELY, "cause", "duration_s", "cpu_s")


def _code_name(code: int) -> str:
    """``worker lost``; applications have codes of their own."""
    try:
        return ErrorCode(code).name.lower().replace("_", " ")
    except ValueError:
        return f"code {code}"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _short(seconds: float) -> str:
    """A duration with its natural unit, two to three digits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e6:.0f} us"
