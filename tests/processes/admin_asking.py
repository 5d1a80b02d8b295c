"""The operator's verbs, run as commands against a `Serve`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mpmsgr.cli.exit_codes import ExitCode
from tests.processes.pool_serving import Serve


def mpmsgr(
    server: Serve, line: str, *, named: bool = True, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run one verb; *named*: say which server."""
    which = ["--run-dir", str(server.run_dir)] if named else []
    return subprocess.run(
        [sys.executable, "-m", "mpmsgr", *line.split(), *which],
        capture_output=True,
        text=True,
        cwd=server.directory,
        timeout=30,
        env=environment(server.directory) | more,
    )


def ask(server: Serve, line: str) -> Any:
    """What a verb prints with --json."""
    ran = mpmsgr(server, f"{line} --json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def refused(server: Serve, line: str) -> str:
    """The one line of a verb that fails."""
    ran = mpmsgr(server, line)
    assert (ran.returncode, ran.stdout) == (ExitCode.FAILED, "")
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def environment(folder: Path) -> dict[str, str]:
    """Ours, but for settings of the server; *folder* is where servers are looked for."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MPMSGR_")}
    return environ | {"TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
