"""A server that is started without a stderr, as some supervisors of services do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from mpmsgr.cli.exit_codes import ExitCode
from tests.loopback import ANY_PORT
from tests.support import eventually

PLUGIN = """
from mpmsgr import handles

@handles(0x8001)
def echo(con, m):
    return m.reply(m.front)
"""


def test_it_serves_and_stops(tmp_path: Path) -> None:
    """What takes the number 2 in its place would be lost in the children, or written to."""
    (tmp_path / "plain.py").write_text(PLUGIN)
    run_dir, log = tmp_path / "run", tmp_path / "log"
    flags = ["--bind", ANY_PORT, "--workers", "1", "--run-dir", str(run_dir)]
    command = [sys.executable, "-m", "mpmsgr", "serve", *flags, "--log-file", str(log), "plain"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MPMSGR_")}
    script = 'exec "$@" --log-level debug 2>&-'
    server = subprocess.Popen(["sh", "-c", script, "sh", *command], cwd=tmp_path, env=environ)
    try:
        eventually(
            lambda: log.exists() and "worker 0 (generation 1) is ready" in log.read_text(), 20.0
        )
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == ExitCode.OK
    finally:
        server.kill()
        server.wait()
    said = log.read_text()
    assert said.count("ended: exit 0") == 2, said
    assert "stacks of" not in said
