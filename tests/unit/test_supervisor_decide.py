"""The supervisor's decision as tables: facts and time in, actions out."""

from __future__ import annotations

import pytest

from mpmsgr.supervisor.actions import (
    Action,
    AnnounceReady,
    CloseListeners,
    Dismiss,
    DumpLate,
    Exit,
    GiveUp,
    Hire,
    Kill,
    Link,
    Look,
    QuitIo,
    Retire,
    StartIo,
    StartWorker,
    StopIo,
    StopWorker,
    TellWorkersLost,
    WakeAt,
)
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Facts, Running
from mpmsgr.supervisor.serving import backoff_s
from tests.unit.supervisor_facts import LIMITS, serving


def stopping(at: float = 100.0) -> Facts:
    """Serving, then a stop; the I/O process knows."""
    facts = serving()
    facts.asked_to_stop(at)
    facts.io.stop_sent = facts.listeners_closed = True
    return facts


# Starting


def test_the_io_process_is_started_first() -> None:
    assert decide(Facts.of(2, LIMITS), 0.0) == [StartIo()]


def test_workers_start_beside_a_booting_io_process() -> None:
    facts = Facts.of(2, LIMITS)
    facts.started(None, 5.0)
    assert decide(facts, 5.0) == [StartWorker(0), StartWorker(1), WakeAt(35.0)]


@pytest.mark.parametrize(
    ("io_ready", "linked", "expected"),
    [
        (True, (1, 1), [AnnounceReady()]),
        (True, (1, None), [WakeAt(30.0)]),
        (True, (1, 0), []),  # ready at an incarnation that is gone
        (False, (1, 1), [WakeAt(30.0)]),
    ],
)
def test_ready_means_that_everybody_is(
    io_ready: bool, linked: tuple[int | None, int | None], expected: list[Action]
) -> None:
    facts = Facts.of(2, LIMITS)
    facts.started(None, 0.0)
    if io_ready:
        facts.ready(None)
    for slot, incarnation in enumerate(linked):
        facts.started(slot, 0.0)
        if incarnation is not None:
            facts.ready(slot, incarnation)
    assert decide(facts, 1.0) == expected


def test_without_workers_the_io_process_is_enough() -> None:
    facts = Facts.of(0, LIMITS)
    facts.started(None, 0.0)
    facts.ready(None)
    assert decide(facts, 0.0) == [AnnounceReady()]


def test_nothing_to_do_while_all_is_well() -> None:
    assert decide(serving(), 1e9) == []


@pytest.mark.parametrize(
    ("workers", "slot", "code"),
    [(2, 1, ExitCode.PLUGIN), (2, None, ExitCode.FAILED), (0, None, ExitCode.PLUGIN)],
)
def test_words_of_failure_at_the_first_start_end_it(
    workers: int, slot: int | None, code: ExitCode
) -> None:
    facts = Facts.of(workers, LIMITS)
    facts.started(None, 0.0)
    facts.failed(slot, "no module named x")
    assert decide(facts, 0.0) == [GiveUp(code, "no module named x")]


def test_words_of_failure_later_are_a_death_like_any_other() -> None:
    facts = serving()
    facts.failed(0, "no module named x")
    assert decide(facts, 1.0) == []


# Replacing


def test_a_dead_worker_is_replaced_at_once_after_the_io_process_was_told() -> None:
    facts = serving()
    facts.died(1, "signal 9", 10.0)
    assert decide(facts, 10.0) == [TellWorkersLost(), StartWorker(1)]
    assert [(w.slot, w.generation, w.cause) for w in facts.lost] == [(1, 1, "signal 9")]


def test_a_dead_io_process_is_replaced_at_once_and_workers_follow() -> None:
    facts = serving()
    facts.died(None, "signal 11", 10.0)
    assert decide(facts, 10.0) == [StartIo()]
    facts.started(None, 10.0)
    assert decide(facts, 10.0) == [Link(0), Link(1), WakeAt(40.0)]


