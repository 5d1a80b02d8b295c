"""Is a server well? A pure function of the facts, in checks an operator can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mpmsgr.supervisor.facts import Child, Facts, Phase


class Check(NamedTuple):
    """One thing that must hold: its name, whether it does, and what was found."""

    name: str
    ok: bool
    text: str


def readiness(facts: Facts) -> list[Check]:
    """What must hold for peers to be sent here."""
    return [_listening(facts), _workers(facts), _not_draining(facts), _no_breaker(facts)]


#: Nothing completed for so long while something is in work: it is stuck. Seconds.
STUCK_S = 60.0


def progress(perf: Mapping[str, Any] | None) -> list[Check]:
    """Whether the I/O process answers, and its messages get on: *perf* is what it counts, or None.

    Of the section "pool": oldest_s, the age of the oldest message in work, and completed_ago_s,
    since when none has been completed. A busy worker is not stuck, a deaf one is.
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


def is_ready(facts: Facts) -> bool:
    """Whether every check of `readiness` holds."""
    return all(check.ok for check in readiness(facts))


def state_of(facts: Facts) -> str:
    """One word: starting, serving, degraded (it serves, but not as it should), stopping."""
    if facts.stop_at is not None:
        return "stopping"
    if not facts.announced:
        return "starting"
    everybody = all(child.phase is Phase.READY for child in facts.children)
    return "serving" if everybody and is_ready(facts) else "degraded"


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
    if not facts.workers:
        return Check("workers", True, "none wanted: handlers run in the I/O process")
    here = facts.io.number
    ready = [w for w in facts.workers if w.phase is Phase.READY and w.linked == here]
    return Check("workers", bool(ready), f"{len(ready)} of {len(facts.workers)} ready")


def _not_draining(facts: Facts) -> Check:
    draining = facts.stop_at is not None
    return Check("not draining", not draining, "stopping" if draining else "no stop asked for")


def _no_breaker(facts: Facts) -> Check:
    looping = [child for child in facts.children if _loops(child, facts)]
    worst = ", ".join(f"{c.name} ({c.early_deaths} early deaths: {c.cause})" for c in looping)
    return Check("no crash loop", not looping, worst or "none")


def _loops(child: Child, facts: Facts) -> bool:
    return child.early_deaths >= facts.limits.crash_limit
