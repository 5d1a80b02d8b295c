"""What a supervisor knows in common situations, for tests of its rules."""

from __future__ import annotations

from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.limits import Limits

LIMITS = Limits()


def serving(workers: int = 2) -> Facts:
    """All ready since 0 and announced."""
    facts = Facts.of(workers, LIMITS)
    facts.started(None, 0.0)
    facts.ready(None)
    for slot in range(workers):
        boot(facts, slot, 0.0)
    facts.announced = True
    return facts


def boot(facts: Facts, slot: int, now: float) -> None:
    """The worker of *slot* is started and READY."""
    facts.started(slot, now)
    facts.ready(slot, facts.io.number)


def replacing(facts: Facts, old: int, new: int, now: float) -> Facts:
    """*facts* with a worker in slot *new* that boots to replace *old*."""
    facts.hired(new, old)
    facts.started(new, now)
    return facts
