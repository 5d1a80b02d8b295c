"""A lossless session survives whatever a network does: every request answered once, in order."""

from __future__ import annotations

import pytest

from mpmsgr.load import LoadPlan, LoadReport, run
from mpmsgr.supervisor import ExitCode
from tests.fault_proxy import FATAL, FaultProxy, Kind, proxy_in_thread
from tests.processes.supervisor_harness import Running

SESSIONS = 50
#: Less than any time-out of a session, in seconds: faults that show are noticed when they happen.
PATIENCE_S = 8.0


def faulty_run(
    seed: int, *, count: int, size: int, mean_bytes: int, workers: int = 1
) -> tuple[LoadReport, FaultProxy]:
    """Load through a proxy; the server announces the proxy's address as its own."""
    proxy = FaultProxy(None, seed, mean_bytes=mean_bytes)
    with proxy_in_thread(proxy) as (host, port):
        server = Running.real(
            "workers.echo:Echo", workers=workers, advertise=f"{host}:{port}", log_level="error"
        )
        try:
            proxy.target = server.wait_ready()
            plan = LoadPlan(
                f"{host}:{port}",
                clients=SESSIONS,
                in_flight=8,
                size=size,
                count=count,
                connect_timeout_s=60.0,
                reply_timeout_s=60.0,
            )
            report = run(plan)
            assert server.stop() == ExitCode.CLEAN
        finally:
            server.close()
    return report, proxy


def check(report: LoadReport, proxy: FaultProxy, *, count: int, faults: int) -> None:
    """Nothing lost, duplicated, reordered or changed, although much was broken."""
    assert report.violations == []
    assert (report.sent, report.answered, report.resets) == (count, count, 0), report.text()
    assert not report.errors
    assert report.latency.max_s < PATIENCE_S, report.text()
    assert all(proxy.counts[kind.value] for kind in Kind), proxy.counts
    ended = sum(proxy.counts[kind.value] for kind in FATAL)
    assert ended >= faults, proxy.counts
    assert report.reconnects >= faults // 2, (report.text(), proxy.counts)


def test_some_thousand_messages_through_some_tens_of_cuts() -> None:
    report, proxy = faulty_run(1, count=5_000, size=256, mean_bytes=12_000)
    check(report, proxy, count=5_000, faults=40)


@pytest.mark.soak
@pytest.mark.parametrize(("seed", "size"), [(1, 64), (2, 700), (3, 9_000)])
def test_a_hundred_thousand_messages_through_hundreds_of_cuts(seed: int, size: int) -> None:
    mean_bytes = 120 * (size + 100)
    report, proxy = faulty_run(seed, count=100_000, size=size, mean_bytes=mean_bytes, workers=2)
    check(report, proxy, count=100_000, faults=300)
