"""Rules of a stop: the I/O process finishes first, then the workers; who is late is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mpmsgr.supervisor.actions import (
    Action,
    CloseListeners,
    Exit,
    Kill,
    QuitIo,
    StopIo,
    StopWorker,
)
from mpmsgr.supervisor.clock import Clock
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.serving import keep_up


def stop(facts: Facts, clock: Clock) -> list[Action]:
    """What a stop needs now."""
    return [action for rule in _RULES for action in rule(facts, clock)]


def ended(facts: Facts) -> Iterator[Action]:
    """The exit, once everybody is gone."""
    if any(child.alive for child in facts.children):
        return
    if not facts.listeners_closed:
        yield CloseListeners()
    if facts.gave_up is not None:
        yield Exit(facts.gave_up)
    elif facts.shortfalls or facts.left:
        killed = [f"killed: {', '.join(facts.left)}"] if facts.left else []
        text = "; ".join([*facts.shortfalls, *killed])
        yield Exit(ExitCode.UNFINISHED, f"stopped unfinished: {text}")
    else:
        yield Exit(ExitCode.CLEAN)


def _kill_late(facts: Facts, clock: Clock) -> Iterator[Action]:
    why = "quick stop"
    if facts.quick_at is None:
        why = f"not ended after {facts.limits.graceful_timeout_s:g} s"
    if clock.reached(_deadline(facts)):
        for child in facts.children:
            if child.alive and not child.killed:
                yield Kill(child.slot, why)


def _stop_io(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.io.alive and facts.quick_at is not None:
        if not facts.io.quit_sent:
            yield QuitIo()
    elif facts.io.alive and not facts.io.stop_sent:
        left_s = _deadline(facts) - clock.now
        reserve_s = min(facts.limits.stop_reserve_s, left_s / 10)
        yield StopIo(max(0.0, left_s - reserve_s))


def _close_listeners(facts: Facts, clock: Clock) -> Iterator[Action]:
    """The I/O process closes them itself when told, so that it does not trip over it; make sure."""
    assert facts.stop_at is not None
    done = facts.drained or not facts.io.alive or facts.quick_at is not None
    if not facts.listeners_closed and (done or clock.reached(facts.stop_at + facts.limits.close_s)):
        yield CloseListeners()


def _keep_draining(facts: Facts, clock: Clock) -> Iterator[Action]:
    """What is in flight still needs its workers."""
    draining = facts.io.alive and not facts.drained and facts.quick_at is None
    if draining and not clock.reached(_deadline(facts)):
        yield from keep_up(facts, clock)


def _stop_workers(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.drained or facts.quick_at is not None or not facts.io.alive:
        for worker in facts.workers:
            if worker.alive and not worker.stop_sent:
                yield StopWorker(worker.slot)


def _deadline(facts: Facts) -> float:
    """When patience with a stop ends."""
    assert facts.stop_at is not None
    deadline = facts.stop_at + facts.limits.graceful_timeout_s
    if facts.quick_at is not None:
        deadline = min(deadline, facts.quick_at + facts.limits.quick_s)
    return deadline


_RULES: tuple[Callable[[Facts, Clock], Iterator[Action]], ...] = (
    _kill_late,
    _stop_io,
    _close_listeners,
    _keep_draining,
    _stop_workers,
)