def test_a_new_incarnation_is_not_told_of_workers_it_never_knew() -> None:
    facts = serving()
    facts.died(0, "signal 9", 10.0)
    facts.died(None, "signal 9", 10.0)
    assert decide(facts, 10.0) == [StartIo()]
    facts.started(None, 10.0)
    assert decide(facts, 10.0) == [StartWorker(0), Link(1), WakeAt(40.0)]


@pytest.mark.parametrize(
    ("deaths", "expected_s"),
    [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (4, 0.4), (7, 3.2), (8, 5.0), (5000, 5.0)],
)
def test_backoff(deaths: int, expected_s: float) -> None:
    assert backoff_s(deaths, LIMITS) == pytest.approx(expected_s)


def test_backoff_counts_early_deaths_in_a_row() -> None:
    facts = serving()
    for _ in range(2):
        facts.died(0, "exit 1", 10.0)
        facts.lost.clear()
        facts.started(0, 10.0)
    facts.died(0, "exit 1", 10.0)
    facts.lost.clear()
    assert decide(facts, 10.0) == [WakeAt(10.2)]
    assert decide(facts, 10.2) == [StartWorker(0)]


@pytest.mark.parametrize(
    ("worked", "lived_s", "counted"),
    [(False, 1.0, 1), (True, 1.0, 0), (False, 60.0, 0), (True, 60.0, 0)],
)
def test_only_deaths_before_a_first_completion_count(
    worked: bool, lived_s: float, counted: int
) -> None:
    facts = serving()
    if worked:
        facts.worked(0)
    facts.died(0, "signal 9", lived_s)
    assert facts.workers[0].early_deaths == counted


def test_a_completion_ends_the_row() -> None:
    facts = serving()
    facts.workers[0].early_deaths = 7
    facts.worked(0)
    facts.died(0, "signal 9", 1.0)
    assert facts.workers[0].early_deaths == 0


def test_an_io_process_that_was_ready_did_not_die_early() -> None:
    facts = serving()
    for _ in range(100):
        facts.died(None, "signal 9", 1.0)
        assert decide(facts, 1.0) == [StartIo()]
        facts.started(None, 1.0)
        facts.ready(None)


@pytest.mark.parametrize(
    ("announced", "io", "workers", "gives_up"),
    [
        (False, 0, (3, 0), True),  # it would never be ready
        (False, 0, (2, 2), False),
        (False, 3, (0, 0), True),
        (True, 0, (8, 0), False),
        (True, 0, (8, 8), False),  # sessions outlive them
        (True, 8, (0, 0), True),
        (True, 7, (3, 3), False),
    ],
)
def test_the_crash_loop_limit(
    announced: bool, io: int, workers: tuple[int, int], gives_up: bool
) -> None:
    facts = serving()
    facts.announced = announced
    facts.io.early_deaths = io
    for worker, deaths in zip(facts.workers, workers, strict=True):
        worker.early_deaths = deaths
        worker.linked = 0  # not ready at this incarnation: nothing to announce
    actions = decide(facts, 1.0)
    assert [type(a) for a in actions] == ([GiveUp] if gives_up else [])
    if gives_up:
        assert isinstance(actions[0], GiveUp)
        assert actions[0].code is ExitCode.CRASH_LOOP


def test_a_crash_loop_says_who_and_why() -> None:
    facts = serving(1)
    facts.announced = False
    facts.workers[0].early_deaths = 2
    facts.died(0, "signal 11", 1.0)
    assert decide(facts, 1.0) == [
        GiveUp(
            ExitCode.CRASH_LOOP,
            "worker 0 died 3 times in a row before it did any work, last: signal 11",
        )
    ]


# Killing


