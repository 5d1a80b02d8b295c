"""What lies in deploy/ names options, verbs, metrics and times that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpmsgr import Dispatcher
from mpmsgr.admin import rows
from mpmsgr.admin.inspect import messenger_counters
from mpmsgr.admin.metrics import Snapshot
from mpmsgr.cli.main import VERBS
from mpmsgr.config import OPTIONS, Settings
from mpmsgr.pool.report import Report
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.limits import Limits
from tests.unit.pool_harness import on_uvloop, pool, session
from tests.unit.test_admin_metrics import snapshot

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
GRACEFUL_S = Settings().graceful_timeout_s


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_flags_and_environment_exist(path: Path) -> None:
    said = path.read_text(encoding="utf-8")
    known = {option.env for option in OPTIONS} | {"MPMSGR_"}
    assert set(re.findall(r"\bMPMSGR_[A-Z_]*", said)) <= known
    flags = {option.flag for option in OPTIONS}
    for command in re.findall(r'"serve",[^\]]*', said):
        assert set(re.findall(r"--[a-z-]+", command)) <= flags


def test_verbs_exist() -> None:
    unit = text("mpmsgr.service")
    assert re.findall(r"bin/mpmsgr (\w+)", unit) == ["serve"]
    assert '["mpmsgr", "health"]' in text("Dockerfile")
    assert {"serve", "health"} <= set(VERBS)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("mpmsgr.service", r"TimeoutStopSec=(\d+)"),
        ("compose.yaml", r"stop_grace_period: (\d+)s"),
        ("kubernetes.yaml", r"terminationGracePeriodSeconds: (\d+)"),
    ],
)
def test_a_drain_is_not_cut_short(name: str, pattern: str) -> None:
    (seconds,) = re.findall(pattern, text(name))
    assert int(seconds) >= GRACEFUL_S + 10


def test_a_unit_that_fails_for_good_is_not_started_again() -> None:
    assert "RestartPreventExitStatus=2 3" in text("mpmsgr.service")


def names(shot: Snapshot) -> set[str]:
    return {sample.name for metric in shot.collect() for sample in metric.samples}


@on_uvloop
async def test_the_dashboard_shows_metrics_that_exist() -> None:
    shown = set(re.findall(r"\bmpmsgr_\w+", text("grafana-dashboard.json")))
    supervisor: Any = SimpleNamespace(facts=Facts.of(1, Limits()))
    deaths = {"io": 0, "worker": 0}
    async with pool(lambda site: [Dispatcher()]) as (p, messenger):
        await session(p, messenger)
        shot = snapshot(
            own={"supervisor": rows.counters(supervisor, deaths, 0.0)},
            perf={
                "messenger": messenger_counters(p.messenger),
                "pool": Report(p.front, p.memory).counters(),
            },
        )
    assert shown - names(shot) == set()


def test_panels_of_the_dashboard_are_numbered_and_titled() -> None:
    panels = json.loads(text("grafana-dashboard.json"))["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert len({panel["title"] for panel in panels}) == len(panels)
