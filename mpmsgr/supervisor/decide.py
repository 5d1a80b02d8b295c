"""The supervisor's decision: a pure function of the facts and the time.

The loop carries out what `decide` returns, records it in the facts and asks again until nothing is
left to do but to wait. A rule therefore only looks at what is, never at how it came to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mpmsgr.supervisor.actions import (
    Action,
    AnnounceReady,
    CloseListeners,
    Dump,
    Exit,
    GiveUp,
    Kill,
    Link,
    Look,
    QuitIo,
    StartIo,
    StartWorker,
    StopIo,
    StopWorker,
    TellWorkersLost,
    WakeAt,
)
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Child, Facts, Limits, Phase, Running


class Clock:
    """The time of a decision, and the earliest later time one of its rules asked about."""

    def __init__(self, now: float) -> None:
        """Stand at *now*."""
        self.now = now
        self.next = float("inf")

    def reached(self, at: float) -> bool:
        """Whether it is *at* or later; if not, the decision is made again then."""
        if self.now >= at:
            return True
        self.next = min(self.next, at)
        return False


def decide(facts: Facts, now: float) -> list[Action]:
    """What to do at *now*, in order; a last WakeAt says when to decide again without an event."""
    clock = Clock(now)
    actions: list[Action]
    if facts.stop_at is None:
        actions = list(_give_up(facts)) or _apply(_SERVE, facts, clock)
    else:
        actions = list(_exit(facts)) or _apply(_STOP, facts, clock)
    if clock.next < float("inf"):
        actions.append(WakeAt(clock.next))
    return actions


def backoff_s(early_deaths: int, limits: Limits) -> float:
    """How long to wait after so many early deaths in a row: none after the first."""
    if early_deaths < 2:
        return 0.0
    doubled: float = limits.backoff_s * 2.0 ** min(early_deaths - 2, 30)
    return min(doubled, limits.backoff_max_s)


# While serving


def _give_up(facts: Facts) -> Iterator[Action]:
    if facts.failure is not None:
        slot, text = facts.failure
        loads_plugins = slot is not None or not facts.workers
        yield GiveUp(ExitCode.PLUGIN if loads_plugins else ExitCode.FAILED, text)
    elif looping := _crash_loop(facts):
        worst = max(looping, key=lambda child: child.early_deaths)
        yield GiveUp(
            ExitCode.CRASH_LOOP,
            f"{worst.name} died {worst.early_deaths} times in a row before it did any work,"
            f" last: {worst.cause}",
        )


def _crash_loop(facts: Facts) -> list[Child]:
    """The I/O process, or the workers, if they are in a crash loop that ends the supervisor.

    One worker of several that loops does not, once all were ready: the others serve.
    """
    limits = facts.limits
    limit = limits.crash_limit if facts.announced else limits.first_crash_limit
    if facts.io.early_deaths >= limit:
        return [facts.io]
    looping = [worker for worker in facts.workers if worker.early_deaths >= limit]
    enough = len(facts.workers) if facts.announced else 1
    return looping if looping and len(looping) >= enough else []


def _kill_overdue(facts: Facts, clock: Clock) -> Iterator[Action]:
    for child in facts.children:
        if not child.alive or child.killed:
            continue
        boot_s = facts.limits.boot_timeout_s
        if child.phase is Phase.STARTING and clock.reached(child.since + boot_s):
            yield Kill(child.slot, f"not ready after {boot_s:g} s")
        elif child.eof_at is not None and clock.reached(child.eof_at + facts.limits.eof_s):
            yield Kill(child.slot, "closed its control channel")


def _watch_handlers(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Workers with deadlines are looked at now and then, more often while they run something."""
    watched = [worker for worker in facts.workers if _watched(worker)]
    if watched and clock.reached(_next_look(watched, facts)):
        yield Look()
        return
    for worker in watched:
        run = worker.running
        if run is not None and _is_due_to_dump(worker, run, facts):
            assert worker.slot is not None
            yield Dump(worker.slot)


def _is_due_to_dump(worker: Child, run: Running, facts: Facts) -> bool:
    late = facts.looked_at >= min(run.soft_at, run.hard_at)
    return late and worker.dumped != run.number