@pytest.mark.parametrize("slot", [None, 0])
def test_who_does_not_become_ready_is_killed_once(slot: int | None) -> None:
    facts = serving()
    facts.died(slot, "signal 9", 50.0)
    facts.lost.clear()
    facts.started(slot, 50.0)
    for worker in facts.workers:
        worker.told = facts.io.number
    assert decide(facts, 79.9) == [WakeAt(80.0)]
    assert decide(facts, 80.0) == [Kill(slot, "not ready after 30 s")]
    facts.kill_sent(slot, "not ready after 30 s")
    assert decide(facts, 80.0) == []
    facts.died(slot, "signal 9", 80.0)
    assert facts.child(slot).cause == "signal 9 (not ready after 30 s)"
    assert facts.child(slot).early_deaths > 0


def test_who_closed_its_channel_may_end_by_itself_first() -> None:
    facts = serving()
    facts.channel_closed(1, 50.0)
    assert decide(facts, 50.0) == [WakeAt(55.0)]
    assert decide(facts, 55.0) == [Kill(1, "closed its control channel")]


# Deadlines and leases

INF = float("inf")


def watched(*running: Running | None, shortest_s: float = 0.4) -> Facts:
    """Serving, all with deadlines; the pages were read at 10."""
    facts = serving(len(running))
    for slot in range(len(running)):
        facts.ready(slot, 1, shortest_deadline_s=shortest_s)
    facts.looked(dict(enumerate(running)), 10.0)
    return facts


def run(number: int = 7, soft_at: float = INF, hard_at: float = INF) -> Running:
    return Running(number, 0x8001, soft_at, hard_at, deadline_s=2.0)


def test_nobody_is_looked_at_without_a_deadline() -> None:
    facts = serving()
    assert decide(facts, 1e9) == []
    facts.ready(1, 1, shortest_deadline_s=2.0)
    assert decide(facts, 1e9) == [Look()]


@pytest.mark.parametrize(
    ("shortest_s", "running", "expected_at"),
    [
        (0.4, None, 11.0),  # nobody runs anything
        (0.4, run(), 10.1),
        (60.0, run(), 11.0),
        (0.001, run(), 10.05),
        (60.0, run(soft_at=10.3, hard_at=10.4), 10.3),
        (60.0, run(soft_at=9.0, hard_at=10.4), 10.4),
        (60.0, run(soft_at=10.001), 10.05),
    ],
)
def test_when_they_are_looked_at_again(
    shortest_s: float, running: Running | None, expected_at: float
) -> None:
    facts = watched(None, running, shortest_s=shortest_s)
    facts.workers[1].dumped = 7
    (wake,) = decide(facts, 10.0)
    assert isinstance(wake, WakeAt)
    assert wake.at == pytest.approx(expected_at)
    assert decide(facts, expected_at + 1e-9) == [Look()]


def test_who_is_starting_or_being_killed_is_not_looked_at() -> None:
    facts = watched(run(), run())
    facts.kill_sent(0, "x")
    facts.died(1, "signal 9", 10.0)
    facts.lost.clear()
    facts.started(1, 10.0)
    assert decide(facts, 20.0) == [WakeAt(40.0)]


def test_a_soft_deadline_is_said_once_per_message() -> None:
    late = run(7, soft_at=10.0)
    facts = watched(late, None)
    assert decide(facts, 10.0)[0] == DumpLate(0)
    facts.dump_sent(0)
    facts.looked({0: late}, 11.0)
    assert DumpLate(0) not in decide(facts, 11.0)
    facts.looked({0: run(8, soft_at=10.5)}, 11.0)
    assert DumpLate(0) in decide(facts, 11.0)


@pytest.mark.parametrize(
    ("hard_at", "killed"), [(INF, False), (10.001, False), (10.0, True), (9.0, True)]
)
def test_a_hard_deadline_kills(hard_at: float, killed: bool) -> None:
    facts = watched(run(soft_at=9.0, hard_at=hard_at), run())
    facts.workers[0].dumped = 7
    kill = Kill(0, "handler of message type 0x8001 exceeded its deadline of 2 s")
    assert [a for a in decide(facts, 10.0) if not isinstance(a, WakeAt)] == [kill] * killed
    facts.kill_sent(kill.slot, kill.why)
    assert all(isinstance(a, WakeAt) for a in decide(facts, 10.0)), "once"


