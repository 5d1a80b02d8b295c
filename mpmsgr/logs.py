"""Log lines of our processes, on stderr."""

from __future__ import annotations

import logging
import sys


def setup_logging(level: str, process: str) -> None:
    """Write lines of at least *level*; *process* ("io", "worker 1") stands in each."""
    handler = logging.StreamHandler(sys.stderr)
    form = f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
