"""Breakers and readiness."""

from __future__ import annotations

import pytest

from mpmsgr.supervisor.actions import StartWorker, WakeAt
from mpmsgr.supervisor.child import Phase
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.health import breaker_is_open, unready
from mpmsgr.supervisor.limits import Limits
from tests.unit.test_supervisor_roster import LIMITS, replacing, serving


@pytest.mark.parametrize(
    ("deaths", "phase", "now", "is_open"),
    [
        (4, Phase.ABSENT, 0.0, False),
        (5, Phase.ABSENT, 0.0, True),
        (5, Phase.ABSENT, 1e9, True),
        (5, Phase.STARTING, 10.0, True),
        (5, Phase.READY, 59.9, True),  # READY alone is no work
        (5, Phase.READY, 60.0, False),
    ],
)
def test_a_breaker(deaths: int, phase: Phase, now: float, is_open: bool) -> None:
    worker = serving(1).workers[0]
    worker.early_deaths, worker.phase = deaths, phase
    assert breaker_is_open(worker, Limits(), now) is is_open


def test_a_completion_closes_a_breaker() -> None:
    facts = serving(1)
    facts.workers[0].early_deaths = 9
    facts.worked(0)
    assert not list(unready(facts, 1.0))


def test_an_open_breaker_waits_longest() -> None:
    facts = serving(2)
    facts.workers[0].early_deaths = 4
    facts.died(0, "exit 1", 10.0)
    facts.lost.clear()
    assert decide(facts, 10.0) == [WakeAt(15.0)]
    assert decide(facts, 15.0) == [StartWorker(0)]


def test_ready_means_that_somebody_is_served_well() -> None:
    assert list(unready(serving(2), 1.0)) == []
    assert list(unready(serving(0), 1.0)) == []


def lame_duck(facts: Facts) -> None:
    facts.lame_duck = True


def all_dead(facts: Facts) -> None:
    for slot in (0, 1):
        facts.died(slot, "signal 9", 100.0)


def looping(facts: Facts) -> None:
    facts.workers[1].early_deaths = 4
    facts.died(1, "signal 11", 1.0)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda facts: facts.asked_to_stop(1.0), "it stops"),
        (lame_duck, "it lets nobody in any more (lame duck)"),
        (lambda facts: facts.died(None, "signal 9", 1.0), "the I/O process is not ready"),
        (all_dead, "no worker is ready"),
        (
            looping,
            "worker 1 died 5 times in a row before it did any work, last: signal 11",
        ),
    ],
)
def test_why_it_is_not_ready(what: object, why: str) -> None:
    facts = serving(2)
    assert callable(what)
    what(facts)
    assert list(unready(facts, 101.0)) == [why]


def test_one_dead_worker_of_two_is_no_reason() -> None:
    facts = serving(2)
    facts.died(0, "signal 9", 100.0)
    assert list(unready(facts, 101.0)) == []


def test_a_successor_that_loops_is_no_reason() -> None:
    facts = replacing(serving(1), 0, 1, 10.0)
    facts.workers[1].early_deaths = 9
    assert list(unready(facts, 11.0)) == []
    assert LIMITS.breaker_limit <= 9