@pytest.mark.parametrize("soft_at", [9.0, 9.5, 10.5, INF])
def test_stacks_are_written_before_a_kill_that_takes_a_second_look(soft_at: float) -> None:
    late = run(soft_at=soft_at, hard_at=9.5)
    facts = watched(late)
    assert decide(facts, 10.0) == [DumpLate(0), WakeAt(10.05)]
    facts.dump_sent(0)
    assert decide(facts, 10.0) == [WakeAt(10.05)]
    facts.looked({0: late}, 10.05)
    assert type(decide(facts, 10.05)[0]) is Kill


def test_the_deadlines_of_the_message_before_kill_nobody() -> None:
    facts = watched(run(7, soft_at=9.0, hard_at=10.0))
    facts.dump_sent(0)
    facts.looked({0: run(8, soft_at=9.0, hard_at=10.0)}, 10.1)
    assert decide(facts, 10.1)[0] == DumpLate(0)
    facts.dump_sent(0)
    facts.looked({0: run(8, soft_at=11.0, hard_at=12.0)}, 10.2)
    assert [type(a) for a in decide(facts, 10.2)] == [WakeAt]


def test_a_deadline_that_passed_since_the_last_look_is_looked_at_first() -> None:
    facts = watched(run(soft_at=9.0, hard_at=10.5), None)
    facts.workers[0].dumped = 7
    assert decide(facts, 12.0) == [Look()]
    facts.looked({0: run(8, hard_at=14.0)}, 12.0)
    assert [a for a in decide(facts, 12.0) if isinstance(a, Kill)] == []


def test_the_io_process_is_told_what_the_dead_worker_ran_and_why_it_died() -> None:
    facts = watched(run(hard_at=10.0))
    facts.workers[0].dumped = 7
    (kill,) = (a for a in decide(facts, 10.0) if isinstance(a, Kill))
    facts.kill_sent(0, kill.why)
    facts.died(0, "signal 9", 10.1, running=[7], signal=9)
    (lost,) = facts.lost
    cause = "signal 9 (handler of message type 0x8001 exceeded its deadline of 2 s)"
    assert (lost.running, lost.signal, lost.cause) == ((7,), 9, cause)


def test_a_death_that_is_a_messages_is_none_of_a_crash_loop() -> None:
    facts = serving()
    for _ in range(100):
        facts.died(0, "signal 11", 1.0, running=[7], signal=11)
        assert decide(facts, 1.0) == [TellWorkersLost(), StartWorker(0)]
        facts.lost.clear()
        facts.started(0, 1.0)
        facts.ready(0, 1)


def test_a_worker_is_recycled_when_the_io_process_says_so() -> None:
    facts = serving()
    facts.wants_recycled(1, 1, "it keeps 1 MiB")
    assert decide(facts, 1.0) == [Hire(2, 1, "it keeps 1 MiB")]
    facts.hired(2, 1)
    assert decide(facts, 1.0) == [StartWorker(2)]
    facts.started(2, 1.0)
    facts.ready(2, 1)
    assert decide(facts, 1.0) == [Dismiss(1)]
    facts.dismissed(1, 1.0)
    assert decide(facts, 1.0) == [Retire(1), WakeAt(31.0)]


def test_who_keeps_a_lease_and_never_gets_idle_is_killed_in_the_end() -> None:
    facts = serving()
    facts.wants_recycled(1, 1, "it keeps 1 MiB")
    facts.hired(2, 1)
    facts.started(2, 1.0)
    facts.ready(2, 1)
    facts.dismissed(1, 1.0)
    facts.workers[1].retire_sent = True
    assert decide(facts, 30.9) == [WakeAt(31.0)]
    assert decide(facts, 31.0) == [Kill(1, "not retired after 30 s")]
    facts.kill_sent(1, "not retired after 30 s")
    facts.died(1, "signal 9", 31.0, signal=9)
    assert facts.workers[1].early_deaths == 0
    assert decide(facts, 31.0) == [TellWorkersLost()]


