"""Metrics and health by HTTP, of a server that lives, dies and stops."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mpmsgr import Message, sync
from mpmsgr.admin.client import AdminClient
from mpmsgr.cli.exit_codes import ExitCode
from tests.loopback import ANY_PORT
from tests.processes.pool_serving import IO, WORKER, Serve, kill

MODULES = {
    "echoes": """
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(front=m.front))
    """
}


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    """One server for tests that leave it as it is."""
    with Serve(MODULES, flags=("--metrics-bind", "0")) as server:
        yield server


def place(server: Serve) -> tuple[str, int]:
    with AdminClient(server.run_dir) as client:
        bind = client.call("status")["metrics"]
    host, _, port = bind.rpartition(":")
    return host, int(port)


def get(where: tuple[str, int], path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*where, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metrics(where: tuple[str, int]) -> dict[str, float]:
    status, text = get(where, "/metrics")
    assert status == 200, text
    return {
        sample.name + "".join(f"{{{v}}}" for v in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_server_that_serves(server: Serve) -> None:
    where = place(server)
    assert where[0] == "127.0.0.1", "loopback unless said"
    for path in ("/livez", "/readyz", "/healthz"):
        assert get(where, path) == (200, "ok\n")
    status, text = get(where, "/healthz?verbose")
    assert (status, "[+]workers ok: 2 of 2 ready" in text) == (200, True)
    assert get(where, "/")[0] == 404
    with sync.connect(server.address, timeout=10) as con:
        con.request(Message(0x8001, b"x"), timeout=10)
        told = metrics(where)
    assert told["mpmsgr_ready"] == told["mpmsgr_io_up"] == 1
    assert told["mpmsgr_messenger_sessions{open}"] == 1
    for stage in ("queue", "ipc", "handler", "reply"):
        assert told[f"mpmsgr_pool_stage_seconds_count{{{stage}}}"] == 1
        assert 0 < told[f"mpmsgr_pool_stage_seconds_sum{{{stage}}}"] < 10
    assert told["mpmsgr_process_resident_memory_bytes{worker-1}"] > 1 << 20


def test_deaths_are_told() -> None:
    with Serve(MODULES, flags=("--metrics-bind", "0")) as server:
        check_deaths(server)


def check_deaths(server: Serve) -> None:
    where = place(server)
    kill(server.pids(WORKER)[0])
    server.until(lambda: metrics(where)["mpmsgr_supervisor_deaths_total{worker}"] == 1, "a death")
    (pid,) = server.pids(IO)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert get(where, "/livez") == (200, "ok\n"), "the supervisor lives"
        status, text = get(where, "/healthz")
        assert (status, "[-]I/O process answers failed: no" in text) == (503, True)
        assert metrics(where)["mpmsgr_io_up"] == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    kill(pid)
    server.until(lambda: metrics(where)["mpmsgr_supervisor_starts_total{io}"] == 2, "another one")
    server.until(lambda: get(where, "/readyz")[0] == 200, "ready again")


def test_a_silent_client_holds_up_nobody(server: Serve) -> None:
    where = place(server)
    with socket.create_connection(where, timeout=10) as silent:
        assert get(where, "/livez")[0] == 200
        silent.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert silent.makefile("rb").readline().split()[1] == b"200"


def test_readiness_ends_with_the_stop() -> None:
    modules = {
        "slow": """
            import time
            from mpmsgr import handles

            @handles(0x8001)
            def slow(con, m):
                open("begun", "w").close()
                while not __import__("os").path.exists("end"):
                    time.sleep(0.01)
                return "done"
        """
    }
    with Serve(modules, flags=("--metrics-bind", "0")) as server:
        where = place(server)
        with sync.connect(server.address, timeout=10) as con:
            con.send_message(Message(0x8001, b"", tid=1))
            server.until(lambda: (server.directory / "begun").exists(), "the handler runs")
            server.signal(signal.SIGTERM)
            server.until(lambda: get(where, "/readyz")[0] == 503, "not ready")
            assert "[-]not stopping failed: it stops" in get(where, "/readyz")[1]
            assert get(where, "/livez")[0] == 200
            (server.directory / "end").touch()
            assert server.wait() == 0


def test_an_address_that_is_taken(server: Serve) -> None:
    host, port = place(server)
    ran = serve_once(server, f"{host}:{port}")
    assert ran.returncode == ExitCode.USAGE
    assert "cannot be used: Address already in use" in ran.stderr


def test_the_extra_is_named_when_it_is_missing(server: Serve, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('not installed')")
    ran = serve_once(server, "0", PYTHONPATH=str(tmp_path))
    assert ran.returncode == ExitCode.USAGE
    assert "needs prometheus-client: pip install 'mpmsgr[metrics]'" in ran.stderr


def serve_once(server: Serve, bind: str, **environ: str) -> subprocess.CompletedProcess[str]:
    line = f"serve --bind {ANY_PORT} --workers 0 --metrics-bind {bind} echoes"
    return subprocess.run(
        [sys.executable, "-m", "mpmsgr", *line.split()],
        capture_output=True,
        text=True,
        cwd=server.directory,
        timeout=30,
        env={**os.environ, **environ},
    )
