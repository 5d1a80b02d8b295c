"""Breakers. (What they mean for readiness: test_admin_health.py.)"""

from __future__ import annotations

import pytest

from mpmsgr.supervisor.actions import StartWorker, WakeAt
from mpmsgr.supervisor.child import Phase
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.health import breaker_is_open
from mpmsgr.supervisor.limits import Limits
from tests.unit.supervisor_facts import serving


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
    assert not breaker_is_open(facts.workers[0], facts.limits, 1.0)


def test_an_open_breaker_waits_longest() -> None:
    facts = serving(2)
    facts.workers[0].early_deaths = 4
    facts.died(0, "exit 1", 10.0)
    facts.lost.clear()
    assert decide(facts, 10.0) == [WakeAt(15.0)]
    assert decide(facts, 15.0) == [StartWorker(0)]
