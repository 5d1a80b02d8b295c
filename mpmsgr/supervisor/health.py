"""What a load balancer and an operator want to know of the facts."""

from __future__ import annotations

from collections.abc import Iterator

from mpmsgr.supervisor.child import Child, Duty, Phase
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.limits import Limits


def breaker_is_open(child: Child, limits: Limits, now: float) -> bool:
    """Whether the worker *child* died too often in a row before it did any work.

    It is started again only every `backoff_max_s`. Its first completion closes the breaker, so
    does living for `stable_s`, and a reload.
    """
    if child.early_deaths < limits.breaker_limit:
        return False
    return child.phase is not Phase.READY or now < child.since + limits.stable_s


def unready(facts: Facts, now: float) -> Iterator[str]:
    """Why no new sessions should be sent here at *now*, a sentence each; none if they should."""
    if facts.stop_at is not None:
        yield "it stops"
        return
    if facts.lame_duck:
        yield "it lets nobody in any more (lame duck)"
    if facts.io.phase is not Phase.READY:
        yield "the I/O process is not ready"
    elif facts.target and not any(map(facts.is_linked, facts.of_duty(Duty.SERVING))):
        yield "no worker is ready"
    for worker in facts.workers:
        if worker.counts and breaker_is_open(worker, facts.limits, now):
            yield (
                f"{worker.name} died {worker.early_deaths} times in a row before it did any work,"
                f" last: {worker.cause}"
            )
