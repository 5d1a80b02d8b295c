"""The supervisor's decision: a pure function of the facts and the time.

The loop carries out what `decide` returns, records it in the facts and asks again until nothing is
left to do but to wait. A rule therefore only looks at what is, never at how it came to be.
"""

from __future__ import annotations

from collections.abc import Iterator

from mpmsgr.supervisor.actions import (
    Action,
    GiveUp,
    WakeAt,
)
from mpmsgr.supervisor.child import Child
from mpmsgr.supervisor.clock import Clock
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.roster import roster
from mpmsgr.supervisor.serving import serve
from mpmsgr.supervisor.stopping import ended, stop


def decide(facts: Facts, now: float) -> list[Action]:
    """What to do at *now*, in order; a last WakeAt says when to decide again without an event."""
    clock = Clock(now)
    actions = list(_final(facts))
    if not actions and facts.stop_at is not None:
        actions = stop(facts, clock)
    elif not actions:
        # What a slot is there for comes first: starting and stopping follow from it.
        actions = roster(facts, clock) or serve(facts, clock)
    if clock.next < float("inf"):
        actions.append(WakeAt(clock.next))
    return actions


def _final(facts: Facts) -> Iterator[Action]:
    if facts.stop_at is not None:
        yield from ended(facts)
    else:
        yield from _give_up(facts)


def _give_up(facts: Facts) -> Iterator[Action]:
    if facts.failure is not None:
        slot, text = facts.failure
        loads_plugins = slot is not None or not facts.target
        yield GiveUp(ExitCode.PLUGIN if loads_plugins else ExitCode.FAILED, text)
    elif looping := _crash_loop(facts):
        worst = max(looping, key=lambda child: child.early_deaths)
        yield GiveUp(
            ExitCode.CRASH_LOOP,
            f"{worst.name} died {worst.early_deaths} times in a row before it did any work,"
            f" last: {worst.cause}",
        )


def _crash_loop(facts: Facts) -> list[Child]:
    """Who is in a crash loop that ends the supervisor: anybody, before all were ever ready.

    Later only the I/O process, with which every session is gone anyway. Sessions outlive workers
    that loop: their messages wait for a reload that mends it.
    """
    if facts.announced:
        return [facts.io] if facts.io.early_deaths >= facts.limits.crash_limit else []
    limit = facts.limits.first_crash_limit
    return [child for child in facts.children if child.early_deaths >= limit]