def test_only_that_generation_is_recycled() -> None:
    facts = serving()
    facts.wants_recycled(1, 2, "x")
    assert decide(facts, 1.0) == []
    facts.died(1, "signal 9", 1.0)
    facts.lost.clear()
    facts.wants_recycled(1, 1, "x")
    facts.started(1, 1.0)
    facts.ready(1, 1)
    assert decide(facts, 1.0) == []


# Stopping


def test_deadlines_are_kept_while_draining_and_leases_end_with_it() -> None:
    facts = watched(run(hard_at=101.0), None)
    facts.workers[0].dumped = 7
    facts.wants_recycled(1, 1, "x")
    facts.asked_to_stop(100.0)
    facts.io.stop_sent = facts.listeners_closed = True
    assert decide(facts, 100.0)[0] == Look()
    facts.looked({0: run(hard_at=101.0)}, 101.0)
    kills = [a for a in decide(facts, 101.0) if isinstance(a, Kill)]
    assert [kill.slot for kill in kills] == [0]


def test_who_is_killed_while_draining_and_replaced_is_not_left() -> None:
    facts = stopping()
    facts.kill_sent(0, "x")
    facts.died(0, "signal 9", 101.0)
    facts.lost.clear()
    facts.started(0, 101.0)
    facts.drain_ended(0)
    assert end(facts) == [Exit(ExitCode.CLEAN)]


def test_nobody_is_watched_when_all_is_delivered_or_nothing_waited_for() -> None:
    for quick in (False, True):
        facts = watched(run(hard_at=101.0), None)
        facts.asked_to_stop(100.0, quick=quick)
        facts.io.stop_sent = facts.io.quit_sent = facts.listeners_closed = True
        if not quick:
            facts.drain_ended(0)
        facts.looked({0: run(hard_at=100.0)}, 100.0)
        assert not [a for a in decide(facts, 100.5) if isinstance(a, Look | DumpLate | Kill)]


def test_who_has_hung_up_is_not_looked_at_until_patience_ends() -> None:
    """Nothing would come of it: while it stops, only that ends it."""
    late = run(soft_at=99.0, hard_at=99.5)
    facts = watched(late)
    facts.workers[0].dumped = late.number
    facts.channel_closed(0, 99.0)
    facts.asked_to_stop(100.0)
    facts.io.stop_sent = facts.listeners_closed = True
    facts.looked({0: late}, 100.0)
    assert decide(facts, 100.1) == [WakeAt(130.0)]


def test_the_io_process_stops_accepting_and_then_nobody_does() -> None:
    facts = serving()
    facts.asked_to_stop(100.0)
    assert decide(facts, 100.0) == [StopIo(29.0), WakeAt(100.5)]
    facts.io.stop_sent = True
    assert decide(facts, 100.4) == [WakeAt(100.5)]
    assert decide(facts, 100.5) == [CloseListeners(), WakeAt(130.0)]


def test_a_drained_io_process_has_closed_its_sockets() -> None:
    facts = serving()
    facts.asked_to_stop(100.0)
    facts.io.stop_sent = True
    facts.drain_ended(0)
    assert decide(facts, 100.1)[0] == CloseListeners()


def test_workers_stop_when_everything_is_delivered() -> None:
    facts = stopping()
    assert decide(facts, 101.0) == [WakeAt(130.0)]
    facts.drain_ended(0)
    assert decide(facts, 101.0) == [StopWorker(0), StopWorker(1), WakeAt(130.0)]


def test_a_worker_that_dies_while_draining_is_replaced() -> None:
    facts = stopping()
    facts.died(0, "signal 9", 101.0)
    assert decide(facts, 101.0) == [TellWorkersLost(), StartWorker(0), WakeAt(130.0)]


