from __future__ import annotations

import signal
import sys

import pytest

from mpmsgr.errors import ConnectError, MessengerError
from mpmsgr.load import Interrupted, LoadPlan, Progress, run, runner

PLAN = LoadPlan("h:1", clients=4, count=10, processes=2)

PRELUDE = """
import json, sys
from mpmsgr.load import LoadPlan, LoadReport
plan = LoadPlan.from_dict(json.loads(sys.stdin.readline()))
def say(**line): print(json.dumps(line), flush=True)
"""

WORKS = """
say(op="connected")
assert sys.stdin.readline() == "go\\n"
say(op="progress", counts={"sent": 2, "answered": 1, "errors": 0})
report = LoadReport(plan, reconnects=plan.first_client)
report.tally.sent = report.tally.answered = plan.count
say(op="report", report=report.to_wire())
"""


def load_process(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(runner, "_COMMAND", (sys.executable, "-c", PRELUDE + script))


def test_reports_of_all_processes_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    load_process(monkeypatch, WORKS)
    seen: list[Progress] = []
    report = run(PLAN, seen.append)
    assert (report.sent, report.answered, report.violations) == (10, 10, [])
    assert report.reconnects == 1 + 3
    assert report.plan == PLAN
    assert seen[-1].sent in (2, 4)
    assert seen[-1].fraction in (0.1, 0.2)


def test_a_server_nobody_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    load_process(monkeypatch, 'say(op="failed", attempts=3, cause="refused")')
    with pytest.raises(ConnectError, match="no session with h:1 after 3 attempts: refused"):
        run(PLAN)


def test_a_load_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    load_process(monkeypatch, 'say(op="connected"); sys.exit(9)')
    with pytest.raises(MessengerError, match="exit status 9"):
        run(PLAN)


def test_ctrl_c_ends_a_run_with_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    load_process(
        monkeypatch, WORKS.replace("report =", 'assert sys.stdin.readline() == "stop\\n"\nreport =')
    )

    def interrupt(progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        run(PLAN, interrupt)
    assert stopped.value.report.answered == 10


def test_load_processes_never_see_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    load_process(monkeypatch, "import signal\nsignal.raise_signal(signal.SIGINT)\n" + WORKS)
    assert run(PLAN).violations == []
