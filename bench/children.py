"""Processes a benchmark starts: they end with it, whatever ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def start(*arguments: str, cwd: str | None = None) -> subprocess.Popen[bytes]:
    """Start ``python ARGUMENTS``; its stdin stays open for as long as this process lives."""
    return subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, cwd=cwd)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill *process* if it runs, and reap it."""
    process.kill()
    process.communicate()


def end_with_parent() -> None:
    """Called by a child: exit when stdin ends."""
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()


def _exit_at_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