def _is_due_to_die(worker: Child, run: Running, facts: Facts) -> bool:
    """Past its hard deadline, and seen so again after it was told to write its stacks."""
    late = facts.looked_at >= run.hard_at
    return late and worker.dumped == run.number and facts.looked_at > worker.dumped_at


def _watched(worker: Child) -> bool:
    return worker.phase is Phase.READY and bool(worker.shortest_deadline_s) and not worker.killed


def _next_look(watched: list[Child], facts: Facts) -> float:
    """When to look again: a deadline is acted on only when it is seen to be over."""
    limits, last = facts.limits, facts.looked_at
    running = [worker.running for worker in watched if worker.running is not None]
    if not running:
        return last + limits.look_s
    shortest_s = min(worker.shortest_deadline_s for worker in watched)
    wait_s = min(limits.look_s, shortest_s / 4)
    soft = [run.soft_at for run in running if run.soft_at > last]
    return max(last + limits.look_min_s, min(last + wait_s, *soft, *(r.hard_at for r in running)))


def _kill_offenders(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Workers whose message is past its hard deadline, or that keep what is not theirs."""
    for worker in facts.workers:
        if worker.phase is not Phase.READY or worker.killed or worker.eof_at is not None:
            continue
        run = worker.running
        if run is not None and _is_due_to_die(worker, run, facts):
            handler = f"handler of message type {run.type:#x}"
            yield Kill(worker.slot, f"{handler} exceeded its deadline of {run.deadline_s:g} s")
        elif worker.recycle:
            yield Kill(worker.slot, worker.recycle)


def _start_io(facts: Facts, clock: Clock) -> Iterator[Action]:
    if _may_start(facts.io, facts.limits, clock):
        yield StartIo()


def _tell_lost(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.lost and facts.io.alive:
        yield TellWorkersLost()


def _start_workers(facts: Facts, clock: Clock) -> Iterator[Action]:
    """Workers are started towards a living I/O process: they are told where it listens."""
    if facts.io.alive:
        for worker in facts.workers:
            if _may_start(worker, facts.limits, clock):
                assert worker.slot is not None
                yield StartWorker(worker.slot)


def _link(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.io.alive:
        for worker in facts.workers:
            if worker.alive and worker.told != facts.io.number:
                assert worker.slot is not None
                yield Link(worker.slot)


def _announce(facts: Facts, clock: Clock) -> Iterator[Action]:
    if not facts.announced and facts.io.phase is Phase.READY:
        here = facts.io.number
        if all(w.phase is Phase.READY and w.linked == here for w in facts.workers):
            yield AnnounceReady()


def _may_start(child: Child, limits: Limits, clock: Clock) -> bool:
    wait_s = backoff_s(child.early_deaths, limits)
    return not child.alive and clock.reached(child.since + wait_s)


# While stopping


def _exit(facts: Facts) -> Iterator[Action]:
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
        for rule in (_watch_handlers, _kill_offenders, _tell_lost, _start_workers, _link):
            yield from rule(facts, clock)


def _stop_workers(facts: Facts, clock: Clock) -> Iterator[Action]:
    if facts.drained or facts.quick_at is not None or not facts.io.alive:
        for worker in facts.workers:
            if worker.alive and not worker.stop_sent:
                assert worker.slot is not None
                yield StopWorker(worker.slot)


def _deadline(facts: Facts) -> float:
    """When patience with a stop ends."""
    assert facts.stop_at is not None
    deadline = facts.stop_at + facts.limits.graceful_timeout_s
    if facts.quick_at is not None:
        deadline = min(deadline, facts.quick_at + facts.limits.quick_s)
    return deadline


_Rule = Callable[[Facts, Clock], Iterator[Action]]
_SERVE: tuple[_Rule, ...] = (
    _kill_overdue,
    _watch_handlers,
    _kill_offenders,
    _start_io,
    _tell_lost,
    _start_workers,
    _link,
    _announce,
)
_STOP: tuple[_Rule, ...] = (
    _kill_late,
    _stop_io,
    _close_listeners,
    _keep_draining,
    _stop_workers,
)


def _apply(rules: tuple[_Rule, ...], facts: Facts, clock: Clock) -> list[Action]:
    return [action for rule in rules for action in rule(facts, clock)]
