"""Limits of a worker: messages, age, memory; and the CPU it is bound to."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from mpmsgr.errors import ConfigError
from mpmsgr.supervisor.actions import Hire, Measure, StopWorker, WakeAt
from mpmsgr.supervisor.affinity import bind, cpus_of, least_used
from mpmsgr.supervisor.clock import Clock
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.limits import Limits
from mpmsgr.supervisor.measures import own_rss
from mpmsgr.supervisor.wear import worn
from tests.unit.supervisor_facts import serving

MIB = 1 << 20


def limited(workers: int = 2, **limits: float) -> Facts:
    """Serving, with these limits."""
    facts = serving(workers)
    facts.limits = dataclasses.replace(Limits(), **limits)  # type: ignore[arg-type]
    return facts


def test_without_limits_nobody_is_measured_or_worn() -> None:
    facts = serving(2)
    facts.measured(0, 10**9, 10**12)
    assert decide(facts, 1e9) == []


@pytest.mark.parametrize(
    ("luck", "handled", "is_worn"),
    [(0.0, 999, False), (0.0, 1000, True), (1.0, 899, False), (1.0, 900, True)],
)
def test_messages(luck: float, handled: int, is_worn: bool) -> None:
    facts = limited(max_messages=1000)
    facts.measured_at = 50.0
    facts.workers[1].luck = luck
    facts.measured(1, handled, 0)
    expected = Hire(2, 1, f"it handled {handled} messages") if is_worn else WakeAt(52.0)
    assert decide(facts, 50.0) == [expected]


def test_a_new_process_has_handled_nothing() -> None:
    facts = limited(max_messages=10)
    facts.measured(1, 10, 0)
    facts.died(1, "signal 9", 1.0)
    facts.started(1, 1.0)
    assert facts.workers[1].handled == 0


def test_age() -> None:
    facts = limited(max_lifetime_s=100.0)
    facts.workers[0].luck = 0.5
    assert decide(facts, 50.0) == [WakeAt(95.0)]
    assert decide(facts, 95.0) == [Hire(2, 0, "it lived 95 s")]


def test_age_waits_for_its_turn_and_wakes_nobody_meanwhile() -> None:
    facts = limited(max_lifetime_s=100.0)
    facts.hired(2, 0)
    facts.started(2, 100.0)
    assert decide(facts, 100.0) == [WakeAt(130.0)], "it boots"


def test_memory_has_to_be_above_for_several_measures_in_a_row() -> None:
    facts = limited(max_rss_bytes=100 * MIB)
    facts.measured_at = 50.0
    facts.measured(0, 0, 20 * MIB)
    for mib in (101, 101, 99, 101, 101):
        facts.measured(0, 0, mib * MIB)
        assert decide(facts, 50.0) == [WakeAt(52.0)]
    facts.measured(0, 0, 101 * MIB)
    assert decide(facts, 50.0) == [Hire(2, 0, "it has 101 MiB of resident memory")]


def test_a_limit_below_what_a_fresh_worker_has_is_none() -> None:
    facts = limited(max_rss_bytes=100 * MIB)
    facts.measured(0, 0, 200 * MIB)
    for _ in range(9):
        facts.measured(0, 0, 232 * MIB)
    assert not worn(facts.workers[0], facts.limits, Clock(50.0))
    for _ in range(3):
        facts.measured(0, 0, 233 * MIB)
    assert worn(facts.workers[0], facts.limits, Clock(50.0))


def test_measuring_takes_its_time() -> None:
    facts = limited(max_rss_bytes=1)
    assert decide(facts, 50.0) == [Measure()]
    facts.measured_at = 50.0
    assert decide(facts, 50.0) == [WakeAt(52.0)]
    facts.died(None, "signal 9", 51.0)
    assert Measure() not in decide(facts, 60.0), "nobody serves"


def test_a_worker_that_stops_may_take_its_time_after_closing_its_channel() -> None:
    facts = serving(2)
    facts.target = 1
    facts.dismissed(1, 10.0)
    facts.retire_ended(1, 1)
    assert StopWorker(1) in decide(facts, 10.0)
    facts.workers[1].stop_sent = True
    facts.channel_closed(1, 11.0)
    assert decide(facts, 20.0) == [WakeAt(40.0)]


# Memory of its own


def test_shared_memory_is_nobodys_own() -> None:
    fd = os.memfd_create("test")
    script = (
        "import mmap, sys; m = mmap.mmap(int(sys.argv[1]), 0); m[:] = bytes(len(m));"
        " print(flush=True); sys.stdin.read()"
    )
    try:
        os.ftruncate(fd, 64 * MIB)
        with subprocess.Popen(
            [sys.executable, "-c", script, str(fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd],
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            rss = own_rss(process.pid)
            process.communicate()
    finally:
        os.close(fd)
    assert MIB < rss < 64 * MIB
    assert own_rss(process.pid) == 0, "it is gone"


# CPUs


@pytest.mark.parametrize(
    ("cpus", "in_use", "expected"),
    [
        ([], [], None),
        ([3, 5], [], 3),
        ([3, 5], [3], 5),
        ([3, 5], [3, 5, None], 3),
        ([3, 5], [3, 3, 5], 5),
    ],
)
def test_the_cpu_that_is_used_least(
    cpus: list[int], in_use: list[int | None], expected: int | None
) -> None:
    assert least_used(cpus, in_use) == expected


def test_cpus_of_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 2, 7})
    assert cpus_of("none") == []
    assert cpus_of("auto") == [2, 4, 7]
    assert cpus_of("7,2") == [7, 2]
    with pytest.raises(ConfigError, match="CPU 3 is none of ours: 2, 4, 7"):
        cpus_of("2-4")


def test_binding() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        cpu = max(os.sched_getaffinity(0))
        bind(process.pid, cpu)
        assert os.sched_getaffinity(process.pid) == {cpu}
        process.communicate(b"\n")
    bind(process.pid, cpu)  # it is gone: said, no more
