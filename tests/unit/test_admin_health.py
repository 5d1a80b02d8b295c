"""Readiness as a function of the facts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpmsgr.admin.health import Check, is_ready, progress, readiness, report, state_of
from mpmsgr.supervisor.facts import Facts, Limits
from tests.unit.supervisor_facts import LIMITS, replacing, serving

NOW = 2.0


def failed(facts: Facts) -> list[str]:
    return [check.name for check in readiness(facts, NOW) if not check.ok]


def test_who_serves_is_ready() -> None:
    assert is_ready(serving(), NOW)
    assert is_ready(serving(workers=0), NOW), "handlers run in the I/O process"
    assert state_of(serving(), NOW) == "serving"


def test_nothing_started_yet() -> None:
    facts = Facts.of(2, Limits())
    assert failed(facts) == ["listening", "workers"]
    assert state_of(facts, NOW) == "starting"


def io_died(facts: Facts) -> None:
    facts.died(None, "signal 9", 1.0)


def one_worker_died(facts: Facts) -> None:
    facts.died(0, "signal 9", 1.0)


def all_workers_died(facts: Facts) -> None:
    facts.died(0, "signal 9", 1.0)
    facts.died(1, "signal 9", 1.0)


def linked_elsewhere(facts: Facts) -> None:
    facts.died(None, "signal 9", 1.0)
    facts.started(None, 1.0)
    facts.ready(None)


def stopping(facts: Facts) -> None:
    facts.asked_to_stop(1.0)


def lame(facts: Facts) -> None:
    facts.lame_duck = True


def reloads(facts: Facts) -> None:
    facts.asked_to_reload(2)


def looping(facts: Facts) -> None:
    for _ in range(facts.limits.breaker_limit):
        facts.started(1, 1.0)
        facts.died(1, "exit 1", 1.0)


@pytest.mark.parametrize(
    ("happens", "fails", "state"),
    [
        (io_died, ["listening", "workers"], "degraded"),
        (one_worker_died, [], "degraded"),
        (all_workers_died, ["workers"], "degraded"),
        (linked_elsewhere, ["workers"], "degraded"),
        (stopping, ["not stopping"], "stopping"),
        (lame, ["lets peers in"], "degraded"),
        (reloads, [], "reloading"),
        (looping, ["no open breaker"], "degraded"),
    ],
)
def test_what_makes_it_unready(
    happens: Callable[[Facts], None], fails: list[str], state: str
) -> None:
    facts = serving()
    happens(facts)
    assert (failed(facts), state_of(facts, NOW)) == (fails, state)


def test_a_successor_that_loops_is_no_reason() -> None:
    facts = replacing(serving(1), 0, 1, 10.0)
    facts.workers[1].early_deaths = LIMITS.breaker_limit
    assert is_ready(facts, 11.0)


@pytest.mark.parametrize(
    ("perf", "fails"),
    [
        (None, ["I/O process answers"]),
        ({}, []),
        ({"pool": {"oldest_s": 500.0, "completed_ago_s": 0.1}}, []),
        ({"pool": {"oldest_s": 0.0, "completed_ago_s": 500.0}}, []),
        ({"pool": {"oldest_s": 500.0, "completed_ago_s": 499.0}}, ["messages get on"]),
    ],
)
def test_busy_is_not_stuck(perf: dict[str, dict[str, float]] | None, fails: list[str]) -> None:
    assert [check.name for check in progress(perf) if not check.ok] == fails


def test_a_report_ends_with_the_verdict() -> None:
    checks = [Check("listening", True, "yes"), Check("workers", False, "0 of 2 ready")]
    assert report(checks).splitlines() == [
        "[+]listening ok: yes",
        "[-]workers failed: 0 of 2 ready",
        "healthz check failed",
    ]
