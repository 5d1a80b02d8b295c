"""Counters as Prometheus metrics, read back by prometheus-client's own parser."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mpmsgr.admin.metrics import Snapshot, metric_name

PROCESS = {"rss_bytes": 1000, "cpu_s": 1.5, "fds": 20}
GONE = {"rss_bytes": None, "cpu_s": None, "fds": None}
PERF = {
    "messenger": {
        "sessions": {"open": 3, "standby": 1},
        "outbox_bytes": 17,
        "accepted_total": 9,
        "decisions_total": {},
        "max_sessions": 100,
        "sessions_refused_total": {"lame_duck": 0, "max_sessions": 7},
    },
    "pool": {
        "oldest_s": 0.25,
        "arena_used_bytes": {"ingress": 4096, "worker 0": 0},
        "stage_s": {
            "queue": {"le": [0.001, 0.01], "counts": [5, 2, 1], "sum": 0.5},
            "handler": {"le": [0.001, 0.01], "counts": [0, 0, 0], "sum": 0.0},
        },
        "missing": None,
    },
}


def snapshot(**changes: Any) -> Snapshot:
    status = {"version": "1.0", "name": "svc.0", "io": PROCESS}
    said = {
        "status": status,
        "health": {"ready": True},
        "workers": [{"slot": 0, **PROCESS}, {"slot": 1, **GONE}],
        "own": {"supervisor": {"up_s": 5.0, "deaths_total": {"io": 0, "worker": 2}}},
        "perf": PERF,
    }
    return Snapshot(**{**said, **changes})


def samples(shot: Snapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the text, by name and labels."""
    text = generate_latest(shot).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("mpmsgr_info", {"version": "1.0", "name": "svc.0"}, 1),
        ("mpmsgr_ready", {}, 1),
        ("mpmsgr_io_up", {}, 1),
        ("mpmsgr_process_resident_memory_bytes", {"process": "worker-0"}, 1000),
        ("mpmsgr_process_cpu_seconds_total", {"process": "io"}, 1.5),
        ("mpmsgr_messenger_sessions", {"state": "standby"}, 1),
        ("mpmsgr_messenger_accepted_total", {}, 9),
        ("mpmsgr_messenger_outbox_bytes", {}, 17),
        ("mpmsgr_messenger_max_sessions", {}, 100),
        ("mpmsgr_messenger_sessions_refused_total", {"reason": "max_sessions"}, 7),
        ("mpmsgr_supervisor_up_seconds", {}, 5),
        ("mpmsgr_supervisor_deaths_total", {"process": "worker"}, 2),
        ("mpmsgr_pool_oldest_seconds", {}, 0.25),
        ("mpmsgr_pool_arena_used_bytes", {"arena": "ingress"}, 4096),
        ("mpmsgr_pool_stage_seconds_bucket", {"stage": "queue", "le": "0.01"}, 7),
        ("mpmsgr_pool_stage_seconds_bucket", {"stage": "queue", "le": "+Inf"}, 8),
        ("mpmsgr_pool_stage_seconds_count", {"stage": "queue"}, 8),
        ("mpmsgr_pool_stage_seconds_sum", {"stage": "queue"}, 0.5),
    ],
)
def test_samples(name: str, labels: dict[str, str], value: float) -> None:
    assert samples(snapshot())[name, tuple(sorted(labels.items()))] == value


def test_a_process_that_is_gone_has_no_samples() -> None:
    assert not [key for key in samples(snapshot()) if ("process", "worker-1") in key[1]]


def test_without_the_io_process_the_rest_is_told() -> None:
    told = samples(snapshot(perf=None, health={"ready": False}))
    assert (told["mpmsgr_io_up", ()], told["mpmsgr_ready", ()]) == (0, 0)
    assert told["mpmsgr_supervisor_up_seconds", ()] == 5


def test_openmetrics_is_sound_too() -> None:
    text = generate_openmetrics(cast(Any, snapshot())).decode()
    families = {f.name: f for f in openmetrics.text_string_to_metric_families(text)}
    assert families["mpmsgr_pool_stage_seconds"].type == "histogram"


def test_every_name_is_in_base_units_and_no_label_names_a_peer() -> None:
    for name, labels in samples(snapshot()):
        assert not re.search(r"_(ms|us|s|kib|mib)$", name), name
        about = {"process", "state", "stage", "arena", "reason"}
        assert {key for key, _ in labels} <= about | {"le", "version", "name"}


def test_metric_names() -> None:
    assert metric_name("pool", "busy_s_total") == "mpmsgr_pool_busy_seconds_total"
    assert metric_name("pool", "batches_total") == "mpmsgr_pool_batches_total"
