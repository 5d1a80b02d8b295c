"""Which slots have a worker: scaling, replacing, reloads; facts and time in, actions out."""

from __future__ import annotations

import pytest

from mpmsgr.supervisor.actions import (
    AbandonReload,
    Action,
    CommitReload,
    Dismiss,
    EndReload,
    Hire,
    Kill,
    LetNobodyIn,
    Retire,
    StartIo,
    StartWorker,
    StopWorker,
    WakeAt,
)
from mpmsgr.supervisor.child import Duty
from mpmsgr.supervisor.decide import decide
from tests.unit.supervisor_facts import boot, replacing, serving

# More and fewer


def test_more_workers_get_the_lowest_free_slots() -> None:
    facts = serving(3)
    facts.hired(3)
    boot(facts, 3, 0.0)
    facts.dismissed(1, 5.0)
    facts.died(1, "exit 0", 5.0)
    facts.lost.clear()
    facts.target = 6
    assert decide(facts, 10.0) == [Hire(1), Hire(4), Hire(5)]


def test_a_hired_slot_is_started_like_any_other() -> None:
    facts = serving(1)
    facts.target = 2
    facts.hired(1)
    assert decide(facts, 10.0) == [StartWorker(1)]


def test_fewer_workers_dismiss_the_highest_slot() -> None:
    facts = serving(3)
    facts.target = 1
    assert decide(facts, 10.0) == [Dismiss(2), Dismiss(1)]


def test_fewer_workers_dismiss_who_is_not_there_first() -> None:
    facts = serving(3)
    facts.died(0, "signal 9", 10.0)
    facts.target = 2
    assert decide(facts, 10.0) == [Dismiss(0)]
    facts.dismissed(0, 10.0)
    assert facts.workers[0].duty is Duty.NONE


def test_no_more_slots_are_used_than_workers_and_a_spare_one() -> None:
    facts = serving(3)
    for slot in (1, 2):
        facts.dismissed(slot, 10.0)
    facts.target = 2
    assert not any(isinstance(action, Hire) for action in decide(facts, 10.0))
    facts.died(2, "exit 0", 11.0)
    facts.lost.clear()
    assert decide(facts, 11.0) == [Hire(2)]


def test_who_is_being_replaced_is_not_dismissed_for_being_too_many() -> None:
    facts = replacing(serving(2), 1, 2, 10.0)
    facts.target = 1
    assert decide(facts, 10.0) == [Dismiss(0)]


# Retiring


def test_a_worker_retires_before_it_stops() -> None:
    facts = serving(2)
    facts.dismissed(1, 10.0)
    facts.target = 1
    assert decide(facts, 10.0) == [Retire(1), WakeAt(40.0)]
    facts.workers[1].retire_sent = True
    assert decide(facts, 11.0) == [WakeAt(40.0)]
    facts.retire_ended(1, 1)
    assert decide(facts, 12.0) == [StopWorker(1), WakeAt(40.0)]
    facts.workers[1].stop_sent = True
    facts.died(1, "exit 0", 13.0)
    facts.lost.clear()
    assert decide(facts, 13.0) == []
    assert facts.workers[1].duty is Duty.NONE
    assert facts.workers[1].early_deaths == 0


def test_the_word_that_another_generation_retired_is_none() -> None:
    facts = serving(2)
    facts.dismissed(1, 10.0)
    facts.retire_ended(1, 7)
    facts.retire_ended(0, 1)
    assert not any(worker.retired for worker in facts.workers)


def test_who_does_not_retire_in_time_is_killed() -> None:
    facts = serving(2)
    facts.dismissed(1, 10.0)
    facts.target = 1
    facts.workers[1].retire_sent = True
    assert decide(facts, 40.0) == [Kill(1, "not retired after 30 s")]


def test_who_never_got_anything_stops_at_once() -> None:
    facts = serving(1)
    facts.hired(1)
    facts.started(1, 10.0)
    facts.dismissed(1, 10.0)
    assert StopWorker(1) in decide(facts, 10.0)


def test_a_new_io_process_knows_nothing_of_who_retires() -> None:
    facts = serving(2)
    facts.target = 1
    facts.dismissed(1, 10.0)
    facts.workers[1].retire_sent = True
    facts.died(None, "signal 9", 11.0)
    assert decide(facts, 11.0) == [StartIo(), StopWorker(1), WakeAt(40.0)]


# Replacing


def test_a_reload_replaces_who_is_there_longest_first() -> None:
    facts = serving(2)
    facts.workers[0].since = 5.0
    facts.asked_to_reload(2)
    assert decide(facts, 10.0) == [Hire(2, 1, "reload")]


def test_one_after_the_other() -> None:
    facts = serving(2)
    facts.asked_to_reload(2)
    replacing(facts, 0, 2, 10.0)
    assert decide(facts, 10.0) == [WakeAt(40.0)], "it boots"
    facts.ready(2, 1)
    assert decide(facts, 11.0) == [CommitReload()]
    facts.reload_committed()
    assert decide(facts, 11.0) == [Dismiss(0)]
    facts.dismissed(0, 11.0)
    assert decide(facts, 11.0) == [Retire(0), WakeAt(41.0)], "nobody else before it is gone"
    facts.workers[0].stop_sent = True
    facts.died(0, "exit 0", 12.0)
    facts.lost.clear()
    assert decide(facts, 12.0) == [Hire(0, 1, "reload")], "the freed slot is used"
    facts.hired(0, 1)
    boot(facts, 0, 12.0)
    facts.dismissed(1, 13.0)
    facts.died(1, "exit 0", 13.0)
    facts.lost.clear()
    assert decide(facts, 13.0) == [EndReload()]


