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
    assert made.violations == ["no request succeeded"]


def test_reports_of_processes_merge_after_travelling() -> None:
    merged = LoadReport(PLAN)
    for _ in range(2):
        form = json.loads(json.dumps(report(lost=1).to_wire()))
        merged.merge(LoadReport.from_wire(PLAN, form))
    assert (merged.sent, merged.lost, merged.errors, merged.reconnects) == (20, 2, {5: 4}, 2)
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
    asked, counts, speed = report(lost=1).text().splitlines()
    assert asked == "2 clients x 1 in flight, 64 bytes, type 0x8001, 1 process, 2.0 s"
    assert counts.startswith("sent 10, answered 10 (2 with an error: code 5: 2), lost 1, dupl")
    assert speed.startswith("5 round trips/s, latency p50 1.5 ms, p90")
