"""Rules of handlers' deadlines: see what runs, log the stacks of what is late, then end it."""

from __future__ import annotations

from collections.abc import Iterator

from mpmsgr.supervisor.actions import Action, DumpLate, Kill, Look
from mpmsgr.supervisor.child import Phase, Running, Worker
from mpmsgr.supervisor.clock import Clock
from mpmsgr.supervisor.facts import Facts


def watch_handlers(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Workers with deadlines are looked at now and then, more often while they run something."""
    watched = [worker for worker in facts.workers if _watched(worker)]
    if watched and clock.reached(_next_look(watched, facts)):
        yield Look()
        return
    for worker in watched:
        run = worker.running
        if run is not None and _is_due_to_dump(worker, run, facts):
            yield DumpLate(worker.slot)


def kill_late(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Workers whose message is past its hard deadline."""
    for worker in facts.workers:
        run = worker.running
        if run is None or not _watched(worker):
            continue
        if _is_due_to_die(worker, run, facts):
            handler = f"handler of message type {run.type:#x}"
            yield Kill(worker.slot, f"{handler} exceeded its deadline of {run.deadline_s:g} s")


def _is_due_to_dump(worker: Worker, run: Running, facts: Facts) -> bool:
    late = facts.looked_at >= min(run.soft_at, run.hard_at)
    return late and worker.dumped != run.number


def _is_due_to_die(worker: Worker, run: Running, facts: Facts) -> bool:
    """Past its hard deadline, and seen so again after it was told to write its stacks."""
    late = facts.looked_at >= run.hard_at
    return late and worker.dumped == run.number and facts.looked_at > worker.dumped_at


def _watched(worker: Worker) -> bool:
    """Has it deadlines, and is it not about to end anyway?"""
    ends = worker.killed or worker.eof_at is not None
    return worker.phase is Phase.READY and bool(worker.shortest_deadline_s) and not ends


def _next_look(watched: list[Worker], facts: Facts) -> float:
    """When to look again: a deadline is acted on only when it is seen to be over."""
    limits, last = facts.limits, facts.looked_at
    running = [worker.running for worker in watched if worker.running is not None]
    if not running:
        return last + limits.look_s
    shortest_s = min(worker.shortest_deadline_s for worker in watched)
    wait_s = min(limits.look_s, shortest_s / 4)
    soft = [run.soft_at for run in running if run.soft_at > last]
    return max(last + limits.look_min_s, min(last + wait_s, *soft, *(r.hard_at for r in running)))
