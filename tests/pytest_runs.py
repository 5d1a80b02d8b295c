"""Runs of pytest on files of a test's own, as somebody who has installed mpmsgr makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_pytest(folder: Path, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """``pytest -q`` in *folder*, without the settings of this repository."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "PYTEST"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        input=stdin,
    )
