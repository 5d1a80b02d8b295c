"""A real Prometheus scrapes a server at work, and answers every question of the dashboard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpmsgr import Message, RemoteError, sync
from mpmsgr.admin.client import AdminClient
from tests.interop.prometheus import Prometheus, needs_prometheus
from tests.processes.pool_serving import Serve

pytestmark = needs_prometheus

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana-dashboard.json"
#: What Grafana would put in the place of its variables; two scrapes lie within the interval.
VARIABLES = {"$job": "mpmsgr", "$instance": ".*", "$__rate_interval": "1m"}
ECHO, FAIL = 0x8001, 0x8002
MODULES = {
    "echoes": """
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(front=m.front))

        @handles(0x8002)
        def fail(con, m):
            raise ValueError("a defect")
    """
}
STAGES = ("queue", "ipc", "handler", "reply")
WAIT_S = 30.0


@pytest.fixture
def server() -> Iterator[Serve]:
    with Serve(MODULES, flags=("--metrics-bind", "127.0.0.1:0")) as server:
        yield server


def pool_counters(server: Serve) -> dict[str, Any]:
    """What the server says itself."""
    with AdminClient(server.run_dir) as client:
        found: dict[str, Any] = client.call("perf")["pool"]
        return found


def work(server: Serve, con: Any) -> None:
    for n in range(200):
        con.request(Message(ECHO, b"%d" % n), timeout=WAIT_S)
    for _ in range(3):
        with pytest.raises(RemoteError, match="a defect"):
            con.request(Message(FAIL, b""), timeout=WAIT_S)


def test_what_it_scrapes_is_what_the_server_says(server: Serve, tmp_path: Path) -> None:
    with AdminClient(server.run_dir) as client:
        bind = client.call("status")["metrics"]
    with sync.connect(server.address, timeout=10) as con, Prometheus(tmp_path, bind) as prometheus:
        work(server, con)
        own = pool_counters(server)
        assert own["handled_total"] >= 203

        def value(name: str, **labels: str) -> float | None:
            said = ",".join(f'{key}="{one}"' for key, one in labels.items())
            found = prometheus.query(f"mpmsgr_{name}{{{said}}}")
            return found[0][1] if found else None

        def is_scraped() -> bool:
            return value("pool_handled_total") == float(own["handled_total"])

        server.until(is_scraped, "a scrape after the last message", WAIT_S)
        assert [one for _, one in prometheus.query("up")] == [1]
        target = prometheus.target
        assert (target["health"], target["lastError"]) == ("up", "")
        assert value("pool_failed_total") == own["failed_total"] == 3
        assert value("messenger_sessions", state="open") == 1
        assert value("ready") == value("io_up") == 1
        for arena, size in own["arena_size_bytes"].items():
            assert value("pool_arena_size_bytes", arena=arena) == size

        timed = sum(own["stage_s"]["queue"]["counts"])
        assert 1 <= timed <= 203
        for stage in STAGES:
            assert value("pool_stage_seconds_count", stage=stage) == timed
            assert value("pool_stage_seconds_bucket", stage=stage, le="+Inf") == timed
            total = value("pool_stage_seconds_sum", stage=stage)
            assert total == pytest.approx(own["stage_s"][stage]["sum"])
            median = prometheus.query(
                f'histogram_quantile(0.5, mpmsgr_pool_stage_seconds_bucket{{stage="{stage}"}})'
            )
            assert 0 < median[0][1] < math.inf
        assert prometheus.kind("mpmsgr_pool_stage_seconds") == "histogram"
        assert prometheus.kind("mpmsgr_pool_handled") == "counter", "as OpenMetrics has it"

        for expression in expressions():
            server.until(lambda: prometheus.query(expression), expression, WAIT_S)  # noqa: B023
        assert prometheus.target["lastError"] == ""


def expressions() -> list[str]:
    """What the dashboard asks for."""
    found = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression
            found.append(expression)
    return found