def test_a_successor_takes_the_place_of_who_died() -> None:
    facts = replacing(serving(1), 0, 1, 10.0)
    facts.died(0, "signal 9", 11.0)
    facts.lost.clear()
    assert decide(facts, 11.0) == [WakeAt(40.0)]
    assert [worker.duty for worker in facts.workers] == [Duty.NONE, Duty.SERVING]
    assert facts.workers[1].counts


def test_a_new_worker_counts_only_where_the_io_process_is() -> None:
    facts = replacing(serving(1), 0, 1, 10.0)
    facts.ready(1, 0)
    assert Dismiss(0) not in decide(facts, 11.0)


# Reloads


def test_a_dead_worker_is_started_with_the_settings_of_the_reload() -> None:
    facts = serving(2)
    facts.asked_to_reload(2)
    facts.died(0, "signal 9", 10.0)
    facts.started(0, 10.0)
    facts.lost.clear()
    assert facts.workers[0].revision == 1
    facts.ready(0, 1)
    assert decide(facts, 11.0) == [CommitReload()]


def test_words_of_failure_end_a_reload_at_once() -> None:
    facts = replacing(serving(2), 0, 2, 10.0)
    facts.asked_to_reload(2)
    facts.started(2, 10.0)
    facts.failed(2, "no module named x")
    assert decide(facts, 10.0) == [AbandonReload("no module named x")]
    facts.reload_abandoned("no module named x", 10.0)
    assert facts.reload_error == "no module named x"
    assert facts.starting_revision == 0
    assert StopWorker(2) in decide(facts, 10.0)
    facts.died(2, "exit 1", 10.1)
    facts.lost.clear()
    assert decide(facts, 10.1) == [], "the old ones are as before"


def test_words_of_failure_with_the_settings_in_force_end_no_reload() -> None:
    facts = serving(1)
    facts.hired(1)
    facts.target = 2
    facts.started(1, 10.0)
    facts.asked_to_reload(2)
    facts.failed(1, "no memory")
    assert not any(isinstance(action, AbandonReload) for action in decide(facts, 10.0))


@pytest.mark.parametrize(("deaths", "given_up"), [(2, False), (3, True)])
def test_deaths_end_a_reload(deaths: int, given_up: bool) -> None:
    facts = serving(2)
    facts.asked_to_reload(2)
    facts.hired(2, 0)
    for _ in range(deaths):
        facts.started(2, 10.0)
        facts.died(2, "signal 11", 10.0)
        facts.lost.clear()
    text = "worker 2 died 3 times in a row before it did any work, last: signal 11"
    expected: list[Action] = [AbandonReload(text)] if given_up else [WakeAt(10.1)]
    assert decide(facts, 10.0) == expected


def test_a_proven_reload_goes_on_whoever_dies() -> None:
    facts = serving(2)
    facts.asked_to_reload(2)
    facts.reload_committed()
    facts.hired(2, 0)
    for _ in range(9):
        facts.started(2, 10.0)
        facts.died(2, "signal 11", 10.0)
        facts.lost.clear()
    assert decide(facts, 10.0) == [WakeAt(15.0)]


def test_a_later_reload_takes_the_place_of_one_under_way() -> None:
    facts = serving(1)
    facts.asked_to_reload(1)
    replacing(facts, 0, 1, 10.0)
    facts.asked_to_reload(1)
    facts.failed(1, "of the first one")
    facts.ready(1, 1)
    assert decide(facts, 11.0) == [Dismiss(0)], "it is newer than what it replaces"
    facts.dismissed(0, 11.0)
    facts.died(0, "exit 0", 11.0)
    facts.lost.clear()
    assert decide(facts, 11.0) == [Hire(0, 1, "reload")]


def test_the_number_of_workers_changes_when_a_reload_is_proven() -> None:
    facts = serving(2)
    facts.asked_to_reload(3)
    assert facts.target == 2
    facts.reload_committed()
    assert decide(facts, 10.0) == [Hire(2)]


def test_a_reload_lets_who_died_again_and_again_start_at_once() -> None:
    facts = serving(1)
    facts.workers[0].early_deaths = 7
    facts.died(0, "signal 11", 10.0)
    facts.lost.clear()
    assert decide(facts, 10.0) == [WakeAt(15.0)]
    facts.asked_to_reload(1)
    assert decide(facts, 10.0) == [StartWorker(0)]


def test_without_workers_a_reload_is_done_at_once() -> None:
    facts = serving(0)
    facts.asked_to_reload(0)
    assert decide(facts, 10.0) == [CommitReload()]
    facts.reload_committed()
    assert decide(facts, 10.0) == [EndReload()]


# Lame duck


def test_every_io_process_is_told_to_let_nobody_in() -> None:
    facts = serving(0)
    facts.lame_duck = True
    assert decide(facts, 10.0) == [LetNobodyIn()]
    facts.lame_sent = True
    assert decide(facts, 10.0) == []
    facts.died(None, "signal 9", 11.0)
    facts.started(None, 11.0)
    assert LetNobodyIn() in decide(facts, 11.0)
