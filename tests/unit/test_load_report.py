from __future__ import annotations

import json
from collections import Counter

import pytest

from mpmsgr.load.latency import Histogram
from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.report import LoadReport
from mpmsgr.load.verify import Tally

PLAN = LoadPlan("h:1", clients=2, count=10)


def report(**counts: int) -> LoadReport:
    latency = Histogram()
    latency.record(0.0015)
    tally = Tally(sent=10, answered=10, errors=Counter({5: 2}))
    for name, count in counts.items():
        setattr(tally, name, count)
    return LoadReport(PLAN, tally, latency, reconnects=1, duration_s=2.0)


def test_all_well() -> None:
    assert report().violations == []
    assert report().rate == 5.0
    assert report().errors == {5: 2}


@pytest.mark.parametrize("name", ["lost", "duplicated", "reordered", "corrupted"])
def test_each_broken_promise_is_a_violation(name: str) -> None:
    assert report(**{name: 3}).violations == [f"3 {name}"]


@pytest.mark.parametrize("answered", [0, 2])
def test_a_run_without_any_success_is_a_violation(answered: int) -> None:
    made = report(answered=answered)
    made.tally.errors = Counter({5: answered})
    assert made.violations == ["no request succeeded: does a handler echo type 0x8001?"]


def test_a_session_that_ended_too_soon_is_a_violation_with_its_cause() -> None:
    made = report(lost=2)
    made.ended, made.cause = 1, "gone"
    assert made.violations == ["2 lost", "1 session ended too soon (gone)"]


def test_reports_of_processes_merge_after_travelling() -> None:
    merged = LoadReport(PLAN)
    one = report(lost=1)
    one.ended, one.cause, one.cpu_s = 1, "gone", 0.5
    for _ in range(2):
        form = json.loads(json.dumps(one.to_wire()))
        merged.merge(LoadReport.from_wire(PLAN, form))
    assert (merged.sent, merged.lost, merged.errors, merged.reconnects) == (20, 2, {5: 4}, 2)
    assert (merged.ended, merged.cause, merged.cpu_s) == (2, "gone", 1.0)
    assert merged.duration_s == 2.0
    assert merged.latency.count == 2


def test_as_dict_is_plain() -> None:
    form = json.loads(json.dumps(report(lost=1).as_dict()))
    assert form["sent"] == 10
    assert form["lost"] == 1
    assert form["errors"] == {"5": 2}
    assert form["violations"] == ["1 lost"]
    assert form["latency_s"]["p50"] == 0.0015
    assert form["plan"]["clients"] == 2


def test_text_tells_it_in_three_lines() -> None:
    made = report(lost=1)
    made.cpu_s = 0.001
    made.tally.errors[1000] = 1
    asked, counts, speed = made.text().splitlines()
    assert asked == "2 clients x 1 in flight, 64 bytes, type 0x8001, 2.0 s"
    errors = "3 with an error: shutting down: 2, code 1000: 1"
    assert counts == (
        f"sent 10, answered 10 ({errors}), lost 1, duplicated 0, reordered 0, corrupted 0,"
        " reconnects 1"
    )
    assert speed.startswith("5 round trips/s, latency p50 1.5 ms, p90")
    assert speed.endswith("max 1.5 ms, own CPU 100.0 us each")


def test_text_without_any_reply() -> None:
    made = LoadReport(LoadPlan("h:1", clients=1, processes=2, size=1, count=1))
    asked, _, speed = made.text().splitlines()
    assert asked == "1 client x 1 in flight, 1 byte, type 0x8001, 2 processes, 0.0 s"
    assert speed == "0 round trips/s"
