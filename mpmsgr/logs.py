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


class RateLimit:
    """Says whether a line of a kind may be written now: *every_s* apart, how many were held back.

    Time is an argument: seconds of any clock.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._kinds: dict[str, tuple[float, int]] = {}

    def allows(self, kind: str, now: float) -> int | None:
        """Lines of *kind* held back since the last one, or None: hold this one back too."""
        last, held = self._kinds.get(kind, (now - self._every_s, 0))
        if now - last < self._every_s:
            self._kinds[kind] = last, held + 1
            return None
        self._kinds[kind] = now, 0
        return held