def test_the_io_process_is_not_replaced_in_a_stop() -> None:
    facts = stopping()
    facts.died(None, "signal 9", 101.0)
    assert decide(facts, 101.0) == [StopWorker(0), StopWorker(1), WakeAt(130.0)]


def end(facts: Facts) -> list[Action]:
    """Everybody's end at 102."""
    for child in facts.children:
        if child.alive:
            facts.died(child.slot, "exit 0", 102.0)
    return decide(facts, 102.0)


def test_a_clean_end() -> None:
    facts = stopping()
    facts.drain_ended(0)
    assert end(facts) == [Exit(ExitCode.CLEAN)]


def test_what_was_not_delivered_is_said() -> None:
    facts = stopping()
    facts.drain_ended(3)
    text = "stopped unfinished: 3 messages undelivered"
    assert end(facts) == [Exit(ExitCode.UNFINISHED, text)]


def test_what_was_not_handled_is_said() -> None:
    facts = stopping()
    facts.drain_ended(0, unfinished=True)
    text = "stopped unfinished: not everything in work was handled"
    assert end(facts) == [Exit(ExitCode.UNFINISHED, text)]


def test_an_io_process_that_dies_while_draining_delivered_not_everything() -> None:
    text = "stopped unfinished: the I/O process ended (exit 0) before everything was delivered"
    assert end(stopping()) == [Exit(ExitCode.UNFINISHED, text)]


def test_who_is_late_is_killed_and_named() -> None:
    facts = stopping()
    facts.drain_ended(0)
    facts.workers[0].stop_sent = facts.workers[1].stop_sent = True
    facts.died(1, "exit 0", 101.0)
    facts.died(None, "exit 0", 101.0)
    assert decide(facts, 130.0) == [Kill(0, "not ended after 30 s")]
    facts.kill_sent(0, "not ended after 30 s")
    assert decide(facts, 130.0) == []
    assert end(facts) == [Exit(ExitCode.UNFINISHED, "stopped unfinished: killed: worker 0")]


def test_an_io_process_that_is_late_loses_what_is_in_flight() -> None:
    facts = stopping()
    for slot in (None, 0, 1):
        facts.kill_sent(slot, "not ended after 30 s")
    facts.died(0, "signal 9", 130.0)
    assert decide(facts, 130.0) == [], "nobody is replaced any more"
    text = (
        "stopped unfinished: what was in flight is lost (not ended after 30 s);"
        " killed: the I/O process, worker 0, worker 1"
    )
    assert end(facts) == [Exit(ExitCode.UNFINISHED, text)]


def test_a_quick_stop_waits_a_second() -> None:
    facts = stopping()
    facts.asked_to_stop(110.0, quick=True)
    assert decide(facts, 110.0) == [QuitIo(), StopWorker(0), StopWorker(1), WakeAt(111.0)]
    late = decide(facts, 111.0)
    assert [a for a in late if isinstance(a, Kill)] == [
        Kill(slot, "quick stop") for slot in (None, 0, 1)
    ]


def test_nobody_is_replaced_in_a_quick_stop() -> None:
    facts = stopping()
    facts.asked_to_stop(110.0, quick=True)
    facts.io.quit_sent = facts.workers[1].stop_sent = True
    facts.died(0, "signal 9", 110.0)
    assert decide(facts, 110.0) == [WakeAt(111.0)]


def test_giving_up_ends_with_its_own_code_and_no_second_line() -> None:
    facts = serving()
    facts.give_up(ExitCode.CRASH_LOOP, 100.0)
    assert decide(facts, 100.0) == [
        QuitIo(),
        CloseListeners(),
        StopWorker(0),
        StopWorker(1),
        WakeAt(101.0),
    ]
    assert end(facts) == [CloseListeners(), Exit(ExitCode.CRASH_LOOP)]


def test_a_stop_before_anything_started() -> None:
    facts = Facts.of(2, LIMITS)
    facts.asked_to_stop(0.0)
    assert decide(facts, 0.0) == [CloseListeners(), Exit(ExitCode.CLEAN)]
