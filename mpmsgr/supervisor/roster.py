"""Which slots are to have a worker: so many as wanted, and new ones in place of old ones.

A worker is replaced by one in another slot, which is READY before the old one goes: there is no
moment with fewer workers. One at a time, so that a single spare slot is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice

from mpmsgr.supervisor.actions import AbandonReload, Action, CommitReload, Dismiss, Hire
from mpmsgr.supervisor.child import Duty, Phase, Worker
from mpmsgr.supervisor.clock import Clock
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.wear import worn


def roster(facts: Facts, clock: Clock) -> list[Action]:
    """Changes of duty, none while all is as wanted; the rest is decided after them."""
    for rule in _RULES:
        if actions := list(rule(facts, clock)):
            return actions
    return []


def _judge_reload(facts: Facts, clock: Clock) -> Iterator[Action]:
    """The first worker that is READY with new settings proves them."""
    if facts.candidate is None:
        return
    tried = [w for w in facts.of_duty(Duty.SERVING) if w.revision == facts.candidate]
    looping = [w for w in tried if w.early_deaths >= facts.limits.first_crash_limit]
    if facts.target == 0 or any(facts.is_linked(worker) for worker in tried):
        yield CommitReload()
    elif facts.refusal:
        yield AbandonReload(facts.refusal)
    elif looping:
        worst = looping[0]
        yield AbandonReload(
            f"{worst.name} died {worst.early_deaths} times in a row before it did any work,"
            f" last: {worst.cause}"
        )


def _fill(facts: Facts, clock: Clock) -> Iterator[Action]:
    """So many workers as wanted: who has no process goes first, then the highest slot.

    Never more slots than those and a spare one, since each has shared memory: then new workers wait
    until those that retire are gone.
    """
    there = [worker for worker in facts.of_duty(Duty.SERVING) if worker.counts]
    missing = facts.target - len(there)
    in_use = sum(worker.duty is not Duty.NONE for worker in facts.workers)
    room = facts.target + 1 - in_use
    for slot in islice(_free_slots(facts), max(min(missing, room), 0)):
        yield Hire(slot)
    being_replaced = {worker.replaces for worker in facts.workers}
    may_go = [worker for worker in there if worker.slot not in being_replaced]
    may_go.sort(key=lambda worker: (worker.alive, -worker.slot))
    for worker in may_go[: max(-missing, 0)]:
        yield Dismiss(worker.slot)


def _renew(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Replace the worker whose time has come, the longest there first; one after the other."""
    pending = next((worker for worker in facts.workers if worker.replaces is not None), None)
    if pending is not None:
        if facts.is_linked(pending):
            assert pending.replaces is not None
            yield Dismiss(pending.replaces)
        return
    if not facts.announced or any(facts.of_duty(Duty.RETIRING)):
        return
    serving = [w for w in facts.of_duty(Duty.SERVING) if facts.is_linked(w)]
    for worker in sorted(serving, key=lambda w: w.since):
        if why := _outdated(worker, facts, clock):
            yield Hire(next(_free_slots(facts)), worker.slot, why)
            return


def _outdated(worker: Worker, facts: Facts, clock: Clock) -> str:
    if worker.revision != facts.starting_revision:
        return "reload"
    return worn(worker, facts.limits, clock)


def _free_slots(facts: Facts) -> Iterator[int]:
    """The lowest first, then new ones."""
    yield from (worker.slot for worker in facts.of_duty(Duty.NONE) if worker.phase is Phase.ABSENT)
    yield from count(len(facts.workers))


_RULES: tuple[Callable[[Facts, Clock], Iterator[Action]], ...] = (_judge_reload, _fill, _renew)
