"""What lies in deploy/ names options, verbs, metrics and times that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mpmsgr.admin.metrics import Snapshot
from mpmsgr.cli.main import VERBS
from mpmsgr.config import OPTIONS, Settings
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


def test_the_dashboard_shows_metrics_that_exist() -> None:
    shown = set(re.findall(r"\bmpmsgr_\w+", text("grafana-dashboard.json")))
    counters = dict.fromkeys(
        ("faults_total", "hostile_total", "resets_total", "opened_total", "accepted_total"), 1
    )
    shot = snapshot()
    assert shot.perf is not None
    messenger = shot.perf["messenger"] | counters
    shot.perf = {**shot.perf, "messenger": messenger}
    shot.own = {"supervisor": {**shot.own["supervisor"], "workers": {"ready": 1}}}
    assert shown - names(shot) == set()


def test_panels_of_the_dashboard_are_numbered_and_titled() -> None:
    panels = json.loads(text("grafana-dashboard.json"))["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert len({panel["title"] for panel in panels}) == len(panels)
