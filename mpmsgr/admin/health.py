"""Is a server well? A pure function of the facts, in checks an operator can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mpmsgr.supervisor.child import Duty, Phase
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.health import breaker_is_open


class Check(NamedTuple):
    """One thing that must hold: its name, whether it does, and what was found."""

    name: str
    ok: bool
    text: str


def readiness(facts: Facts, now: float) -> list[Check]:
    """What must hold at *now* for peers to be sent here."""
    return [
        _listening(facts),
        _workers(facts),
        Check("not stopping", facts.stop_at is None, _stop_text(facts)),
        Check("lets peers in", not facts.lame_duck, "a lame duck" if facts.lame_duck else "yes"),
        _no_breaker(facts, now),
    ]


#: Nothing completed for so long while something is in work: it is stuck. Seconds.
STUCK_S = 60.0


def progress(perf: Mapping[str, Any] | None) -> list[Check]:
    """Whether the I/O process answers, and its messages get on: *perf* is what it counts, or None.

    Of the section "pool": oldest_s, how long a worker has had the oldest message, and
    completed_ago_s, since when none has been completed. A busy worker is not stuck, a deaf one is.
    """
    checks = [Check("I/O process answers", perf is not None, "yes" if perf is not None else "no")]
    pool = (perf or {}).get("pool", {})
    oldest_s, ago_s = pool.get("oldest_s"), pool.get("completed_ago_s")
    if oldest_s is not None and ago_s is not None:
        text = (
            f"the oldest message is {oldest_s:.1f} s in work, the last was done {ago_s:.1f} s ago"
        )
        checks.append(Check("messages get on", min(oldest_s, ago_s) < STUCK_S, text))
    return checks


def is_ready(facts: Facts, now: float) -> bool:
    """Whether every check of `readiness` holds."""
    return all(check.ok for check in readiness(facts, now))


def state_of(facts: Facts, now: float) -> str:
    """One word: starting, serving, reloading, degraded (it serves, not as it should), stopping."""
    if facts.stop_at is not None:
        return "stopping"
    if not facts.announced:
        return "starting"
    if not is_ready(facts, now):
        return "degraded"
    if facts.reloading:
        return "reloading"
    return "serving" if _linked(facts) >= facts.target else "degraded"


def report(checks: Iterable[Check]) -> str:
    """The checks as Kubernetes writes them, a line each, the verdict last."""
    checks = list(checks)
    lines = [
        f"[{'+' if c.ok else '-'}]{c.name} {'ok' if c.ok else 'failed'}: {c.text}" for c in checks
    ]
    verdict = "passed" if all(check.ok for check in checks) else "failed"
    return "\n".join([*lines, f"healthz check {verdict}", ""])


def _listening(facts: Facts) -> Check:
    io = facts.io
    ok = io.phase is Phase.READY and not facts.listeners_closed
    return Check("listening", ok, f"the I/O process is {io.phase.value}")


def _workers(facts: Facts) -> Check:
    if not facts.target:
        return Check("workers", True, "none wanted: handlers run in the I/O process")
    linked = _linked(facts)
    return Check("workers", linked > 0, f"{linked} of {facts.target} ready")


def _linked(facts: Facts) -> int:
    return sum(facts.is_linked(worker) for worker in facts.of_duty(Duty.SERVING))


def _stop_text(facts: Facts) -> str:
    return "no stop was asked for" if facts.stop_at is None else "it stops"


def _no_breaker(facts: Facts, now: float) -> Check:
    open_ = [w for w in facts.workers if w.counts and breaker_is_open(w, facts.limits, now)]
    worst = ", ".join(f"{w.name} ({w.early_deaths} early deaths: {w.cause})" for w in open_)
    return Check("no open breaker", not open_, worst or "none")
