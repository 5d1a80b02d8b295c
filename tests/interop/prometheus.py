"""A real Prometheus on loopback for as long as a test needs it."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.interop.ports import free_port
from tests.support import eventually

START_S = STOP_S = 30.0

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus"),
    reason="no prometheus: apt-get install --no-install-recommends prometheus",
)

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: mpmsgr
  static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Scrapes *target* (HOST:PORT) every second, in a context; its files are in *directory*.

    It dies with the process that started it, whatever kills that.
    """

    def __init__(self, directory: Path, target: str) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes]
        (directory / "prometheus.yml").write_text(CONFIG.format(target=target))

    def __enter__(self) -> Prometheus:
        """Start it, and wait until it is ready."""
        with (self._directory / "out").open("wb") as out:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "prometheus"),
                    "--config.file=prometheus.yml",
                    "--storage.tsdb.path=data",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._directory,
            )
        try:
            eventually(self._is_ready, START_S, "a Prometheus that is ready")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it; it must end well."""
        self._process.terminate()
        try:
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if err is None:
            assert status == 0, self.log

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self._directory / "out").read_text(errors="replace")

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            return self._get("/-/ready")[0] == 200
        except ConnectionRefusedError:
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _ask(self, what: str, **args: str) -> Any:
        status, body = self._get(f"/api/v1/{what}?{urlencode(args)}")
        answer = json.loads(body)
        assert (status, answer["status"]) == (200, "success"), answer
        return answer["data"]

    @property
    def target(self) -> Mapping[str, Any]:
        """How scraping goes: health, lastError, ..."""
        (target,) = self._ask("targets", state="active")["activeTargets"]
        found: dict[str, Any] = target
        return found

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values of an expression now; empty: there is no such series."""
        found = self._ask("query", query=expression)
        assert found["resultType"] == "vector", found
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def kind(self, metric: str) -> str:
        """counter, gauge, histogram: what the target says of a family of metrics."""
        (told,) = self._ask("metadata", metric=metric)[metric]
        return str(told["type"])
