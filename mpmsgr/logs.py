"""Log lines of our processes, on stderr or in a file."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("mpmsgr.logs")


def setup_logging(level: str, process: str, file: str | None = None) -> None:
    """Write lines of at least *level*; *process* ("io", "worker 1") stands in each.

    file: append to it instead of stderr. Raises OSError if it cannot be opened.
    """
    handler = LogFile(file) if file else logging.StreamHandler(sys.stderr)
    form = f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(form))
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, LogFile):
            old.close()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Write lines of at least *level* from now on."""
    logging.getLogger().setLevel(level.upper())


def reopen() -> None:
    """Go on in a new file where ours was moved away; what cannot be opened is said, in the old."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.reopen()


class LogFile(logging.FileHandler):
    """A file that several processes append lines to; `reopen` it when it was moved away."""

    def __init__(self, path: str) -> None:
        super().__init__(path, mode="a", encoding="utf-8")

    def reopen(self) -> None:
        """Close the file and open the one of its name."""
        try:
            before = self.setStream(self._open())
        except OSError as exc:
            log.error("the log file cannot be opened anew: %s", exc)
        else:
            if before is not None:
                before.close()


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
