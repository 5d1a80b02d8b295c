"""Rules while serving: start who is missing, tell who has to know, end who does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mpmsgr.supervisor.actions import (
    Action,
    AnnounceReady,
    EndReload,
    Kill,
    LetNobodyIn,
    Link,
    Measure,
    Retire,
    StartIo,
    StartWorker,
    StopWorker,
    TellWorkersLost,
)
from mpmsgr.supervisor.child import Child, Duty, Phase
from mpmsgr.supervisor.clock import Clock
from mpmsgr.supervisor.deadlines import kill_late, watch_handlers
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.health import breaker_is_open
from mpmsgr.supervisor.limits import Limits
from mpmsgr.supervisor.wear import is_measured


def serve(facts: Facts, clock: Clock) -> list[Action]:
    """What serving needs now."""
    return [action for rule in _RULES for action in rule(facts, clock)]


def keep_up(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Keep a living I/O process and its workers together."""
    for rule in (watch_handlers, kill_late, _tell_lost, _start_workers, _link):
        yield from rule(facts, clock)


def backoff_s(early_deaths: int, limits: Limits) -> float:
    """How long to wait after so many early deaths in a row: none after the first."""
    if early_deaths < 2:
        return 0.0
    doubled: float = limits.backoff_s * 2.0 ** min(early_deaths - 2, 30)
    return min(doubled, limits.backoff_max_s)


def _kill_overdue(facts: Facts, clock: Clock) -> Iterator[Action]:
    for child in facts.children:
        if not child.alive or child.killed or child.stop_sent:
            continue
        boot_s = facts.limits.boot_timeout_s
        if child.phase is Phase.STARTING and clock.reached(child.since + boot_s):
            yield Kill(child.slot, f"not ready after {boot_s:g} s")
        elif child.eof_at is not None and clock.reached(child.eof_at + facts.limits.eof_s):
            yield Kill(child.slot, "closed its control channel")


def _kill_lingering(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Who retires has as long as everybody in a stop; then others do what it held."""
    patience_s = facts.limits.graceful_timeout_s
    for worker in facts.of_duty(Duty.RETIRING):
        if not worker.killed and clock.reached(worker.retire_at + patience_s):
            yield Kill(worker.slot, f"not retired after {patience_s:g} s")


def _start_io(facts: Facts, clock: Clock) -> Iterator[Action]:
    if _may_start(facts.io, facts.limits, clock):
        yield StartIo()


def _tell_lost(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.lost and facts.io.alive:
        yield TellWorkersLost()


def _start_workers(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Workers are started towards a living I/O process: they are told where it listens."""
    if facts.io.alive:
        for worker in facts.of_duty(Duty.SERVING):
            wanted = worker.counts or facts.stop_at is None
            if wanted and _may_start(worker, facts.limits, clock):
                yield StartWorker(worker.slot)


def _link(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.io.alive:
        for worker in facts.of_duty(Duty.SERVING):
            if worker.alive and worker.told != facts.io.number:
                yield Link(worker.slot)


def _retire(facts: Facts, clock: Clock) -> Iterator[Action]:
    """A worker stops when the I/O process has nothing more of it, or never gave it anything."""
    for worker in facts.of_duty(Duty.RETIRING):
        if worker.stop_sent:
            continue
        if worker.retired or not facts.is_linked(worker):
            yield StopWorker(worker.slot)
        elif not worker.retire_sent:
            yield Retire(worker.slot)


def _measure(facts: Facts, clock: Clock) -> Iterator[Action]:
    limits = facts.limits
    anybody = any(map(facts.is_linked, facts.of_duty(Duty.SERVING)))
    if anybody and is_measured(limits) and clock.reached(facts.measured_at + limits.sample_s):
        yield Measure()


def _let_nobody_in(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.lame_duck and not facts.lame_sent and facts.io.alive:
        yield LetNobodyIn()


def _announce(facts: Facts, clock: Clock) -> Iterator[Action]:
    if not facts.announced and facts.io.phase is Phase.READY and _all_linked(facts):
        yield AnnounceReady()


def _end_reload(facts: Facts, clock: Clock) -> Iterator[Action]:
    if not facts.reloading or facts.candidate is not None:
        return
    serving = facts.of_duty(Duty.SERVING)
    renewed = all(w.revision == facts.revision and w.counts for w in serving)
    if renewed and _all_linked(facts) and not any(facts.of_duty(Duty.RETIRING)):
        yield EndReload()


def _all_linked(facts: Facts) -> bool:
    return all(facts.is_linked(worker) for worker in facts.of_duty(Duty.SERVING))


def _may_start(child: Child, limits: Limits, clock: Clock) -> bool:
    wait_s = backoff_s(child.early_deaths, limits)
    if child.slot is not None and breaker_is_open(child, limits, clock.now):
        wait_s = limits.backoff_max_s
    return not child.alive and clock.reached(child.since + wait_s)


_RULES: tuple[Callable[[Facts, Clock], Iterator[Action]], ...] = (
    _kill_overdue,
    _kill_lingering,
    _start_io,
    keep_up,
    _retire,
    _measure,
    _let_nobody_in,
    _announce,
    _end_reload,
)
